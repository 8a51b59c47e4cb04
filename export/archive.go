package export

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archive exports to a tar of an OCI image layout. For one platform the archive also has Docker's
// manifest.json: Docker before 25 reads only that file, and podman (4.3) needs it to read an
// archive with several names. Readers of layouts ignore it.
type archive struct {
	env  Env
	spec Spec
}

func (a *archive) Export(ctx context.Context, img *Image, sink event.Sink) error {
	return report(a.spec, "export "+a.spec.archiveName(), sink, func(j *job) (string, error) {
		err := toDest(ctx, a.env, a.spec, func(w io.Writer) error {
			m, err := member(img, a.spec)
			if err != nil {
				return err
			}
			return writeArchive(ctx, w, []Member{m}, a.spec, j)
		})
		if err != nil {
			return "", fmt.Errorf("export %s: %w", a.spec.archiveName(), err)
		}
		return img.Root.Digest.String(), nil
	})
}

// archiveName returns a description of an archive for messages.
func (s Spec) archiveName() string {
	what := map[Type]string{TypeOCI: "an OCI archive", TypeDocker: "a docker archive",
		TypeTar: "a tar"}[s.Type]
	switch s.Dest {
	case "":
		return what
	case "-":
		return what + " to standard output"
	}
	return what + " to " + s.Dest
}

// writeArchive writes images in the format of spec. Its output depends only on the images: entries
// are sorted, and all times are 0.
func writeArchive(ctx context.Context, w io.Writer, members []Member, spec Spec, j *job) error {
	g, err := readGraphs(ctx, members)
	if err != nil {
		return err
	}
	var list []ocispec.Descriptor
	var docker []dockerManifest
	for i, m := range members {
		list = append(list, m.entries()...)
		d, err := m.docker(g.roots[i], spec)
		if err != nil {
			return err
		}
		docker = append(docker, d...)
	}
	ix, err := json.Marshal(index(list))
	if err != nil {
		return err
	}
	files := map[string][]byte{ocispec.ImageIndexFile: ix,
		ocispec.ImageLayoutFile: []byte(ocidoc.LayoutFile)}
	if len(docker) > 0 {
		if files["manifest.json"], err = json.Marshal(docker); err != nil {
			return err
		}
	}
	j.begin("write blobs", g.size)
	a := newTarFile(w)
	if err := writeBlobs(ctx, a, g, j); err != nil {
		return err
	}
	for _, name := range []string{ocispec.ImageIndexFile, "manifest.json",
		ocispec.ImageLayoutFile} {
		data, ok := files[name]
		if !ok {
			continue
		}
		if err := a.file(fileHeader(name, int64(len(data))), func(w io.Writer) error {
			_, err := w.Write(data)
			return err
		}); err != nil {
			return err
		}
	}
	return a.close()
}

// writeBlobs writes blobs/, which is sorted before all other entries of an archive.
func writeBlobs(ctx context.Context, a *tarFile, g *graphs, j *job) error {
	dirs := []string{"blobs/"}
	for _, d := range g.blobs {
		if dir := "blobs/" + d.Digest.Algorithm().String() + "/"; !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	done := ""
	buf := make([]byte, 256<<10)
	for _, d := range g.blobs {
		for _, dir := range dirs {
			if dir <= done || !strings.HasPrefix(blobPath(d), dir) {
				continue
			}
			if err := a.header(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755,
				ModTime: time.Unix(0, 0)}); err != nil {
				return err
			}
			done = dir
		}
		if err := writeBlob(ctx, a, g, d, buf, j); err != nil {
			return fmt.Errorf("write %s: %w", d.Digest, err)
		}
	}
	return nil
}

func writeBlob(ctx context.Context, a *tarFile, g *graphs, d ocispec.Descriptor, buf []byte,
	j *job) error {
	r, err := g.open(ctx, d)
	if err != nil || r == nil {
		return err
	}
	defer r.Close()
	return a.file(fileHeader(blobPath(d), d.Size), func(w io.Writer) error {
		return copyBlob(ctx, w, r, d.Size, buf, j)
	})
}

func fileHeader(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o444,
		ModTime: time.Unix(0, 0)}
}

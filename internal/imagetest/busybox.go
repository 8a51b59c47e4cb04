package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrNoBusybox is returned if the machine has no statically linked busybox, from which a base image
// could be made.
var ErrNoBusybox = errors.New("no static busybox on PATH (Debian: busybox-static)")

// Made is an image that was made in memory.
type Made struct {
	Descriptor ocispec.Descriptor
	Blobs      map[digest.Digest][]byte // manifest, config and layers
	Types      map[digest.Digest]string // the media types of the blobs
}

// Busybox makes a small base image of the machine's own busybox: a shell, its applets, passwd and
// group files with root, daemon and the user nobody.
func Busybox() (*Made, error) {
	bin, err := exec.LookPath("busybox")
	if err != nil {
		return nil, ErrNoBusybox
	}
	f, err := elf.Open(bin)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", bin, err)
	}
	defer f.Close()
	if libs, err := f.ImportedLibraries(); err != nil || len(libs) > 0 {
		return nil, ErrNoBusybox
	}
	raw, err := os.ReadFile(bin)
	if err != nil {
		return nil, err
	}
	out, err := exec.Command(bin, "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list-full: %w", bin, err)
	}
	entries := skeleton()
	entries = append(entries, Entry{Path: "bin/busybox",
		Header: &tar.Header{Typeflag: tar.TypeReg, Mode: 0o755}, Data: raw})
	for path := range strings.FieldsSeq(string(out)) {
		// The list has the path of each applet, in bin, sbin, usr/bin or usr/sbin.
		path = strings.TrimPrefix(path, "/")
		if dir := filepath.Dir(path); path != "bin/busybox" &&
			slices.ContainsFunc(entries, func(e Entry) bool { return e.Path == dir }) {
			entries = append(entries, Entry{Path: path,
				Header: &tar.Header{Typeflag: tar.TypeSymlink, Linkname: "/bin/busybox"}})
		}
	}
	return Make(dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{
		Cmd: []string{"sh"}, Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}}, entries)
}

func skeleton() []Entry {
	dir := func(path string, mode int64) Entry {
		return Entry{Path: path, Header: &tar.Header{Typeflag: tar.TypeDir, Mode: mode}}
	}
	file := func(path, text string) Entry {
		return Entry{Path: path, Header: &tar.Header{Typeflag: tar.TypeReg, Mode: 0o644},
			Data: []byte(text)}
	}
	return []Entry{
		dir("bin", 0o755), dir("etc", 0o755), dir("home", 0o755), dir("root", 0o700),
		dir("sbin", 0o755), dir("tmp", 0o1777),
		dir("usr", 0o755), dir("usr/bin", 0o755), dir("usr/sbin", 0o755), dir("var", 0o755),
		file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"),
		file("etc/group",
			"root:x:0:\ndaemon:x:1:\nusers:x:100:nobody\nextra:x:200:daemon,nobody\nnobody:x:65534:\n"),
	}
}

// Make makes an image of layers of entries, each given as a path and a header. It fills in names,
// sizes and times.
func Make(config dockerspec.DockerOCIImageConfig, layers ...[]Entry) (*Made, error) {
	made := &Made{Blobs: map[digest.Digest][]byte{}, Types: map[digest.Digest]string{}}
	created := time.Unix(1700000000, 0).UTC()
	img := dockerspec.DockerOCIImage{
		Image: ocispec.Image{Created: &created,
			Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}},
		Config: config,
	}
	img.RootFS.Type = "layers"
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest}
	for _, entries := range layers {
		plain, packed, err := pack(entries, created)
		if err != nil {
			return nil, err
		}
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(plain))
		img.History = append(img.History, ocispec.History{Created: &created,
			CreatedBy: "imagetest"})
		manifest.Layers = append(manifest.Layers, made.add(ocispec.MediaTypeImageLayerGzip, packed))
	}
	raw, err := json.Marshal(img)
	if err != nil {
		return nil, err
	}
	manifest.Config = made.add(ocispec.MediaTypeImageConfig, raw)
	if raw, err = json.Marshal(manifest); err != nil {
		return nil, err
	}
	made.Descriptor = made.add(ocispec.MediaTypeImageManifest, raw)
	return made, nil
}

func (m *Made) add(mediaType string, raw []byte) ocispec.Descriptor {
	d := digest.FromBytes(raw)
	m.Blobs[d], m.Types[d] = raw, mediaType
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}
}

func pack(entries []Entry, t time.Time) (plain, packed []byte, err error) {
	var buf, zip bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := *e.Header
		h.Name, h.Size, h.ModTime = e.Path, int64(len(e.Data)), t
		if h.Typeflag == tar.TypeSymlink {
			h.Mode = 0o777
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, nil, err
		}
		if _, err := w.Write(e.Data); err != nil {
			return nil, nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, nil, err
	}
	z := gzip.NewWriter(&zip)
	if _, err := z.Write(buf.Bytes()); err != nil {
		return nil, nil, err
	}
	if err := z.Close(); err != nil {
		return nil, nil, err
	}
	return buf.Bytes(), zip.Bytes(), nil
}

// WriteLayout writes the image into dir as an OCI layout, with the given name.
func (m *Made) WriteLayout(dir, name string) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		return err
	}
	for d, raw := range m.Blobs {
		if err := os.WriteFile(filepath.Join(dir, "blobs/sha256", d.Encoded()),
			raw, 0o644); err != nil {
			return err
		}
	}
	desc := m.Descriptor
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	raw, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{desc},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), raw, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "oci-layout"),
		[]byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

package export

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/platform"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// flat exports the files of an image as a tar.
type flat struct {
	env  Env
	spec Spec
}

func (f *flat) Export(ctx context.Context, img *Image, sink event.Sink) error {
	return report(f.spec, "export "+f.spec.archiveName(), sink, func(j *job) (string, error) {
		j.begin("write files", 0)
		err := toDest(ctx, f.env, f.spec, func(w io.Writer) error {
			return writeFlat(ctx, counting{ctx: ctx, move: w.Write, job: j},
				img.Trees, f.spec)
		})
		if err != nil {
			return "", fmt.Errorf("export %s: %w", f.spec.archiveName(), err)
		}
		return "", nil
	})
}

var errNoTrees = errors.New("the image's files are not available")

// writeFlat writes the trees as one tar: a single tree at the root, several each below a
// directory of its own.
func writeFlat(ctx context.Context, w io.Writer, trees []Tree, spec Spec) error {
	if len(trees) == 0 {
		return errNoTrees
	}
	split := spec.Split == nil || *spec.Split
	trees, err := attested(ctx, trees, spec, split)
	if err != nil {
		return err
	}
	if len(trees) == 1 && (spec.Split == nil || !*spec.Split) {
		return trees[0].Tar(ctx, w)
	}
	tw := tar.NewWriter(w)
	seen := map[string]entryOf{}
	dirs, err := platformDirs(trees)
	if err != nil {
		return err
	}
	for i, t := range trees {
		prefix := ""
		if split {
			prefix = dirs[i]
			if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: prefix + "/",
				Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
				return err
			}
		}
		if err := appendTree(ctx, tw, t, prefix, seen); err != nil {
			return err
		}
	}
	return tw.Close()
}

// entryOf describes an entry of an export in which the platforms share one directory.
type entryOf struct {
	platform string
	dir      bool
}

// shared reports whether a path is a directory of another platform too. It returns an error if one
// platform would overwrite a file of another, which BuildKit refuses as well.
func shared(seen map[string]entryOf, name string, is entryOf) (bool, error) {
	was, ok := seen[name]
	switch {
	case !ok:
		seen[name] = is
		return false, nil
	case was.dir && is.dir:
		return true, nil
	}
	return false, fmt.Errorf(
		"/%s is in the files for %s and in those for %s; leave out platform-split=false", name,
		was.platform, is.platform)
}

// appendTree writes t's entries below prefix.
func appendTree(ctx context.Context, tw *tar.Writer, t Tree, prefix string,
	seen map[string]entryOf) error {
	return eachEntry(ctx, t, func(h *tar.Header, content io.Reader) error {
		name := path.Join(prefix, path.Clean("/"+h.Name))
		if name = strings.TrimPrefix(name, "/"); name == prefix {
			return nil
		}
		if done, err := shared(seen, name, entryOf{platformDir(t.Platform),
			h.Typeflag == tar.TypeDir}); err != nil || done {
			return err
		}
		if h.Name = name; h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			h.Linkname = strings.TrimPrefix(path.Join(prefix, path.Clean("/"+h.Linkname)), "/")
		}
		h.Format = tar.FormatUnknown
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(tw, content)
		return err
	})
}

// readTree calls use with a reader of t's tar, and reads the rest.
func readTree(ctx context.Context, t Tree, use func(io.Reader) error) error {
	pr, pw := io.Pipe()
	var wg sync.WaitGroup
	var tarErr error
	wg.Go(func() {
		tarErr = t.Tar(ctx, pw)
		pw.CloseWithError(tarErr)
	})
	err := use(pr)
	if err == nil {
		_, err = io.Copy(io.Discard, pr) // data after the end marker
	}
	pr.CloseWithError(errReaderGone)
	wg.Wait()
	if tarErr != nil && !errors.Is(tarErr, errReaderGone) {
		return tarErr
	}
	return err
}

// platformDir is the name of the directory for a platform among several, with the names of
// BuildKit: "linux_arm_v7", "windows(10.0.17763)_amd64".
func platformDir(p ocispec.Platform) string {
	p = platform.Normalize(p)
	name := p.OS
	if p.OSVersion != "" || len(p.OSFeatures) > 0 {
		name += "(" + strings.Join(append([]string{p.OSVersion},
			slices.Sorted(slices.Values(p.OSFeatures))...), "+") + ")"
	}
	name += "_" + p.Architecture
	if p.Variant != "" {
		name += "_" + p.Variant
	}
	return strings.ReplaceAll(name, "/", "_")
}

// platformDirs returns the directories of several platforms, which must be different.
func platformDirs(trees []Tree) ([]string, error) {
	var dirs []string
	for _, t := range trees {
		dir := platformDir(t.Platform)
		if slices.Contains(dirs, dir) {
			return nil, fmt.Errorf("two platforms have the same directory, %s", dir)
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

package export

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/attest"
	digest "github.com/opencontainers/go-digest"
)

// attested returns trees that also have the files of their attestations. split is set if each tree
// gets a directory of its own; otherwise the names of several trees have their platforms.
func attested(ctx context.Context, trees []Tree, spec Spec, split bool) ([]Tree, error) {
	trees = slices.Clone(trees)
	for i, t := range trees {
		if t.Attestations == nil {
			continue
		}
		suffix := ""
		if len(trees) > 1 && !split {
			suffix = "." + platformDir(t.Platform)
		}
		files, err := statements(ctx, t, spec.AttestationPrefix, suffix)
		if err != nil {
			return nil, err
		}
		if len(files) > 0 {
			trees[i] = with(t, files)
		}
	}
	return trees, nil
}

// textFile is a file in the top directory of a tree.
type textFile struct {
	name string
	data []byte
}

// statements returns the files with the attestations of a tree. The subjects of the statements are
// the regular files of the tree. The names have suffix before their extension.
func statements(ctx context.Context, t Tree, prefix, suffix string) ([]textFile, error) {
	list, err := t.Attestations(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(a attest.Attestation) bool { return a.InlineOnly })
	if len(list) == 0 {
		return nil, nil
	}
	subjects, err := subjectsOf(ctx, t)
	if err != nil {
		return nil, err
	}
	var files []textFile
	for _, a := range list {
		ext := path.Ext(a.Filename)
		f := textFile{name: prefix + strings.TrimSuffix(a.Filename, ext) + suffix + ext}
		if slices.ContainsFunc(files, func(o textFile) bool { return o.name == f.name }) {
			return nil, fmt.Errorf("two attestations have the file name %s", f.name)
		}
		if f.data, err = json.MarshalIndent(attest.NewStatement(a, subjects), "",
			"  "); err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// subjectsOf returns the regular files of a tree with the digests of their contents.
func subjectsOf(ctx context.Context, t Tree) ([]attest.Subject, error) {
	digests := map[string]digest.Digest{}
	var list []attest.Subject
	err := eachEntry(ctx, t, func(h *tar.Header, content io.Reader) error {
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		switch h.Typeflag {
		case tar.TypeReg:
			d, err := digest.FromReader(content)
			if err != nil {
				return err
			}
			digests[name] = d
		case tar.TypeLink:
			d, ok := digests[strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")]
			if !ok {
				return nil // a link to a device or the like
			}
			digests[name] = d
		default:
			return nil
		}
		list = append(list, attest.Subject{Name: name, Digest: attest.DigestOf(digests[name])})
		return nil
	})
	return list, err
}

// with returns a tree with additional files in its top directory.
func with(t Tree, files []textFile) Tree {
	write := func(ctx context.Context, w io.Writer) error {
		tw := tar.NewWriter(w)
		err := eachEntry(ctx, t, func(h *tar.Header, content io.Reader) error {
			name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
			if slices.ContainsFunc(files, func(f textFile) bool { return f.name == name }) {
				return fmt.Errorf("the image has a file /%s, which is also the name of an "+
					"attestation; give attestation-prefix=PREFIX", name)
			}
			h.Format = tar.FormatUnknown
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
			_, err := io.Copy(tw, content)
			return err
		})
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name,
				Size: int64(len(f.data)), Mode: 0o600, ModTime: t.Time}); err != nil {
				return err
			}
			if _, err := tw.Write(f.data); err != nil {
				return err
			}
		}
		return tw.Close()
	}
	return Tree{Platform: t.Platform, Tar: write, Time: t.Time}
}

package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/unpack"
	"github.com/opencontainers/go-digest"
)

// outlined are layers that have an outline.
var outlined = []string{
	"dir etc 0711\nfile etc/conf 0644 conf\ndir gone 0755",
	"file .wh.gone 0644 \nlink link -> etc",
}

// TestOutline checks that an outline is made once, that its layers need not be read again, and that
// another diffID is an error.
func TestOutline(t *testing.T) {
	needOverlay(t)
	o := newOrigin(t)
	o.tag("good:1", imageOf(t, outlined...))
	s := openState(t, t.TempDir(), "overlay")
	img, err := s.Resolve(t.Context(), o.host+"/good:1", ResolveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bad := *img
	bad.Config.RootFS.DiffIDs = []digest.Digest{img.Config.RootFS.DiffIDs[0],
		digest.FromString("other")}
	if id, err := s.Outline(t.Context(), &bad, UnpackOptions{}); id != "" || err == nil ||
		!strings.Contains(err.Error(), "its content has the digest") {
		t.Errorf("another diffID: %q, error %v", id, err)
	}
	id, err := s.Outline(t.Context(), img, UnpackOptions{})
	if err != nil || id == "" {
		t.Fatalf("outline %q, error %v", id, err)
	}
	tree := s.tree(t, id)
	for text, want := range map[string]bool{"dir etc": true, "link link": true,
		"file etc/conf": false,
		"dir gone":      false} {
		if strings.Contains(tree, text) != want {
			t.Errorf("%q is in the outline: %t, want %t\n%s", text, !want, want, tree)
		}
	}
	if _, ok, err := s.Top(t.Context(), img); ok || err != nil {
		t.Errorf("the image was unpacked: %v, %v", ok, err)
	}
	o.requests()
	if err := s.EnsureChecked(t.Context(), img, UnpackOptions{}); err != nil {
		t.Error(err)
	}
	if again, err := s.Outline(t.Context(), img, UnpackOptions{}); again != id || err != nil {
		t.Errorf("the second time the outline is %q, error %v", again, err)
	}
	if more := o.requests(); len(more) > 0 {
		t.Errorf("requests %q for an image whose layers are in the store", more)
	}
}

func needOverlay(t *testing.T) {
	t.Helper()
	if !slices.Contains(drivers(t), "overlay") {
		t.Skip("needs root, of a user namespace at least: outlines are made for overlays")
	}
}

// TestNoOutline checks that there is no outline of an image with an unusual layer, of one without
// layers, and with a driver whose snapshots are whole trees.
func TestNoOutline(t *testing.T) {
	needOverlay(t)
	for _, tt := range []struct {
		name, driver string
		layers       []string
	}{
		{"unusual layers", "overlay", layers},
		{"no layer", "overlay", nil},
		{"whole trees", "copy", outlined},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOrigin(t)
			o.tag("image:1", imageOf(t, tt.layers...))
			s := openState(t, t.TempDir(), tt.driver)
			img, err := s.Resolve(t.Context(), o.host+"/image:1", ResolveOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if id, err := s.Outline(t.Context(), img, UnpackOptions{}); id != "" || err != nil {
				t.Errorf("outline %q, error %v; want none", id, err)
			}
			if l := s.left(t); len(l) != 0 {
				t.Errorf("left over: %v", l)
			}
		})
	}
}

// TestSharedOutline saves an outline, and loads it into another state, where no layer is read then.
// What is not an outline is left out, with a warning.
func TestSharedOutline(t *testing.T) {
	needOverlay(t)
	o := newOrigin(t)
	o.tag("good:1", imageOf(t, outlined...))
	var saved bytes.Buffer
	make := func(load func(context.Context) (io.ReadCloser, error)) (tree, note string,
		layers int, warnings []string) {
		t.Helper()
		s := openState(t, t.TempDir(), "overlay")
		whole, err := s.Resolve(t.Context(), o.host+"/good:1", ResolveOptions{})
		if err != nil {
			t.Fatal(err)
		}
		// The layers are those of two images.
		img := Stack("stack", []Part{{whole, 0}, {whole, 1}})
		o.requests()
		id, err := s.SharedOutline(t.Context(), img, OutlineOptions{Load: load,
			UnpackOptions: UnpackOptions{Sink: func(e event.Event) {
				if w, ok := e.(event.Warning); ok {
					warnings = append(warnings, w.Message)
				}
			}},
			Save: func(_ context.Context, pack func(io.Writer) error) {
				saved.Reset()
				z, err := unpack.Compress(&saved)
				if err == nil {
					err = errors.Join(pack(z), z.Close())
				}
				if err != nil {
					t.Error(err)
				}
			}})
		if err != nil || id == "" {
			t.Fatalf("outline %q, error %v", id, err)
		}
		list, err := s.snapshots.Note(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if l := s.left(t); len(l) != 0 {
			t.Errorf("left over: %v", l)
		}
		return s.tree(t, id), string(list), len(o.requests()), warnings
	}
	tree, note, layers, _ := make(nil)
	packed := bytes.Clone(saved.Bytes())
	if layers != 2 || len(packed) == 0 {
		t.Fatalf("%d layers were read, the outline has %d bytes", layers, len(packed))
	}
	for _, tt := range []struct {
		name    string
		data    []byte
		err     error
		layers  int
		warning string
	}{
		{"the outline", packed, nil, 0, ""},
		{"none", nil, nil, 2, ""},
		{"a cache that fails", nil, errors.New("no answer"), 2, "no answer"},
		{"nothing", []byte{}, nil, 2, "packed outline"},
		{"another file", []byte(strings.Repeat("x", 2000)), nil, 2, "packed outline"},
		{"a part", packed[:len(packed)-20], nil, 2, "is not used"},
	} {
		load := func(context.Context) (io.ReadCloser, error) {
			if tt.data == nil {
				return nil, tt.err
			}
			return io.NopCloser(bytes.NewReader(tt.data)), nil
		}
		gotTree, gotNote, n, warnings := make(load)
		if gotTree != tree || gotNote != note || n != tt.layers {
			t.Errorf("%s: %d layers were read; the tree is the same: %v", tt.name, n,
				gotTree == tree)
		}
		if all := strings.Join(warnings, "\n"); (all == "") != (tt.warning == "") ||
			!strings.Contains(all, tt.warning) {
			t.Errorf("%s: warnings %q, want %q", tt.name, warnings, tt.warning)
		}
	}
}

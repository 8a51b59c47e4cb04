package image

import (
	"slices"
	"strings"
	"testing"

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

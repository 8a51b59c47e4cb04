package build_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/snapshot"
)

// fakeDirectories is a DirectorySealer that seals nothing.
type fakeDirectories struct {
	err              error // of SealDirectory
	begun, cancelled []snapshot.ID
}

func (f *fakeDirectories) SealDirectory(context.Context, snapshot.Changes,
	*copyfs.Directory) (cache.Layer, bool, error) {
	return cache.Layer{}, false, f.err
}

func (f *fakeDirectories) BeginDirectory(id snapshot.ID, _ snapshot.Changes, _ *copyfs.Directory) {
	f.begun = append(f.begun, id)
}

func (f *fakeDirectories) CancelDirectory(id snapshot.ID) {
	f.cancelled = append(f.cancelled, id)
}

// copySealer joins the two parts of a build.CopySealer.
type copySealer struct {
	build.DirectorySealer
	build.OutlineSealer
}

// newCopyBench returns a bench whose COPYs of the directory many are sealed by d.
func newCopyBench(t *testing.T, d build.DirectorySealer) *bench {
	t.Helper()
	b := newBench(t, "overlay")
	b.state.NS.SingleID = false // the fake executor sets no owners
	for i := range build.EarlyFiles + 1 {
		b.file(fmt.Sprintf("many/%d", i), fmt.Sprint(i))
	}
	b.change = func(p *imagebuild.Parts) {
		p.NewSealer = func(ctx context.Context,
			o layers.SealerOptions) (imagebuild.Sealer, build.CopySealer) {
			s := layers.NewSealer(ctx, o)
			return s, copySealer{d, s}
		}
	}
	return b
}

// TestSealDirectoryFails checks that the files are copied if their layer cannot be sealed before,
// and that any other error ends the build.
func TestSealDirectoryFails(t *testing.T) {
	const dockerfile = "FROM scratch\nRUN write a 1\nCOPY many /m/\n"
	d := &fakeDirectories{}
	b := newCopyBench(t, d)
	_, ran := b.must(dockerfile, imagebuild.Options{})
	b.want("a layer that cannot be sealed early", ran, "write a 1", "dest /m/",
		"copy /m/")

	d.err = errors.New("broken")
	b = newCopyBench(t, d)
	_, ran, err := b.build(t.Context(), dockerfile, imagebuild.Options{})
	if !errors.Is(err, d.err) || lineOf(err) != 3 {
		t.Errorf("error %v, want the one of the sealer, in line 3", err)
	}
	b.want("an error of the sealer", ran, "write a 1", "dest /m/")
}

// TestCancelDirectory checks that a layer that is written while its files are copied is cancelled
// if the copy fails or starts again.
func TestCancelDirectory(t *testing.T) {
	const dockerfile = "FROM scratch\nCOPY many /m/\nRUN write a 1\n"
	broken := errors.New("broken")
	for _, tt := range []struct {
		name      string
		errs      []error // of the copies, one after the other
		cancelled bool
	}{
		{"a copy", []error{nil}, false},
		{"a copy that fails", []error{broken}, true},
		{"a copy that starts again", []error{&copyfs.ChangedError{Path: "many/1"}, nil}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &fakeDirectories{}
			b := newCopyBench(t, d)
			dests, copies := 0, 0
			b.exec.fail = func(action string) error {
				if action != "copy /m/" {
					return nil
				}
				if dests == copies { // the destination is made before the files are copied
					dests++
					return nil
				}
				copies++ // one that starts again has private copies, and is not sealed early
				return tt.errs[copies-1]
			}
			last := tt.errs[len(tt.errs)-1]
			if _, _, err := b.build(t.Context(), dockerfile,
				imagebuild.Options{}); !errors.Is(err, last) {
				t.Fatalf("error %v, want %v", err, last)
			}
			if len(d.begun) != 1 || slices.Equal(d.cancelled, d.begun) != tt.cancelled {
				t.Errorf("the layers of %q were begun, and those of %q cancelled", d.begun,
					d.cancelled)
			}
		})
	}
}

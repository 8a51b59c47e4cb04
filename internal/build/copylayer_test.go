package build_test

import (
	"context"
	"errors"
	"fmt"
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
	build.DirectorySealer
	err error // of SealDirectory
}

func (f *fakeDirectories) SealDirectory(context.Context, snapshot.Changes,
	*copyfs.Directory) (cache.Layer, bool, error) {
	return cache.Layer{}, false, f.err
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
			o layers.SealerOptions) (build.Sealer, build.DirectorySealer) {
			return layers.NewSealer(ctx, o), d
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

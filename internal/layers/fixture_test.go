package layers

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/unpack"
	"github.com/layerbuild/layerbuild/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }

// fixture is a state with snapshots, and the calls of a Sealer.
type fixture struct {
	*testing.T
	state *state.State
	temp  *state.TempDir

	mu     sync.Mutex
	sealed []ocispec.Descriptor // the calls of Sealed
	warned []string             // the calls of Warn
}

func newFixture(t *testing.T, driver string) *fixture {
	t.Helper()
	st, err := state.Open(t.Context(), state.Options{Root: t.TempDir(), Driver: driver})
	if err != nil {
		t.Skipf("no driver %s: %v", driver, err)
	}
	f := &fixture{T: t, state: st, temp: state.NewTempDir(st.Root)}
	t.Cleanup(func() {
		if err := errors.Join(f.temp.Close(), st.Close()); err != nil {
			t.Error(err)
		}
		if left, err := filepath.Glob(filepath.Join(st.Root, "oci/tmp/*")); len(left) > 0 {
			t.Errorf("files left: %q, %v", left, err)
		}
	})
	return f
}

// drivers runs a test with each kind of driver: one whose snapshots are whole trees, and one whose
// snapshots are differences, if it works here.
func drivers(t *testing.T, test func(t *testing.T, f *fixture)) {
	for _, driver := range []string{"copy", "overlay"} {
		t.Run(driver, func(t *testing.T) { test(t, newFixture(t, driver)) })
	}
}

// prepare starts a snapshot with entries in the notation of fstree. A line "remove PATH" removes a
// file.
func (f *fixture) prepare(parent snapshot.ID, tree string) *snapshot.Active {
	f.Helper()
	active, err := f.state.Snapshots.Prepare(f.Context(), parent)
	if err != nil {
		f.Fatal(err)
	}
	var made strings.Builder
	for line := range strings.Lines(tree) {
		path, removed := strings.CutPrefix(strings.TrimSpace(line), "remove ")
		switch {
		case !removed:
			made.WriteString(line)
		case f.state.Snapshots.Layered():
			fmt.Fprintln(&made, "whiteout", path)
		default:
			err = errors.Join(err, os.RemoveAll(filepath.Join(active.Upper(), path)))
		}
	}
	if err := errors.Join(err, fstree.Make(active.Upper(), made.String())); err != nil {
		f.Fatal(err)
	}
	return active
}

// commit makes a snapshot.
func (f *fixture) commit(id, parent snapshot.ID, tree string) snapshot.ID {
	f.Helper()
	if err := f.prepare(parent, tree).Commit(f.Context(), id); err != nil {
		f.Fatal(err)
	}
	return id
}

// options returns the options of a Sealer.
func (f *fixture) options() SealerOptions {
	return SealerOptions{State: f.state, TempDir: f.temp, Lazy: &Lazy{},
		Warn: func(l *Layer, path, problem string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.warned = append(f.warned, fmt.Sprintf("%s: %s: %s", l.Text, path, problem))
		},
		Sealed: func(d ocispec.Descriptor) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.sealed = append(f.sealed, d)
		}}
}

// entries lists the entries of a layer's blob, one a line, without times.
func (f *fixture) entries(d ocispec.Descriptor) string {
	f.Helper()
	blob, err := f.state.Store.Fetch(f.Context(), d)
	if err != nil {
		f.Fatal(err)
	}
	defer blob.Close()
	plain, _, err := unpack.Decompress(blob)
	if err != nil {
		f.Fatal(err)
	}
	defer plain.Close()
	list, err := imagetest.ReadTar(plain)
	if err != nil {
		f.Fatal(err)
	}
	uid, gid := os.Geteuid(), os.Getegid()
	var lines []string
	for _, e := range list {
		lines = append(lines, strings.Replace(e.String(), fmt.Sprintf(" %d:%d", uid, gid), "", 1))
	}
	return strings.Join(lines, "\n")
}

// ingest stores a blob.
func (f *fixture) ingest(mediaType, content string) ocispec.Descriptor {
	f.Helper()
	d, err := f.state.Store.Ingest(f.Context(), mediaType,
		func(w io.Writer) error { _, err := io.WriteString(w, content); return err })
	if err != nil {
		f.Fatal(err)
	}
	return d
}

// seals lists the sources of the records of sealed layers.
func (f *fixture) seals() []string {
	f.Helper()
	var sources []string
	for e, err := range f.state.Cache.All(cache.Seals) {
		if err != nil {
			f.Fatal(err)
		}
		sources = append(sources, e.Snapshot)
	}
	slices.Sort(sources)
	return sources
}

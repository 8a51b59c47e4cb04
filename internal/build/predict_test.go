package build

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/job"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// oneResult has the same result for each step: a snapshot on the empty file system, made from files
// of that snapshot.
type oneResult struct {
	Records
	Snapshots
}

func (oneResult) Get(cache.Key) (cache.Record, bool) {
	return cache.Record{Snapshot: "made", Inputs: job.JoinResults([]snapshot.ID{"made"})}, true
}

func (oneResult) Layered() bool { return false }

func (oneResult) Stat(context.Context, snapshot.ID) (snapshot.Info, error) {
	return snapshot.Info{}, nil
}

// oneRecord is an artifact with one imported record, whose key no step has.
type oneRecord struct{}

func (oneRecord) Artifact(context.Context, string,
	image.ResolveOptions) (*image.Artifact, error) {
	a := &image.Artifact{Config: []byte(`{"records": [{"key": "other"}]}`)}
	a.Manifest.Config.MediaType = remotecache.MediaType
	return a, nil
}

// TestPredictionAfterCancel predicts with a context that has ended, so that the files of the build
// context are not digested, and then with one that has not. The second caller must find that the
// result of the last stage is known, and that the stage from which it copies is not needed.
func TestPredictionAfterCancel(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	file, err := parser.Parse("Dockerfile", []byte("FROM scratch AS tools\nCOPY f /tool\n"+
		"FROM scratch\nCOPY --from=tools /tool /\n"))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := file.Plan(parser.PlanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	imports, err := remotecache.Import(t.Context(), oneRecord{}, make([]remotecache.Place, 1),
		make([]ocispec.Platform, 1), event.Discard)
	if err != nil {
		t.Fatal(err)
	}
	e := New(Config{Parts: Parts{Records: oneResult{}, Snapshots: oneResult{}}, Imports: imports})
	s := e.Solver(plan, SolverOptions{Inputs: newInputs(t, dir)})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got := s.Work(ended); got != 2 {
		t.Errorf("a caller that was cancelled: %d steps, want those of both stages", got)
	}
	if got := s.Work(t.Context()); got != 1 {
		t.Errorf("the caller after it: %d steps, want 1, of the last stage", got)
	}
}

// newInputs returns inputs whose context is a directory.
func newInputs(t *testing.T, dir string) *inputs.Inputs {
	t.Helper()
	temp := func() (string, error) { return t.TempDir(), nil }
	in := inputs.New(inputs.Options{Secrets: &secret.Store{}, TempDir: temp,
		Index: func() (source.IndexPlace, error) {
			dir, err := temp()
			return source.IndexPlace{Dir: dir}, err
		}})
	t.Cleanup(func() { in.Close() })
	if _, err := in.Main(t.Context(), dir, "", nil); err != nil {
		t.Fatal(err)
	}
	return in
}

// TestKeepsEpoch checks that files whose times were limited to an epoch are used only in builds
// with that epoch or an earlier one.
func TestKeepsEpoch(t *testing.T) {
	tests := []struct {
		sealed string
		build  *int64
		want   bool
	}{
		{"gzip 0", nil, true},
		{"gzip 0", new(int64(5)), true},
		{"gzip 0 epoch 5", nil, false},
		{"gzip 0 epoch 5", new(int64(5)), true},
		{"zstd 3 epoch 5", new(int64(4)), true},
		{" 0 epoch 5", new(int64(6)), false},
		{" 0 epoch -5", new(int64(-5)), true},
		{" 0 epoch soon", new(int64(0)), false},
	}
	for _, tt := range tests {
		r := &results{epoch: tt.build}
		l := &remotecache.Layer{Sealed: tt.sealed}
		if got := r.keepsEpoch(l.Epoch()); got != tt.want {
			t.Errorf("a layer sealed as %q serves epoch %v: %v, want %v", tt.sealed,
				tt.build, got, tt.want)
		}
	}
}

package build_test

import (
	"archive/tar"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// TestBaseIsUnpacked checks when a base image is unpacked: not for instructions that only change
// the configuration, nor for steps whose results are imported, and for everything else.
func TestBaseIsUnpacked(t *testing.T) {
	base := baseLayout(t)
	const metadata = "FROM base\nENV A=1\nLABEL b=2\nCMD [\"c\"]\n"
	const run = "FROM base\nRUN write a 1\nENV A=1\n"
	for _, tt := range []struct {
		name, first, second string
		outputs             []string
		want                bool
	}{
		{"only metadata", "", metadata, nil, false},
		{"only metadata, in two stages", "", "FROM base AS b\nFROM b\nUSER u\n", nil, false},
		{"a command", "", run, nil, true},
		{"a command in a stage above", "", "FROM base AS b\nFROM b\nRUN write a 1\n", nil, true},
		{"files of the base", "", "FROM base AS b\nFROM scratch\nCOPY --from=b /file /\n", nil,
			true},
		{"the files are exported", "", metadata, []string{"type=local,dest=DIR/out"}, true},
		{"all results are imported", run, run, nil, false},
		{"a result is imported", run, run + "RUN write b 2\n", nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			o := imagebuild.Options{}
			o.Source.Contexts = map[string]string{"base": "oci-layout://" + base}
			if tt.first != "" {
				o.Cache.From = []remotecache.Place{builtElsewhere(t, tt.first, o)}
			}
			b := newBench(t, "")
			b.real()
			o.Outputs = specs(t, dir, tt.outputs...)
			res, _ := b.must(tt.second, o)
			if tt.outputs == nil && len(b.manifest(res).Layers) == 0 {
				t.Error("the image has no layers")
			}
			unpacked, lines := baseLines(b)
			if unpacked != tt.want || lines != 1 {
				t.Errorf("unpacked %v with %d lines in the progress, want %v with one", unpacked,
					lines, tt.want)
			}
			if got := len(b.state.Snapshots.IDs()) > 0; got != tt.want {
				t.Errorf("there are snapshots: %v, want %v", got, tt.want)
			}
		})
	}
}

// baseLayout returns the directory of a layout with a base image.
func baseLayout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	made, err := imagetest.Make(dockerspec.DockerOCIImageConfig{},
		[]imagetest.Entry{imagetest.TarFile(tar.Header{
			Typeflag: tar.TypeReg, Name: "file", Mode: 0o644, Size: 5}, "base\n")})
	if err != nil {
		t.Fatal(err)
	}
	if err := made.WriteLayout(dir, "base"); err != nil {
		t.Fatal(err)
	}
	return dir
}

// builtElsewhere builds a Dockerfile with another state, and returns a value of --cache-from with
// the results.
func builtElsewhere(t *testing.T, dockerfile string, o imagebuild.Options) remotecache.Place {
	t.Helper()
	dir := t.TempDir()
	b := newBench(t, "")
	b.real()
	o.Cache.To = places("type=local,dest=" + dir)
	b.must(dockerfile, o)
	from, err := remotecache.ParseFrom("type=local,src=" + dir)
	if err != nil {
		t.Fatal(err)
	}
	return from
}

// baseLines reports whether the base image was unpacked in the last build, and returns the number
// of its lines in the progress.
func baseLines(b *bench) (unpacked bool, lines int) {
	for _, e := range b.events {
		switch e := e.(type) {
		case event.Start:
			if strings.HasPrefix(string(e.ID), "image ") {
				lines++
			}
		case event.Done:
			if strings.HasPrefix(string(e.ID), "image ") && e.Note == "" {
				unpacked = true
			}
		}
	}
	return unpacked, lines
}

// TestSealNeedsBase checks that a base image is not reported as unneeded before the layers are
// sealed: to compress an imported result in another way, the result and its base are unpacked.
func TestSealNeedsBase(t *testing.T) {
	const run = "FROM base\nRUN write a 1\n"
	o := imagebuild.Options{}
	o.Source.Contexts = map[string]string{"base": "oci-layout://" + baseLayout(t)}
	o.Cache.From = []remotecache.Place{builtElsewhere(t, run, o)}
	o.Outputs = specs(t, t.TempDir(), "type=oci,dest=DIR/out,compression=zstd")
	b := newBench(t, "")
	b.real()
	b.change = func(p *imagebuild.Parts) {
		p.NewSealer = func(ctx context.Context,
			o layers.SealerOptions) (imagebuild.Sealer, build.CopySealer) {
			s := layers.NewSealer(ctx, o)
			return &lateSealer{Sealer: s, ctx: ctx}, s
		}
	}
	// If nothing waits for the sealer first, the writing of the image waits for the layer in vain.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, _, err := b.build(ctx, run, o); err != nil {
		t.Fatal(err)
	}
	if unpacked, lines := baseLines(b); !unpacked || lines != 1 {
		t.Errorf("unpacked %v with %d lines in the progress, want true with one", unpacked, lines)
	}
}

// TestPruneKeepsFirstTime checks that an image without steps gets the same creation time, and so
// the same digest, after a prune: its base has no snapshot that could keep the record.
func TestPruneKeepsFirstTime(t *testing.T) {
	b := newBench(t, "")
	b.real()
	o := imagebuild.Options{}
	o.Source.Contexts = map[string]string{"base": "oci-layout://" + baseLayout(t)}
	first, _ := b.must("FROM base\nENV A=1\n", o)
	b.reopen() // the records that a process uses are not removed
	if _, err := b.state.Prune(t.Context(), state.PruneOptions{}); err != nil {
		t.Fatal(err)
	}
	b.real()
	again, _ := b.must("FROM base\nENV A=1\n", o)
	if first.Root.Digest != again.Root.Digest {
		t.Errorf("digest %s, and %s after a prune", first.Root.Digest, again.Root.Digest)
	}
}

// lateSealer seals layers when Wait is called.
type lateSealer struct {
	*layers.Sealer
	ctx context.Context

	mu   sync.Mutex
	late []func()
}

func (s *lateSealer) Seal(l *layers.Layer) {
	end := l.Begin()
	if end == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = append(s.late, func() {
		own := &layers.Layer{Snapshot: l.Snapshot, NoOp: l.NoOp, Text: l.Text, Lines: l.Lines}
		s.Sealer.Seal(own)
		err := own.Wait(s.ctx)
		end(own.Descriptor, own.DiffID, err)
	})
}

func (s *lateSealer) Wait() {
	s.mu.Lock()
	late := s.late
	s.late = nil
	s.mu.Unlock()
	for _, seal := range late {
		seal()
	}
	s.Sealer.Wait()
}

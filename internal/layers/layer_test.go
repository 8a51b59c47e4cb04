package layers

import (
	"context"
	"errors"
	"io"
	"math"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"
)

func TestFormat(t *testing.T) {
	seven := int64(7)
	for _, tt := range []struct {
		format Format
		text   string
	}{
		{Format{}, " 0 encoder 2"},
		{Format{Compression: "zstd", Level: 19}, "zstd 19 encoder 2"},
		{Format{Compression: "none", Epoch: &seven}, "none 0 encoder 2 epoch 7"},
	} {
		if got := tt.format.String(); got != tt.text {
			t.Errorf("String() of %+v = %q, want %q", tt.format, got, tt.text)
		}
	}
	for _, bad := range []string{"", "gzip", "gzip six encoder 2", "gzip 6", "gzip 6 encoder 1",
		"gzip 6 encoder 2 epoch", "gzip 6 encoder 2 epoch soon", "gzip 6 9 encoder 2"} {
		if f, ok := ParseFormat(bad); ok {
			t.Errorf("ParseFormat(%q) = %+v", bad, f)
		}
	}
}

// TestFormatRoundTrip parses the texts of formats. The options for package diff have the same
// epoch.
func TestFormatRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := Format{Compression: rapid.SampledFrom([]string{"", "gzip", "zstd", "none"}).Draw(t,
			"compression"), Level: rapid.Int().Draw(t, "level"),
			Epoch: rapid.Ptr(rapid.Int64(), true).Draw(t, "epoch")}
		got, ok := ParseFormat(f.String())
		if diff := cmp.Diff(f, got); !ok || diff != "" {
			t.Fatalf("ParseFormat(%q) = %+v, %v: %s", f, got, ok, diff)
		}
		if diff := cmp.Diff(f.Epoch, EpochOf(f.String())); diff != "" {
			t.Fatalf("EpochOf(%q): %s", f, diff)
		}
		o := got.options().Epoch
		if (o == nil) != (f.Epoch == nil) || o != nil && *o != *f.Epoch {
			t.Fatalf("the options of %q have the epoch %v", f, o)
		}
	})
}

// TestEpochOf reads the epoch of texts of other versions, and of damaged ones: no build may use the
// times of a layer whose epoch cannot be read.
func TestEpochOf(t *testing.T) {
	for text, want := range map[string]int64{"gzip 6 epoch 7": 7, "gzip 6 encoder 1 epoch -8": -8,
		"gzip 6 encoder 2 epoch soon": math.MinInt64, "gzip 6 encoder 2 epoch ": math.MinInt64,
		"x epoch 99999999999999999999": math.MinInt64} {
		if got := EpochOf(text); got == nil || *got != want {
			t.Errorf("EpochOf(%q) = %v, want %d", text, got, want)
		}
	}
	for _, text := range []string{"", "gzip 6", "gzip 6 encoder 2"} {
		if got := EpochOf(text); got != nil {
			t.Errorf("EpochOf(%q) = %d", text, *got)
		}
	}
}

// TestLayerWaits begins a layer, waits for it, and ends it.
func TestLayerWaits(t *testing.T) {
	for _, want := range []error{nil, io.EOF} {
		synctest.Test(t, func(t *testing.T) {
			l := &Layer{}
			end := l.Begin()
			if l.Begin() != nil {
				t.Error("a layer is sealed twice")
			}
			errs := make(chan error, 3)
			for range cap(errs) {
				go func() { errs <- l.Wait(t.Context()) }()
			}
			stop := errors.New("stop")
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(stop)
			if err := l.Wait(ctx); err != stop {
				t.Errorf("Wait: error %v, want the cause", err)
			}
			synctest.Wait()
			if len(errs) > 0 {
				t.Error("Wait has not waited")
			}
			end(ocispec.Descriptor{Size: 1}, "sha256:1", want)
			synctest.Wait()
			for range cap(errs) {
				if err := <-errs; err != want ||
					err == nil && (l.Descriptor.Size != 1 || l.DiffID != "sha256:1") {
					t.Errorf("Wait: error %v, want %v, layer %+v", err, want, l)
				}
			}
			if l.Begin() != nil {
				t.Error("a layer that was sealed is sealed again")
			}
		})
	}
}

// TestLayerOfImage checks that the layer of an image is neither sealed nor waited for, and that
// waiting for a layer that no sealer has is a mistake of the program.
func TestLayerOfImage(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := &Layer{Base: &image.Image{}}
	if l.Begin() != nil || l.Wait(ctx) != nil {
		t.Error("the layer of an image is sealed")
	}
	defer func() {
		if recover() == nil {
			t.Error("Wait for a layer that is not being sealed returns")
		}
	}()
	_ = (&Layer{}).Wait(ctx)
}

// TestError checks that the position of an instruction is a field of the error, and not a part of
// its text.
func TestError(t *testing.T) {
	l := &Layer{Text: "RUN x", Lines: parser.Range{Start: 3, End: 4}}
	err := l.failed("seal", io.EOF)
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Lines != l.Lines || !errors.Is(err, io.EOF) ||
		err.Error() != `seal the layer of "RUN x": EOF` {
		t.Errorf("error %+v", err)
	}
}

package imagebuild

import (
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/explain"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestTook checks which earlier run gives the time of a step.
func TestTook(t *testing.T) {
	p := Preview{ran: []explain.Step{
		{Stage: "a", Platform: "linux/amd64", Text: "RUN x", Key: "1", Took: time.Second},
		{Stage: "a", Platform: "linux/amd64", Text: "RUN x", Key: "2", Took: 2 * time.Second},
		{Stage: "b", Platform: "linux/amd64", Text: "RUN x", Key: "3", Took: 3 * time.Second},
		{Stage: "a", Platform: "linux/arm64", Text: "RUN x", Key: "4", Took: 4 * time.Second},
		{Stage: "a", Platform: "linux/amd64", Text: "RUN old", Key: "5"}, // of an older version
	}}
	for _, tt := range []struct {
		stage, text string
		key         cache.Key
		want        time.Duration
	}{
		{"a", "RUN x", "1", time.Second},
		{"a", "RUN x", "other", 2 * time.Second}, // the latest of the stage
		{"a", "RUN x", "", 2 * time.Second},
		{"a", "RUN x", "3", 3 * time.Second}, // the key is that of another stage's step
		{"c", "RUN x", "other", 0},
		{"a", "RUN y", "1", 0},
		{"a", "RUN old", "5", 0},
	} {
		st := &parser.Stage{Name: tt.stage,
			Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}
		got, known := p.Took(st, &build.StepPreview{Step: parser.Step{Text: tt.text}, Key: tt.key})
		if got != tt.want || known != (tt.want > 0) {
			t.Errorf("Took(%s, %s, %q) = %v, %t, want %v", tt.stage, tt.text, tt.key, got, known,
				tt.want)
		}
	}
}

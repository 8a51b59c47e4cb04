package build

import (
	"testing"

	"github.com/layerbuild/layerbuild/internal/event"
)

// TestHold checks that what is sent to a held output arrives when it is released, in order.
func TestHold(t *testing.T) {
	var got []string
	out := output{&line{sink: func(e event.Event) {
		got = append(got, e.(event.Warning).Message)
	}}}
	held, release := out.hold()
	held.Warn("a")
	held.Warn("b")
	if len(got) > 0 {
		t.Errorf("got %q before the release", got)
	}
	release()
	out.Warn("c")
	if len(got) != 3 || got[0] != "a" || got[1] != "b" || got[2] != "c" {
		t.Errorf("got %q, want a, b and c", got)
	}
}

package layers

import (
	"context"
	"errors"
	"testing"

	"github.com/layerbuild/layerbuild/snapshot"
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
		got, ok := ParseFormat(tt.text)
		if !ok || got.String() != tt.text || got.Compression != tt.format.Compression ||
			got.Level != tt.format.Level {
			t.Errorf("ParseFormat(%q) = %+v, %v", tt.text, got, ok)
		}
		if e, o := tt.format.Epoch, got.options().Epoch; (e == nil) != (o == nil) ||
			e != nil && o.Unix() != *e {
			t.Errorf("options of %q have the epoch %v", tt.text, o)
		}
	}
	for _, bad := range []string{"", "gzip", "gzip six encoder 2", "gzip 6", "gzip 6 encoder 1",
		"gzip 6 encoder 2 epoch", "gzip 6 encoder 2 epoch soon", "gzip 6 9 encoder 2"} {
		if f, ok := ParseFormat(bad); ok {
			t.Errorf("ParseFormat(%q) = %+v", bad, f)
		}
	}
}

func TestLazy(t *testing.T) {
	var z Lazy
	made := 0
	z.Add("a", func(context.Context) error { made++; return nil })
	z.Add("bad", func(context.Context) error { return errors.New("no") })
	for range 2 {
		for _, id := range []snapshot.ID{"a", "there", ""} {
			if err := z.Materialize(t.Context(), id); err != nil {
				t.Errorf("Materialize(%q): %v", id, err)
			}
		}
		if err := z.Materialize(t.Context(), "bad"); err == nil {
			t.Error("Materialize returns no error of the function")
		}
	}
	if made != 1 {
		t.Errorf("the snapshot was made %d times, want once", made)
	}
}

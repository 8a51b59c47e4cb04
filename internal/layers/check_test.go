package layers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
)

// TestChecker seals layers with a Checker. A layer that differs from its snapshot is an error of
// the instruction, and is not recorded.
func TestChecker(t *testing.T) {
	mounttest.Need(t)
	seven := int64(7)
	for _, tt := range []struct {
		name   string
		change func(f *fixture, o *SealerOptions)
		noOp   bool
		err    string // "": no error
	}{
		{"good", nil, false, ""},
		{"a step that changed nothing", nil, true, ""},
		{"an epoch", func(_ *fixture, o *SealerOptions) {
			o.Format.Epoch, o.Check.Epoch = &seven, &seven
		}, false, ""},
		{"another epoch", func(_ *fixture, o *SealerOptions) { o.Format.Epoch = &seven },
			false, "is not what the step made:\n  "},
		{"a lazy parent that cannot be made", func(_ *fixture, o *SealerOptions) {
			o.Lazy.Add("one", func(context.Context) error { return errors.New("broken") })
		}, false, "broken"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, "copy")
			f.commit("one", "", "file a 0644 @1 1\nfile b 0644 @1 1\n")
			f.commit("two", "one", "file a 0644 @9 2\nremove b\n")
			o := f.options()
			o.Check = &Checker{State: f.state, Lazy: o.Lazy}
			if tt.change != nil {
				tt.change(f, &o)
			}
			s := NewSealer(t.Context(), o)
			l := &Layer{Snapshot: "two", NoOp: tt.noOp, Text: "RUN x",
				Lines: parser.Range{Start: 3}}
			s.Seal(l)
			err := l.Wait(t.Context())
			s.Wait()
			if tt.err == "" {
				if err != nil || len(f.sealed) != 1 || len(f.seals()) != 1 {
					t.Errorf("error %v, sealed %v, recorded %q", err, f.sealed, f.seals())
				}
				return
			}
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Lines.Start != 3 ||
				!strings.HasPrefix(err.Error(), `check the layer of "RUN x": `) ||
				!strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if len(f.sealed) > 0 || len(f.seals()) > 0 {
				t.Errorf("sealed %v, recorded %q", f.sealed, f.seals())
			}
		})
	}
}

// layer stores a layer of entries.
func (f *fixture) layer(entries ...imagetest.Entry) cache.Layer {
	f.Helper()
	data := imagetest.Tar(f, entries...)
	d := f.ingest(ocispec.MediaTypeImageLayer, string(data))
	return cache.Layer{Descriptor: d, DiffID: d.Digest}
}

// TestCheckActive compares layers with snapshots that are not committed.
func TestCheckActive(t *testing.T) {
	mounttest.Need(t)
	drivers(t, func(t *testing.T, f *fixture) {
		f.commit("one", "", "file a 0644 1\n")
		var tree, missing strings.Builder
		for i := range maxDifferences + 5 {
			fmt.Fprintf(&tree, "file f%02d 0644 1\n", i)
			if i < maxDifferences {
				fmt.Fprintf(&missing, "\n  f%02d", i)
			}
		}
		active := f.prepare("one", tree.String())
		defer active.Discard()
		c := &Checker{State: f.state, Lazy: &Lazy{}}
		empty := f.layer()
		err := c.Active(t.Context(), empty, active)
		if err == nil || strings.Count(err.Error(), "\n") != maxDifferences+1 ||
			!strings.HasPrefix(err.Error(), empty.Descriptor.Digest.String()+
				" on the layers below is not what the step made:\n  ") ||
			!strings.HasSuffix(err.Error(), "\n  and 5 more") {
			t.Errorf("error %v, want the first %d of %d differences", err, maxDifferences,
				maxDifferences+5)
		}
		if err := c.NoOp(t.Context(), active); err == nil || !strings.HasPrefix(err.Error(),
			"check a step without changes: it has changed its files:\n  ") {
			t.Errorf("NoOp of a step that changed something: %v", err)
		}

		same := f.prepare("one", "")
		defer same.Discard()
		if err := errors.Join(c.NoOp(t.Context(), same), c.Active(t.Context(), empty, same)); err !=
			nil {
			t.Errorf("a step that changed nothing: %v", err)
		}
		wrong := empty
		wrong.DiffID = digest.FromString("other")
		if err := c.Active(t.Context(), wrong, same); err == nil ||
			!strings.Contains(err.Error(), "its content has the digest "+empty.DiffID.String()) {
			t.Errorf("a layer with another diffID: %v", err)
		}
		if err := os.Remove(f.state.Store.Path(empty.Descriptor.Digest)); err != nil {
			t.Fatal(err)
		}
		if err := c.Active(t.Context(), empty, same); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a layer without a blob: %v", err)
		}
	})
	var none *Checker
	if err := errors.Join(none.Active(t.Context(), cache.Layer{}, nil),
		none.NoOp(t.Context(), nil)); err != nil {
		t.Errorf("a nil Checker: %v", err)
	}
}

// TestUnchanged checks which steps are reported as having changed nothing. The directory of a whole
// tree does not show that.
func TestUnchanged(t *testing.T) {
	drivers(t, func(t *testing.T, f *fixture) {
		f.commit("one", "", "dir d 0755\nfile d/a 0644 1\n")
		for tree, want := range map[string]bool{"": true, "file d/a 0644 2\n": false,
			"remove d/a\n": false, "dir d 0700\n": false, "file b 0644\n": false} {
			active := f.prepare("one", tree)
			got, err := Unchanged(t.Context(), active)
			if got != (want && f.state.Snapshots.Layered()) || err != nil {
				t.Errorf("%q: Unchanged = %v, %v", tree, got, err)
			}
			if err := active.Discard(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestWriteFiles writes the files of a snapshot.
func TestWriteFiles(t *testing.T) {
	mounttest.Need(t)
	drivers(t, func(t *testing.T, f *fixture) {
		f.commit("one", "", "dir d 0755 @5\nfile d/a 0644 @6 1\nfile d/b 0644 @9 2\n")
		f.commit("two", "one", "remove d/b\nfile c 0600 @9 3\ndir d 0755 @5\n")
		epoch, made := int64(7), 0
		var lazy Lazy
		lazy.Add("two", func(context.Context) error { made++; return nil })
		for _, tt := range []struct {
			id    snapshot.ID
			epoch *int64
			want  string
		}{
			{"one", nil, "dir d 0755 5\nfile d/a 0644 \"1\" 6\nfile d/b 0644 \"2\" 9"},
			{"two", nil, "file c 0600 \"3\" 9\ndir d 0755 5\nfile d/a 0644 \"1\" 6"},
			{"two", &epoch, "file c 0600 \"3\" 7\ndir d 0755 5\nfile d/a 0644 \"1\" 6"},
			{"", nil, ""},
		} {
			var out bytes.Buffer
			if err := WriteFiles(t.Context(), &out, f.state, &lazy, tt.id, tt.epoch); err != nil {
				t.Fatal(err)
			}
			list, err := imagetest.ReadTar(&out)
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, e := range list {
				if e.Path != "." {
					lines = append(lines, fmt.Sprint(e, " ", e.Header.ModTime.Unix()))
				}
			}
			if got := strings.Join(lines, "\n"); got != tt.want {
				t.Errorf("%q, epoch %v:\n%s\nwant\n%s", tt.id, tt.epoch, got, tt.want)
			}
		}
		if made != 1 {
			t.Errorf("the lazy snapshot was made %d times", made)
		}
		broken := errors.New("broken")
		lazy.Add("bad", func(context.Context) error { return broken })
		if err := WriteFiles(t.Context(), nil, f.state, &lazy, "bad", nil); err != broken {
			t.Errorf("a lazy snapshot that cannot be made: %v", err)
		}
		if err := WriteFiles(t.Context(), nil, f.state, &lazy, "gone", nil); !errors.Is(err,
			snapshot.ErrNotExist) {
			t.Errorf("a missing snapshot: %v", err)
		}
		if err := WriteFiles(t.Context(), failing{broken}, f.state, &lazy, "one",
			nil); !errors.Is(err, broken) {
			t.Errorf("a reader that has ended: %v", err)
		}
	})
}

// failing returns an error for each write.
type failing struct{ err error }

func (w failing) Write([]byte) (int, error) { return 0, w.err }

// TestStack applies the files of a snapshot to another one, as a layer is applied.
func TestStack(t *testing.T) {
	f := newFixture(t, "copy")
	f.commit("one", "", "dir d 0700 @5\nfile d/kept 0644 1\nfile d/a 0644 1\nlink l -> d\n")
	top := f.prepare("", "dir d 0755 @6\nfile d/a 0600 @7 2\nfile l/x 0644 @8 3\nsocket s\n"+
		"file .wh.y 0644\n")
	defer top.Discard()
	active := f.prepare("one", "")
	defer active.Discard()
	var warned []string
	if err := Stack(t.Context(), f.state, top, active, func(message string) {
		warned = append(warned, message)
	}); err != nil {
		t.Fatal(err)
	}
	got, err := fstree.Print(active.Upper(), fstree.Show{})
	const want = "dir d 0755\nfile d/a 0600 2\nfile d/kept 0644 1\ndir l 0755\nfile l/x 0644 3\n"
	if got != want || err != nil {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
	if len(warned) != 1 || !strings.HasPrefix(warned[0], ".wh.y: ") {
		t.Errorf("warnings %q", warned)
	}
}

// TestStackFails applies files to a snapshot that cannot be written, and ends the context before
// files are applied.
func TestStackFails(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	f := newFixture(t, "copy")
	big := "file a 0644 " + strings.Repeat("x", 1<<20) + "\n"
	top, active := f.prepare("", big), f.prepare("", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Stack(ctx, f.state, top, active, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if got, err := fstree.Print(active.Upper(), fstree.Show{}); got != "" || err != nil {
		t.Errorf("canceled: files\n%s%v", got, err)
	}
	if err := active.Discard(); err != nil {
		t.Fatal(err)
	}
	if err := Stack(t.Context(), f.state, top, active, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the destination is missing: %v", err)
	}
	if err := top.Discard(); err != nil {
		t.Fatal(err)
	}
	again := f.prepare("", "")
	defer again.Discard()
	if err := Stack(t.Context(), f.state, top, again, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the source is missing: %v", err)
	}
}

package build_test

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/snapshot"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// outlineLayout returns the directory of a layout with a base image that has directories.
func outlineLayout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	made, err := imagetest.Make(dockerspec.DockerOCIImageConfig{}, []imagetest.Entry{
		imagetest.TarFile(tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o711}, ""),
		imagetest.TarFile(tar.Header{Typeflag: tar.TypeReg, Name: "etc/conf", Mode: 0o644, Size: 5},
			"conf\n"),
		imagetest.TarFile(tar.Header{Typeflag: tar.TypeDir, Name: "srv/", Mode: 0o755}, ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := made.WriteLayout(dir, "base"); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestOnOutline builds Dockerfiles whose last steps can run on an outline, once with a base image
// that is not unpacked and once with one that is. The images are the same.
func TestOnOutline(t *testing.T) {
	const unpack = "FROM base\nRUN write unpacked 1\n"
	epoch := int64(1_700_000_000)
	o := imagebuild.Options{Image: imagebuild.ImageOptions{Epoch: &epoch}}
	o.Source.Contexts = map[string]string{"base": "oci-layout://" + outlineLayout(t)}
	files := func(b *bench) {
		b.file("b", "b\n")
		b.file("conf", "conf\n")
		b.file("dir/c", "c\n")
		b.file("dir/sub/d", "d\n")
	}
	for _, tt := range []struct {
		name, text string
		unpacked   bool
	}{
		{"a file", "FROM base\nCOPY a /etc/\n", false},
		{"several steps", "FROM base\nCOPY a /x/y/\nWORKDIR /etc\nCOPY b /x/\nCOPY a /a\n", false},
		{"a directory at the end", "FROM base\nCOPY a /etc/\nCOPY dir /srv\n", false},
		{"a directory in one with files", "FROM base\nCOPY dir /etc\n", false},
		{"a directory and a step", "FROM base\nCOPY dir /srv/\nCOPY a /srv/sub/\n", false},
		{"nothing changes", "FROM base\nWORKDIR /etc\nCOPY a /srv/\n", false},
		{"a file is replaced", "FROM base\nCOPY a /etc/conf\n", false},
		{"replaced twice", "FROM base\nCOPY a /etc/conf\nCOPY b /etc/conf\n", false},
		{"on its own file system", "FROM base\nCOPY --link dir /etc/\nCOPY --link a /etc/\n", false},
		{"from a stage", "FROM scratch AS s\nCOPY a /\nFROM base\nCOPY --from=s /a /etc/\n",
			false},
		{"configuration between", "FROM base\nCOPY a /\nENV A=1\nCOPY b /\n", false},
		{"an equal file", "FROM base\nCOPY conf /etc/\nCOPY a /\n", true},
		{"a command", "FROM base\nCOPY a /\nRUN write b 1\nCOPY b /\n", true},
		{"a stage that runs", "FROM base AS s\nRUN write b 1\nFROM base\nCOPY --from=s /b /\n",
			true},
		{"a trigger with a tab", "FROM base AS s\nONBUILD RUN\twrite b 1\nFROM s\nCOPY a /\n", true},
		{"a stage below", "FROM base AS s\nFROM s\nCOPY a /\n", false},
		{"a stage below copies", "FROM base AS s\nCOPY a /\nFROM s\nCOPY b /\n", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, "overlay")
			b.real()
			files(b)
			got, ran := b.must(tt.text, o)
			if isUnpacked(b) != tt.unpacked {
				t.Errorf("the base is unpacked: %t, want %t", !tt.unpacked, tt.unpacked)
			}
			other := newBench(t, "overlay")
			other.real()
			files(other)
			other.must(unpack, o)
			want, _ := other.must(tt.text, o)
			if got.Root.Digest != want.Root.Digest {
				t.Errorf("the image is %s, and %s with an unpacked base", got.Root.Digest,
					want.Root.Digest)
			}
			b.reopen()
			b.real()
			again, more := b.must(tt.text, o)
			if again.Root.Digest != got.Root.Digest || len(more) > 0 {
				t.Errorf("after %q a second build runs %q and makes %s", ran, more,
					again.Root.Digest)
			}
			// A step that needs the files of the steps before it.
			more1, _ := b.must(tt.text+"RUN write last 1\n", o)
			more2, _ := other.must(tt.text+"RUN write last 1\n", o)
			if more1.Root.Digest != more2.Root.Digest {
				t.Errorf("with a RUN the image is %s, and %s with an unpacked base",
					more1.Root.Digest, more2.Root.Digest)
			}
		})
	}
}

// isUnpacked reports whether the base image has a snapshot of all of its files.
func isUnpacked(b *bench) bool {
	return slices.ContainsFunc(b.events, func(e event.Event) bool {
		done, ok := e.(event.Done)
		return ok && strings.HasPrefix(string(done.ID), "image ") && done.Note == ""
	})
}

// TestOutlineIsKept checks that the next build uses the outline of the last one, also after a
// prune, and makes only the steps that changed.
func TestOutlineIsKept(t *testing.T) {
	const text = "FROM base\nCOPY a /etc/\nCOPY b /etc/\n"
	o := imagebuild.Options{}
	o.Source.Contexts = map[string]string{"base": "oci-layout://" + outlineLayout(t)}
	b := newBench(t, "overlay")
	b.real()
	b.file("b", "1")
	b.must(text, o)
	before := outlines(b)
	b.file("b", "22")
	_, ran := b.must(text, o)
	b.want("another file", ran, "copy /etc/")
	if isUnpacked(b) {
		t.Error("the base was unpacked")
	}
	if after := outlines(b); len(before) != 1 || !slices.Equal(before, after) {
		t.Errorf("the outlines are %q, and %q after another build", before, after)
	}
}

// outlines returns the snapshots without a parent.
func outlines(b *bench) []snapshot.ID {
	var list []snapshot.ID
	for _, id := range b.state.Snapshots.IDs() {
		if info, err := b.state.Snapshots.Stat(b.t.Context(), id); err == nil && info.Parent == "" {
			list = append(list, id)
		}
	}
	return list
}

// TestOutlineIsChecked checks that a build with an epoch that checks its layers runs the steps on
// an outline again on the unpacked image.
func TestOutlineIsChecked(t *testing.T) {
	epoch := int64(1_700_000_000)
	o := imagebuild.Options{CheckLayers: true, Image: imagebuild.ImageOptions{Epoch: &epoch}}
	o.Source.Contexts = map[string]string{"base": "oci-layout://" + outlineLayout(t)}
	b := newBench(t, "overlay")
	b.real()
	_, ran := b.must("FROM base\nCOPY a /etc/\nCOPY a /x/\nWORKDIR /etc\n", o)
	b.want("checked", ran, "copy /etc/", "copy /etc/", "copy /x/", "copy /x/", "mkdir /etc",
		"mkdir /etc")
	if !isUnpacked(b) {
		t.Error("the base was not unpacked")
	}
}

// onBase returns options of a build whose image base is the layout of outlineLayout.
func onBase(t *testing.T) imagebuild.Options {
	t.Helper()
	o := imagebuild.Options{}
	o.Source.Contexts = map[string]string{"base": "oci-layout://" + outlineLayout(t)}
	return o
}

// TestOutlineChangedFile changes a file of the context while it is copied on an outline. The step
// starts again on the outline, with a new digest.
func TestOutlineChangedFile(t *testing.T) {
	const text = "FROM base\nCOPY a /srv/\n"
	b := newBench(t, "overlay")
	b.real()
	failed := false
	b.exec.fail = func(action string) error {
		if failed || action != "copy /srv/" {
			return nil
		}
		failed = true
		return &copyfs.ChangedError{Path: "a"}
	}
	_, ran := b.must(text, onBase(t))
	b.want("a file that changes once", ran, "copy /srv/")
	if !failed || isUnpacked(b) {
		t.Errorf("the copy failed: %t, and the base is unpacked: %t", failed, isUnpacked(b))
	}
}

// TestOutlineDownload adds a file from a server in place of a file that may be equal. The step runs
// on the outline and then on the unpacked base, with one download.
func TestOutlineDownload(t *testing.T) {
	gets := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if gets++; gets > 1 {
			w.WriteHeader(http.StatusGone)
			return
		}
		io.WriteString(w, "other")
	}))
	defer server.Close()
	b := newBench(t, "overlay")
	b.real()
	_, ran := b.must("FROM base\nADD "+server.URL+"/conf /etc/\n", onBase(t))
	b.want("a download", ran, "copy /etc/", "copy /etc/")
	if gets != 1 || !isUnpacked(b) {
		t.Errorf("%d downloads, and the base is unpacked: %t", gets, isUnpacked(b))
	}
}

// TestOutlineImport imports the result of the first step and runs the second on its outline. The
// next build has both results.
func TestOutlineImport(t *testing.T) {
	const text = "FROM base\nCOPY a /etc/\nCOPY b /x/\n"
	dir := filepath.Join(t.TempDir(), "cache")
	o := onBase(t)
	first := newBench(t, "overlay")
	first.real()
	first.file("b", "1")
	to := o
	to.Cache.To = places("type=local,dest=" + dir)
	first.must(text, to)
	place, err := remotecache.ParseFrom("type=local,src=" + dir)
	if err != nil {
		t.Fatal(err)
	}
	o.Cache.From = []remotecache.Place{place}
	second := newBench(t, "overlay")
	second.real()
	second.file("b", "22")
	made, ran := second.must(text, o)
	second.want("another file", ran, "copy /x/")
	for _, from := range [][]remotecache.Place{{place}, nil} {
		second.reopen()
		second.real()
		o.Cache.From = from
		again, ran := second.must(text, o)
		second.want("again", ran)
		if again.Root.Digest != made.Root.Digest {
			t.Errorf("with the caches %v the image is %s, and was %s", from, again.Root.Digest,
				made.Root.Digest)
		}
	}
}

// TestOutlineSmallerState limits the size of a state with three lazy steps. The last ones are
// removed, because the first ones are useful without them.
func TestOutlineSmallerState(t *testing.T) {
	const text = "FROM base\nCOPY a /x/\nCOPY b /y/\nCOPY c /z/\n"
	o := onBase(t)
	b := newBench(t, "overlay")
	b.real()
	r := rand.New(rand.NewPCG(1, 1))
	for _, name := range []string{"a", "b", "c"} {
		data := make([]byte, 300_000)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		b.file(name, string(data))
	}
	b.must(text, o)
	b.reopen()
	if _, err := b.state.Prune(t.Context(), state.PruneOptions{Keep: 800_000}); err != nil {
		t.Fatal(err)
	}
	b.real()
	_, ran := b.must(text, o)
	b.want("after a prune", ran, "copy /z/")
}

// TestOutlineOrUnpacked checks that the base is read once: no outline is made of an image that
// another stage needs, or that is unpacked except for a small layer.
func TestOutlineOrUnpacked(t *testing.T) {
	b := newBench(t, "overlay")
	b.real()
	b.must("FROM base AS x\nRUN write made 1\nFROM base\nCOPY a /a\nCOPY --from=x /made /b\n",
		onBase(t))
	if list := outlines(b); len(list) != 1 {
		t.Errorf("a base of two stages: the snapshots without a parent are %q, want one", list)
	}

	o := imagebuild.Options{}
	o.Source.Contexts = map[string]string{}
	big := []imagetest.Entry{imagetest.TarFile(tar.Header{Typeflag: tar.TypeReg, Name: "big",
		Mode: 0o644, Size: 10_000}, strings.Repeat("0123456789", 1000))}
	small := []imagetest.Entry{imagetest.TarFile(tar.Header{Typeflag: tar.TypeReg, Name: "small",
		Mode: 0o644}, "")}
	for name, layers := range map[string][][]imagetest.Entry{"one": {big}, "two": {big, small}} {
		made, err := imagetest.Make(dockerspec.DockerOCIImageConfig{}, layers...)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := made.WriteLayout(dir, name); err != nil {
			t.Fatal(err)
		}
		o.Source.Contexts[name] = "oci-layout://" + dir
	}
	b = newBench(t, "overlay")
	b.real()
	b.must("FROM one\nRUN write made 1\n", o)
	b.must("FROM two\nCOPY a /a\n", o)
	if !isUnpacked(b) {
		t.Error("an outline was made of an image that is almost unpacked")
	}
}

// TestOutlineOfDamagedBase checks that a layer that cannot be read is not read a second time to
// unpack it.
func TestOutlineOfDamagedBase(t *testing.T) {
	o := imagebuild.Options{}
	dir := outlineLayout(t)
	removeLayers(dir)
	o.Source.Contexts = map[string]string{"base": "oci-layout://" + dir}
	b := newBench(t, "overlay")
	b.real()
	_, ran, err := b.build(t.Context(), "FROM base\nCOPY a /srv/\n", o)
	b.want("a base without its layer", ran)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want one about the missing blob", err)
	}
	starts := 0
	for _, e := range b.events {
		if start, ok := e.(event.Start); ok && strings.HasPrefix(string(start.ID), "image ") {
			starts++
		}
	}
	if starts != 1 {
		t.Errorf("the image was read %d times", starts)
	}
}

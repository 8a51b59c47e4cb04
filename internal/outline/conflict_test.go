package outline

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
)

func TestConflict(t *testing.T) {
	image := layer("etc/", "etc/hosts 123", "usr/", "usr/bin/", "usr/bin/a 1", "usr/bin/p |",
		"usr/lib/", "usr/lib/x/", "usr/lib/x/y 1", "var/", "bin -> usr/bin")
	b, err := outlined(t, image)
	if err != nil {
		t.Fatal(err)
	}
	files, err := Parse(b.List())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		upper []byte
		lower []byte // of an earlier step
		want  string
	}{
		{"nothing", layer(), layer(), ""},
		{"new files", layer("etc/", "etc/new 1", "usr/", "usr/bin/", "usr/bin/b 1"), layer(), ""},
		{"another size", layer("etc/", "etc/hosts 1234"), layer(), ""},
		{"the same size", layer("etc/", "etc/hosts abc"), layer(), "etc/hosts"},
		{"an earlier step has it", layer("etc/", "etc/hosts abc"), layer("etc/", "etc/hosts 1"), ""},
		{"a link", layer("etc/", "etc/hosts -> x"), layer(), ""},
		{"a directory", layer("usr/", "usr/bin/", "usr/bin/a/", "usr/bin/a/f 1"), layer(),
			"usr/bin/a"},
		{"a file in place of a fifo", layer("usr/", "usr/bin/", "usr/bin/p 1"), layer(),
			"usr/bin/p"},
		{"a fifo", layer("etc/", "etc/hosts |"), layer(), "etc/hosts"},
	} {
		t.Run(test.name, func(t *testing.T) {
			upper, _, err := unpacked(t, test.upper)
			if err != nil {
				t.Fatal(err)
			}
			lower, _, err := unpacked(t, test.lower)
			if err != nil {
				t.Fatal(err)
			}
			got, err := files.Conflict(upper, []string{lower}, false)
			if err != nil || got != test.want {
				t.Errorf("%q, %v; want %q", got, err, test.want)
			}
		})
	}
	upper := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(upper, "etc"), 0o755),
		os.WriteFile(filepath.Join(upper, "etc/hosts"), []byte("abc"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if got, err := files.Conflict(upper, nil, false); err != nil || got != "" {
		t.Errorf("another mode: %q, %v", got, err)
	}
	if err := unix.Mkfifo(filepath.Join(upper, "var"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := files.Conflict(upper, nil, false); err != nil || got != "" {
		t.Errorf("a directory of the image that has no files: %q, %v", got, err)
	}

	opaque := "trusted.overlay.opaque"
	if mounttest.UserNS() {
		opaque = "user.overlay.opaque"
	}
	if err := unix.Setxattr(filepath.Join(upper, "etc"), opaque, []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	if got, err := files.Conflict(upper, nil, false); err != nil || got != "etc" {
		t.Errorf("a directory that was made again: %q, %v", got, err)
	}
	if got, err := files.Conflict(upper, nil, true); err != nil || got != "" {
		t.Errorf("a directory of a step that ran alone: %q, %v", got, err)
	}

	for dir, want := range map[string]bool{"": true, "/": true, "etc": true, "usr": true,
		"usr/lib": true, "usr/lib/x": true, "var": false, "usr/share": false, "etc/hosts": false} {
		if got := files.In(dir); got != want {
			t.Errorf("files in %q: %t, want %t", dir, got, want)
		}
	}
}

func TestUsers(t *testing.T) {
	for _, test := range []struct {
		name string
		dirs [][]byte // topmost first
		want bool
	}{
		{"no step", nil, true},
		{"other files", [][]byte{layer("a 1", "etc/", "etc/a 1"), layer("usr/")}, true},
		{"other users", [][]byte{layer("etc/", "etc/passwd 1")}, true},
		{"a link", [][]byte{layer("etc/"), layer("etc/", "etc/group -> x")}, false},
		{"a link to the directory", [][]byte{layer("etc -> usr")}, false},
		{"a file", [][]byte{layer("etc x")}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var dirs []string
			for _, l := range test.dirs {
				dir, _, err := unpacked(t, l)
				if err != nil {
					t.Fatal(err)
				}
				dirs = append(dirs, dir)
			}
			if got, err := Users(dirs); got != test.want || err != nil {
				t.Errorf("%t, %v; want %t", got, err, test.want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	f, err := Parse([]byte("0 644 12 a/b c\x006 600 0 f\x00"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.dirs["a"].files["b c"], (file{'0', 0o644, 12}); got != want {
		t.Errorf("a/b c: %+v, want %+v", got, want)
	}
	if got, want := f.files["f"], (file{'6', 0o600, 0}); got != want {
		t.Errorf("f: %+v, want %+v", got, want)
	}
	for _, text := range []string{"0 644 12 a", "0 644 12\x00", "00 644 12 a\x00", "0 8 12 a\x00",
		"0 10000 1 a\x00", "0 644 x a\x00", " 644 1 a\x00"} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

// FuzzParse checks that a list of files that parses has the files of its lines.
func FuzzParse(f *testing.F) {
	f.Add("0 644 12 a/b\x000 600 1 a/c\x00")
	f.Add("6 1 0 /\x00")
	f.Fuzz(func(t *testing.T, text string) {
		files, err := Parse([]byte(text))
		if err != nil {
			return
		}
		var want []string
		for line := range strings.SplitSeq(strings.TrimSuffix(text, "\x00"), "\x00") {
			if text != "" {
				want = append(want, filepath.Join("/", strings.SplitN(line, " ", 4)[3]))
			}
		}
		for name := range files.all("/") {
			if !slices.Contains(want, filepath.Clean(name)) {
				t.Errorf("%q has no line in %q", name, text)
			}
		}
	})
}

package copyfs

import (
	"os"
	"testing"

	"github.com/layerbuild/layerbuild/internal/fileentry"
)

// TestDirectory checks for which Copies a layer can be written without copying the files.
func TestDirectory(t *testing.T) {
	entries := []fileentry.Entry{{Path: "f"}}
	for _, tt := range []struct {
		name           string
		change         func(*Copy, *Dest)
		userNS, single bool
		want           bool
	}{
		{name: "a directory", want: true},
		{name: "no destination", change: func(_ *Copy, d *Dest) { *d = Dest{} }},
		{name: "files at the destination", change: func(_ *Copy, d *Dest) { d.Empty = false }},
		{name: "an access list for new files",
			change: func(_ *Copy, d *Dest) { d.Inherits = true }},
		{name: "two sources", change: func(c *Copy, _ *Dest) {
			c.Sources = append(c.Sources, Source{})
		}},
		{name: "two items", change: func(c *Copy, _ *Dest) {
			c.Sources[0].Items = append(c.Sources[0].Items, Item{})
		}},
		{name: "a file", change: func(c *Copy, _ *Dest) { c.Sources[0].Items[0].Contents = false }},
		{name: "--parents", change: func(c *Copy, _ *Dest) { c.Sources[0].Items[0].Target = "a" }},
		{name: "no list of files", change: func(c *Copy, _ *Dest) {
			c.Sources[0].Items[0].Entries = nil
		}},
		{name: "an empty list", change: func(c *Copy, _ *Dest) {
			c.Sources[0].Items[0].Entries = []fileentry.Entry{}
		}, want: true},
		{name: "a heredoc", change: func(c *Copy, _ *Dest) { c.Inline = []File{{Name: "f"}} }},
		{name: "archives", change: func(c *Copy, _ *Dest) { c.Unpack = true }},
		{name: "private copies", change: func(c *Copy, _ *Dest) { c.Frozen = os.Stdin }},
		{name: "a mode", change: func(c *Copy, _ *Dest) { c.Chmod = "u+x" }, want: true},
		{name: "no mode", change: func(c *Copy, _ *Dest) { c.Chmod = "x" }},
		{name: "one id", single: true, userNS: true},
		{name: "root in a user namespace", userNS: true,
			change: func(_ *Copy, d *Dest) { d.Chown = true }, want: true},
		{name: "another owner in a user namespace", userNS: true,
			change: func(_ *Copy, d *Dest) { d.Chown, d.UID = true, 1 }},
		{name: "the source's owners in a user namespace", userNS: true},
		{name: "another owner", change: func(_ *Copy, d *Dest) {
			d.Chown, d.UID, d.GID = true, 7, 8
		}, want: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &Copy{Sources: []Source{{Items: []Item{{Path: "src", Contents: true,
				Entries: entries}}}}}
			d := &Dest{Path: "d", Empty: true}
			if tt.change != nil {
				tt.change(a, d)
			}
			got, ok := a.Directory(d, tt.userNS, tt.single)
			if ok != tt.want || ok && (got.Dest != "d" || got.Path != "src") {
				t.Fatalf("Directory = %+v, %v, want %v", got, ok, tt.want)
			}
			if !ok {
				return
			}
			uid, gid := got.Owner(1, 2)
			if want := d.Chown && (uid != d.UID || gid != d.GID) ||
				!d.Chown && (uid != 1 || gid != 2); want {
				t.Errorf("Owner(1, 2) = %d, %d", uid, gid)
			}
			if mode := got.Mode(0o644, false); mode != 0o644 && a.Chmod == "" ||
				a.Chmod != "" && mode != 0o744 {
				t.Errorf("Mode(0644) = %o", mode)
			}
		})
	}
	if _, ok := (&Copy{}).Directory(nil, false, false); ok {
		t.Error("a Copy whose destination is not known can be written as a layer")
	}
}

package copyfstest

import (
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/fileentry"
)

// Case is a Copy of one Item that changes no owners.
type Case struct {
	Name string
	// Image and Source are the entries of the image and of the source before the copy, as Make
	// takes them.
	Image, Source []string
	// Copy has no Sources yet.
	Copy copyfs.Copy
	Item copyfs.Item
	// Want are the entries of the image after the copy, as List returns them.
	Want []string
	// Err is the text of the error; "" if there is none.
	Err string
}

// Check compares the error and the image's directory after the copy with the Case.
func (c *Case) Check(t *testing.T, dir string, err error) {
	t.Helper()
	if c.Err != "" {
		if err == nil || err.Error() != c.Err {
			t.Errorf("got %v, want %s", err, c.Err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := List(t, dir); !slices.Equal(got, c.Want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.Want, "\n"))
	}
}

// Cases has one Case for each rule of copying.
var Cases = []Case{
	{Name: "file to a name", Source: []string{"file a 0640 x"}, Copy: copyfs.Copy{Dest: "/b"},
		Item: copyfs.Item{Path: "a"},
		Want: []string{"file b 0640 x old"}},
	{Name: "file into a directory by its slash", Source: []string{"file a 0644 x"},
		Copy: copyfs.Copy{Dest: "/d/e/"}, Item: copyfs.Item{Path: "a"},
		Want: []string{"dir d 0755", "dir d/e 0755", "file d/e/a 0644 x old"}},
	{Name: "file into a directory that exists", Image: []string{"dir d"},
		Source: []string{"file s/a 0644 x"}, Copy: copyfs.Copy{Dest: "/d"},
		Item: copyfs.Item{Path: "s/a"},
		Want: []string{"dir d 0755", "file d/a 0644 x old"}},
	{Name: "file into a directory behind a link",
		Image:  []string{"dir real", "link l /real"},
		Source: []string{"file a 0644 x"}, Copy: copyfs.Copy{Dest: "/l"},
		Item: copyfs.Item{Path: "a"},
		Want: []string{"link l /real", "dir real 0755", "file real/a 0644 x old"}},
	{Name: "parents behind a link that leads nowhere",
		Image: []string{"link l /not/yet"}, Source: []string{"file a 0644 x"},
		Copy: copyfs.Copy{Dest: "/l/b"}, Item: copyfs.Item{Path: "a"},
		Want: []string{"link l /not/yet", "dir not 0755", "dir not/yet 0755",
			"file not/yet/b 0644 x old"}},
	{Name: "file over a link to a file",
		Image:  []string{"file t 0600 old", "link l t"},
		Source: []string{"file a 0644 x"}, Copy: copyfs.Copy{Dest: "/l"},
		Item: copyfs.Item{Path: "a"},
		Want: []string{"link l t", "file t 0644 x old"}},
	{Name: "file over a link in a directory",
		Image:  []string{"file t 0600 keep", "dir d", "link d/a ../t"},
		Source: []string{"file a 0644 x"}, Copy: copyfs.Copy{Dest: "/d/"},
		Item: copyfs.Item{Path: "a"},
		Want: []string{"dir d 0755", "file d/a 0644 x old", "file t 0600 keep"}},
	{Name: "links lead nowhere but into the image",
		Image:  []string{"link l ../../../../../../etc"},
		Source: []string{"file a 0644 x"}, Copy: copyfs.Copy{Dest: "/l/a"},
		Item: copyfs.Item{Path: "a"},
		Want: []string{"dir etc 0755", "file etc/a 0644 x old",
			"link l ../../../../../../etc"}},
	{Name: "file over a file with another name",
		Image: []string{"file t 0600 keep", "hard u t"}, Source: []string{"file a 0644 x"},
		Copy: copyfs.Copy{Dest: "/t"}, Item: copyfs.Item{Path: "a"},
		Want: []string{"file t 0644 x old", "file u 0600 keep"}},
	{Name: "file over a directory", Image: []string{"dir d/a"},
		Source: []string{"file a 0644 x"}, Copy: copyfs.Copy{Dest: "/d/"},
		Item: copyfs.Item{Path: "a"},
		Err:  "cannot replace to directory /d/a with file"},
	{Name: "below a file", Image: []string{"file f 0644"},
		Source: []string{"file a 0644 x"}, Copy: copyfs.Copy{Dest: "/f/"},
		Item: copyfs.Item{Path: "a"},
		Err:  "cannot copy to non-directory: /f"},
	{Name: "contents of a directory", Source: []string{"dir s 0700", "dir s/d 0750",
		"file s/d/f 0600 x", "file s/g 0644 y"}, Copy: copyfs.Copy{Dest: "/app"},
		Item: copyfs.Item{Path: "s", Contents: true},
		Want: []string{"dir app 0755 old", "dir app/d 0750 old", "file app/d/f 0600 x old",
			"file app/g 0644 y old"}},
	{Name: "contents into a directory that exists",
		Image:  []string{"dir app 0711", "dir app/d", "file app/d/k 0644 k"},
		Source: []string{"dir s 0700", "dir s/d 0750", "file s/d/f 0600 x"},
		Copy:   copyfs.Copy{Dest: "/app/"}, Item: copyfs.Item{Path: "s", Contents: true},
		Want: []string{"dir app 0711 old", "dir app/d 0750 old", "file app/d/f 0600 x old",
			"file app/d/k 0644 k"}},
	{Name: "the whole source", Source: []string{"file f 0644 x"}, Copy: copyfs.Copy{Dest: "/"},
		Item: copyfs.Item{Path: ".", Contents: true},
		Want: []string{"file f 0644 x old"}},
	{Name: "a directory over a file", Image: []string{"dir app", "file app/d 0644"},
		Source: []string{"dir s", "dir s/d 0755"}, Copy: copyfs.Copy{Dest: "/app"},
		Item: copyfs.Item{Path: "s", Contents: true},
		Err:  "cannot copy to non-directory: /app/d"},
	{Name: "a directory over a link", Image: []string{"dir usr/bin", "link bin usr/bin"},
		Source: []string{"dir s", "dir s/bin 0755"}, Copy: copyfs.Copy{Dest: "/"},
		Item: copyfs.Item{Path: "s", Contents: true},
		Err:  "cannot copy to non-directory: /bin"},
	{Name: "contents over a file", Image: []string{"file app 0644"},
		Source: []string{"dir s"}, Copy: copyfs.Copy{Dest: "/app"},
		Item: copyfs.Item{Path: "s", Contents: true},
		Err:  "cannot copy to non-directory: /app"},
	{Name: "only what is listed, with the directories above it",
		Source: []string{"dir s 0750", "dir s/d 0700", "dir s/d/e 0711", "file s/d/e/f 0644 x",
			"file s/d/no 0644 n", "file s/g-h 0644 y", "dir s/g 0755", "file s/g/i 0644 z"},
		Copy: copyfs.Copy{Dest: "/a"}, Item: copyfs.Item{Path: "s", Contents: true,
			Entries: []fileentry.Entry{{Path: "d/e/f"}, {Path: "g"}, {Path: "g-h"}, {Path: "g/i"}}},
		Want: []string{"dir a 0755 old", "dir a/d 0700 old", "dir a/d/e 0711 old",
			"file a/d/e/f 0644 x old", "dir a/g 0755 old", "file a/g/i 0644 z old",
			"file a/g-h 0644 y old"}},
	{Name: "nothing is listed", Source: []string{"dir s", "file s/f 0644 x"},
		Copy: copyfs.Copy{Dest: "/a"}, Item: copyfs.Item{Path: "s", Contents: true,
			Entries: []fileentry.Entry{}},
		Want: []string{"dir a 0755 old"}},
	{Name: "links, hard links and special files",
		Source: []string{"dir s", "link s/l /etc/passwd", "file s/h1 0644 x", "hard s/h2 s/h1",
			"dir s/z", "hard s/z/h3 s/h1", "fifo s/p 0640", "sock s/so 0755"},
		Copy: copyfs.Copy{Dest: "/a"}, Item: copyfs.Item{Path: "s", Contents: true},
		Want: []string{"dir a 0755 old", "file a/h1 0644 x old", "hard a/h2 a/h1 old",
			"link a/l /etc/passwd old", "fifo a/p 0640 old", "dir a/z 0755 old",
			"hard a/z/h3 a/h1 old"}},
	{Name: "special bits", Source: []string{"dir s", "file s/su 4755 x", "file s/sg 2755 x",
		"dir s/st 1777", "dir s/sgd 2770", "file s/sgd/f 0644 x"}, Copy: copyfs.Copy{Dest: "/a"},
		Item: copyfs.Item{Path: "s", Contents: true},
		Want: []string{"dir a 0755 old", "file a/sg 2755 x old", "dir a/sgd 2770 old",
			"file a/sgd/f 0644 x old", "dir a/st 1777 old", "file a/su 4755 x old"}},
	{Name: "octal chmod, of parents too", Source: []string{"file a 0644 x"},
		Copy: copyfs.Copy{Dest: "/p/q/", Chmod: "4711"}, Item: copyfs.Item{Path: "a"},
		Want: []string{"dir p 0711", "dir p/q 0711", "file p/q/a 4711 x old"}},
	{Name: "symbolic chmod", Source: []string{"dir s 0700", "dir s/d 0700", "file s/d/f 0600 x",
		"file s/x 0700 x"}, Copy: copyfs.Copy{Dest: "/a", Chmod: "go=u,go-w,a+X"},
		Item: copyfs.Item{Path: "s", Contents: true},
		Want: []string{"dir a 0755 old", "dir a/d 0755 old", "file a/d/f 0644 x old",
			"file a/x 0755 x old"}},
	{Name: "parents as in the source", Source: []string{"dir x 0755", "dir x/y 0700",
		"file x/y/f 0644 x"}, Copy: copyfs.Copy{Dest: "/d"},
		Item: copyfs.Item{Path: "x/y/f", Target: "x/y/f"},
		Want: []string{"dir d 0755", "dir d/x 0755 old", "dir d/x/y 0700 old",
			"file d/x/y/f 0644 x old"}},
	{Name: "parents from a pivot", Source: []string{"dir x 0755", "dir x/y 0700", "dir x/y/z 0711",
		"file x/y/z/f 0644 x"}, Copy: copyfs.Copy{Dest: "/d"},
		Item: copyfs.Item{Path: "x/y/z", Target: "y/z"},
		Want: []string{"dir d 0755", "dir d/y 0700 old", "dir d/y/z 0711 old",
			"file d/y/z/f 0644 x old"}},
	{Name: "another name", Source: []string{"file x/f 0644 x"}, Copy: copyfs.Copy{Dest: "/d"},
		Item: copyfs.Item{Path: "x/f", Target: "g"},
		Want: []string{"dir d 0755", "file d/g 0644 x old"}},
	{Name: "a directory itself", Source: []string{"dir x 0700", "file x/f 0644 x"},
		Copy: copyfs.Copy{Dest: "/d"}, Item: copyfs.Item{Path: "x"},
		Want: []string{"dir d 0700 old", "file d/f 0644 x old"}},
	{Name: "a missing source", Copy: copyfs.Copy{Dest: "/d"}, Item: copyfs.Item{Path: "nope/f"},
		Err: "copy nope/f: no such file or directory"},
	{Name: "a source behind a link", Source: []string{"link l /etc"}, Copy: copyfs.Copy{Dest: "/d"},
		Item: copyfs.Item{Path: "l/passwd"},
		Err:  "copy l/passwd: too many levels of symbolic links"},
	{Name: "a bad mode", Source: []string{"file a 0644 x"},
		Copy: copyfs.Copy{Dest: "/d", Chmod: "64a"},
		Item: copyfs.Item{Path: "a"},
		Err:  "invalid chmod parameter: '64a'. it should be octal string and between 0 and 07777"},
	{Name: "another size than was digested", Source: []string{"file a 0644 x"},
		Copy: copyfs.Copy{Dest: "/d"}, Item: copyfs.Item{Path: "a",
			Entries: []fileentry.Entry{{Path: ".", Size: 2, MtimeNs: Old.UnixNano()}}},
		Err: `"a" changed while it was being copied`},
	{Name: "another time than was digested", Source: []string{"dir s", "file s/a 0644 x"},
		Copy: copyfs.Copy{Dest: "/d"}, Item: copyfs.Item{Path: "s", Contents: true,
			Entries: []fileentry.Entry{{Path: "a", Size: 1, MtimeNs: 1}}},
		Err: `"s/a" changed while it was being copied`},
	{Name: "as it was digested", Source: []string{"file a 0644 x"}, Copy: copyfs.Copy{Dest: "/d"},
		Item: copyfs.Item{Path: "a", Entries: []fileentry.Entry{{Path: ".", Size: 1,
			MtimeNs: Old.UnixNano()}}},
		Want: []string{"file d 0644 x old"}},
	{Name: "paths that systems are sensitive about", Source: []string{"file a 0644 x"},
		Copy: copyfs.Copy{Dest: "/etc/hosts"}, Item: copyfs.Item{Path: "a"},
		Want: []string{"dir etc 0755", "file etc/hosts 0644 x old"}},
	{Name: "proc is a directory like others", Source: []string{"file a 0644 x"},
		Copy: copyfs.Copy{Dest: "/proc/self/root/"}, Item: copyfs.Item{Path: "a"},
		Want: []string{"dir proc 0755", "dir proc/self 0755", "dir proc/self/root 0755",
			"file proc/self/root/a 0644 x old"}},
}

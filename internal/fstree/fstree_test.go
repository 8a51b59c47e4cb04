package fstree

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseAndFormat(t *testing.T) {
	const text = `dir usr/bin 0755
file etc/a 0644 root:root @1700000000 [user.colour=red] [user.odd="]\x00"] hello world
file etc/b 4755 12:34
file "odd name\n" "0755 is content"
link b -> a
link "a b" root:5 @7 -> "x y"
hardlink c => etc/a
whiteout etc/old
opaque var/lib
char dev/null 0666 1:3
block dev/sda 0660 root:6 8:0
fifo run/pipe 0600
socket run/sock
`
	entries, err := Parse("# comment\n\n" + text)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(text, Format(entries)); d != "" {
		t.Errorf("Format(Parse(text)) differs (-want +got):\n%s", d)
	}
}

func TestParseErrors(t *testing.T) {
	for _, bad := range []string{"dir", "what a", "link a b", "link a => b", "char a 0600 x",
		"dir a 0755 more", `file "a`} {
		if e, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", bad, e)
		}
	}
}

func TestMakeAndPrint(t *testing.T) {
	dir := t.TempDir()
	text := `dir a 0700
file a/f 0640 one "two" three
link a/l -> ../nowhere
hardlink b => a/f
fifo p 0600
file z 4755 "line\n"
`
	if err := Make(dir, "file z 0644 before\ndir p\n"+text); err != nil {
		t.Fatal(err)
	}
	got, err := Print(dir, Show{})
	if err != nil {
		t.Fatal(err)
	}
	want := `dir a 0700
file a/f 0640 "one \"two\" three"
link a/l -> ../nowhere
hardlink b => a/f
fifo p 0600
file z 4755 "line\n"
`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Print differs (-want +got):\n%s", d)
	}
}

func TestMakeAndPrintAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("owners, devices and trusted attributes need root")
	}
	dir := t.TempDir()
	text := `dir . 0755 root:root @5
dir d 0755 root:root @6
opaque d
file d/f 0644 1:2 @7 [user.k=v]
whiteout d/w
char n 0666 root:root @8 1:3
`
	if err := Make(dir, text); err != nil {
		t.Fatal(err)
	}
	got, err := Print(dir, Show{Owners: true, Times: true, Xattrs: true, Root: true})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(text, got); d != "" {
		t.Errorf("Print differs (-want +got):\n%s", d)
	}
}

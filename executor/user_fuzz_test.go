package executor

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzUser checks, for any passwd and group files, that the returned ids are in the files or in the
// argument.
func FuzzUser(f *testing.F) {
	for _, spec := range []string{"root", "7:8", "a:b", "0", ":", "a:", "-1",
		"4294967295", "99999999999"} {
		f.Add(spec, "root:x:0:0::/root:/bin/sh\na:x:5:6::/a:\n",
			"root:x:0:\nb:x:9:a,root\nc:x:10:a\n")
		f.Add(spec, "a\na:\na:x:y:z\n:::::::\na:x:99999999999:1::\na:x:-1:-1::\n\x00",
			":::\nb:x:\nb::99999999999:a\n")
	}
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"passwd": passwd, "group": group} {
			if err := os.WriteFile(filepath.Join(dir, "etc", name),
				[]byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		root, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		id, err := lookupUser(int(root.Fd()), spec)
		if err != nil {
			return
		}
		for _, n := range append([]uint32{id.uid, id.gid}, id.groups...) {
			if n > maxID {
				t.Errorf("lookupUser(%q) has the id %d", spec, n)
			}
		}
		if id.home == "" || len(id.groups) == 0 ||
			id.groups[0] != id.gid && !contains(id.groups, id.gid) {
			t.Errorf("lookupUser(%q) = %+v", spec, id)
		}
		lookupOwner(int(root.Fd()), spec)
	})
}

func contains(groups []uint32, gid uint32) bool {
	for _, g := range groups {
		if g == gid {
			return true
		}
	}
	return false
}

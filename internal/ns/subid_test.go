package ns

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The remedy for a user without subordinate ids proposes a range that no user has, for the files
// that lack one.
func TestSubIDRemedy(t *testing.T) {
	for _, tt := range []struct {
		what, uids, gids, login string
		name                    string
		uid                     int
		want                    string
	}{
		{"empty files", "", "", "", "me", 1000,
			"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 me"},
		{"one user", "a:100000:65536\n", "a:100000:65536\n", "", "me", 1000,
			"usermod --add-subuids 165536-231071 --add-subgids 165536-231071 me"},
		{"different files", "a:100000:65536\n", "a:100000:65536\nb:165536:65536\n", "", "me", 1000,
			"usermod --add-subuids 231072-296607 --add-subgids 231072-296607 me"},
		{"a gap", "a:100000:65536\nb:231072:65536\n", "", "", "me", 1000,
			"usermod --add-subuids 165536-231071 --add-subgids 165536-231071 me"},
		{"a gap that is too small", "a:100000:65536\nb:200000:65536\n", "", "", "me", 1000,
			"usermod --add-subuids 265536-331071 --add-subgids 265536-331071 me"},
		{"out of order", "b:165536:65536\na:100000:65536\n", "", "", "me", 1000,
			"usermod --add-subuids 231072-296607 --add-subgids 231072-296607 me"},
		{"overlapping", "a:90000:20000\nb:100000:1\n", "", "", "me", 1000,
			"usermod --add-subuids 110000-175535 --add-subgids 110000-175535 me"},
		{"only gids are missing", "me:100000:65536\n", "a:100000:65536\n", "", "me", 1000,
			"usermod --add-subgids 165536-231071 me"},
		{"only uids are missing", "", "me:100000:65536\n", "", "me", 1000,
			"usermod --add-subuids 165536-231071 me"},
		{"a user by number", "", "", "", "", 1234,
			"echo 1234:100000:65536 >>UIDS && echo 1234:100000:65536 >>GIDS"},
		{"a user with a high id", "", "", "", "me", 120000,
			"usermod --add-subuids 120001-185536 --add-subgids 120001-185536 me"},
		{"login.defs", "", "", "# SUB_UID_MIN 1\nSUB_UID_MIN\t\t 200000\nSUB_GID_MIN 300000\n",
			"me", 1000, "usermod --add-subuids 300000-365535 --add-subgids 300000-365535 me"},
		{"lines that are none", "nonsense\na:b:c\n:1:1\na:100000:65536\n", "", "", "me", 1000,
			"usermod --add-subuids 165536-231071 --add-subgids 165536-231071 me"},
		{"no room", "a:100000:4294860000\n", "", "", "me", 1000, ""},
	} {
		dir := t.TempDir()
		f := subFiles{UIDs: filepath.Join(dir, "subuid"), GIDs: filepath.Join(dir, "subgid"),
			Login: filepath.Join(dir, "login.defs")}
		for name, text := range map[string]string{f.UIDs: tt.uids,
			f.GIDs: tt.gids, f.Login: tt.login} {
			if text == "" {
				continue // a missing file is treated like an empty one
			}
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		uids, gids, why := f.of(tt.name, tt.uid)
		_, remedy, _ := strings.Cut(why, " (as root: ")
		remedy = strings.NewReplacer(f.UIDs, "UIDS", f.GIDs,
			"GIDS").Replace(strings.TrimSuffix(remedy, ")"))
		if remedy != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, remedy, tt.want)
		}
		if len(uids)+len(gids) > 0 || why == "" {
			t.Errorf("%s: %v, %v, %q, want no ranges and a reason", tt.what, uids, gids, why)
		}
		checkFree(t, tt.what, remedy, tt.uids+tt.gids)
	}
}

// checkFree checks that no id of the proposed range is in a file.
func checkFree(t *testing.T, what, remedy, text string) {
	t.Helper()
	m := regexp.MustCompile(`([0-9]+)-([0-9]+)`).FindStringSubmatch(remedy)
	if m == nil {
		return
	}
	first, _ := strconv.ParseUint(m[1], 10, 32)
	last, _ := strconv.ParseUint(m[2], 10, 32)
	for _, r := range allSubIDs([]byte(text)) {
		if first < uint64(r.Outside)+uint64(r.Count) && uint64(r.Outside) <= last {
			t.Errorf("%s: %d-%d is proposed, and %v is taken", what, first, last, r)
		}
	}
	if last-first+1 != rangeSize {
		t.Errorf("%s: %d-%d has not %d ids", what, first, last, rangeSize)
	}
}

// A user with both ranges needs no remedy.
func TestSubIDs(t *testing.T) {
	dir := t.TempDir()
	f := subFiles{UIDs: filepath.Join(dir, "subuid"), GIDs: filepath.Join(dir, "subgid")}
	for _, name := range []string{f.UIDs, f.GIDs} {
		if err := os.WriteFile(name,
			[]byte("other:100000:65536\nme:165536:65536\n1000:300000:10\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	uids, gids, why := f.of("me", 1000)
	want := "[{1 165536 65536} {65537 300000 10}]"
	if fmt.Sprint(uids) != want || fmt.Sprint(gids) != want || why != "" {
		t.Errorf("of = %v, %v, %q, want %s twice", uids, gids, why, want)
	}
}

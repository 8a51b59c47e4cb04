package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzInfo checks that an info.json is either read or reported as damaged, and that no parent lies
// outside of the store.
func FuzzInfo(f *testing.F) {
	for _, text := range []string{`{}`, `{"parent":"0123456789abcdef0123456789abcdef"}`,
		`{"parent":"../../x"}`, `{"parent":5}`, `null`, `[`, ``} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, infoFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := readInfo(dir)
		if err != nil {
			if !errors.Is(err, errDamaged) {
				t.Errorf("%q: %v", data, err)
			}
			return
		}
		if name := string(info.Parent); name != "" && name != filepath.Base(name) || name == ".." {
			t.Errorf("%q has the parent %q", data, name)
		}
		if err := writeInfo(dir, info); err != nil {
			t.Fatal(err)
		}
		if _, err := readInfo(dir); err != nil {
			t.Errorf("%q is not read again: %v", data, err)
		}
	})
}

package unpack

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/fstree"
)

// FuzzTar checks that unpacking any stream changes nothing outside the root.
func FuzzTar(f *testing.F) {
	for _, data := range streams(f) {
		f.Add(data, uint8(0))
	}
	for i, text := range []string{
		"link l -> ../outside\nfile l/f 0600 x\ndir l/d\nhardlink h => l/secret\nfile ../outside/new 0600",
		"link l -> /\ndir l\nfile l 0600\nhardlink l/x => ../outside/secret\nfile .wh.l 0600",
		"dir d\nfile d/.wh... 0600\nfile d/.wh..wh..opq 0600\nfile .wh.d 0600\nlink d -> ../../outside\nfile d/.wh.secret 0600",
		"hardlink a => ../outside/secret\nfile a 0600 changed",
		"link a -> b\nlink b -> ../outside\nfile a/b/c 0600\ndir a/../../outside 0777",
	} {
		for mode := range uint8(5) {
			f.Add(stream(f, text), mode+uint8(i%2)*8)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, mode uint8) {
		top := t.TempDir()
		const outside = "file outside/secret 0600 @7 secret\ndir outside 0755 @7\nlink to 0777 @7 -> outside\ndir root 0755"
		if err := fstree.Make(top, outside); err != nil {
			t.Fatal(err)
		}
		root := filepath.Join(top, "root")
		// The stream is applied to a tree with a link that refers to a directory outside.
		if err := fstree.Make(root,
			"dir d 0755\nfile d/f 0600 x\nlink out -> ../outside\nlink abs -> /d"); err != nil {
			t.Fatal(err)
		}
		o := Options{
			Whiteouts: Whiteouts(mode % 4), FollowDirLinks: mode&8 != 0, SkipRoot: mode&16 != 0,
			OnOwnerError: func(string, int, int, error) {}, OnSkip: func(string, string, error) {},
		}
		Tar(context.Background(), bytes.NewReader(data), openDir(t, root), o)
		// only for root, RemoveAll can remove closed directories
		if err := os.RemoveAll(root); err != nil {
			chmodAll(root)
			if err := os.RemoveAll(root); err != nil {
				t.Fatal(err)
			}
		}
		got, err := fstree.Print(top, fstree.Show{Times: true, Xattrs: true})
		if err != nil {
			t.Fatal(err)
		}
		want := "dir outside 0755 @7\nfile outside/secret 0600 @7 secret\nlink to @7 -> outside\n"
		if got != want {
			t.Errorf("outside the root is\n%swant\n%s", got, want)
		}
	})
}

func chmodAll(dir string) {
	os.Chmod(dir, 0o700)
	list, _ := os.ReadDir(dir)
	for _, e := range list {
		if e.IsDir() {
			chmodAll(filepath.Join(dir, e.Name()))
		}
	}
}

// FuzzReader checks that the standard library reads the same from any stream that a Reader accepts.
func FuzzReader(f *testing.F) {
	for _, data := range streams(f) {
		f.Add(data)
	}
	for _, test := range readings {
		f.Add(test.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) <= 1<<16 {
			sameReading(t, data)
		}
	})
}

// FuzzHeaders is like FuzzReader for streams of valid headers, which random bytes rarely contain:
// an input is a script for scriptedStream.
func FuzzHeaders(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		f.Add(randomScript(random))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) <= 1<<10 {
			sameReading(t, scriptedStream(script))
		}
	})
}

func randomScript(random *rand.Rand) []byte {
	script := make([]byte, 8+random.IntN(90))
	for i := range script {
		script[i] = byte(random.Uint32())
	}
	return script
}

// sameReading checks that a stream is read as archive/tar reads it, or refused. It reports whether
// it was accepted.
func sameReading(t *testing.T, data []byte) (accepted bool, err error) {
	got, err := read(data)
	want, standardErr := readStandard(data)
	if err != nil {
		// The entries before the error must be the same too.
		if standardErr == nil && !strings.HasPrefix(want, got) {
			t.Errorf("read, before %v,\n%swant the beginning of\n%s\nof %q", err, got, want, data)
		}
		return false, err
	}
	if standardErr != nil {
		t.Errorf("read\n%swant %v after\n%s\nof %q", got, standardErr, want, data)
	} else if got != want {
		t.Errorf("read\n%swant\n%s\nof %q", got, want, data)
	}
	if again, err := readData(data); err != nil || again != got {
		t.Errorf("Data reads\n%s%v, Read reads\n%s\nof %q", again, err, got, data)
	}
	return true, nil
}

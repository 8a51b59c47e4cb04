package faults

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/rounds"
	"github.com/layerbuild/layerbuild/test/lab"
)

// outputKind is a kind of output. OUT in args is its destination.
type outputKind struct {
	name string
	args []string
	dir  bool
}

var outputKinds = []outputKind{
	{"local", []string{"-o", "type=local,dest=OUT"}, true},
	{"local with a missing parent", []string{"-o", "type=local,dest=OUT/p/q"}, true},
	{"tar", []string{"-o", "type=tar,dest=OUT"}, false},
	{"oci", []string{"-o", "type=oci,dest=OUT"}, false},
	{"docker", []string{"-o", "type=docker,dest=OUT"}, false},
	{"oci directory", []string{"-o", "type=oci,tar=false,dest=OUT"}, true},
	{"docker directory", []string{"-o", "type=docker,tar=false,dest=OUT"}, true},
	{"cache-to", []string{"--cache-to", "type=local,dest=OUT"}, true},
	{"iidfile", []string{"--iidfile", "OUT"}, false},
	{"metadata-file", []string{"--metadata-file", "OUT"}, false},
}

// outputLab makes a lab with the directory at, in which the output must be the only entry.
func outputLab(t *testing.T) (l *lab.Lab, at string) {
	l = lab.New(t)
	var files []string
	for i := range 500 {
		files = append(files, fmt.Sprintf("src/d%d/f%d", i%20, i),
			strings.Repeat(fmt.Sprint(i), 100))
	}
	noise := make([]byte, 8<<20)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	l.Write(append(files, "src/big", string(noise), ".dockerignore", "at\n", "out.df",
		"FROM scratch\nCOPY src /\n")...)
	l.Env = append(l.Env, "SOURCE_DATE_EPOCH=1700000000")
	at = filepath.Join(l.Dir, "at")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	return l, at
}

// before prepares the destination for an output.
func (k outputKind) before(t *testing.T, out string, exists bool) {
	t.Helper()
	if err := os.RemoveAll(out); err != nil {
		t.Fatal(err)
	}
	var err error
	switch {
	case exists && k.dir:
		for _, name := range []string{"own/f", "d1/f1", "d1/own", "d2", "big/x"} {
			path := filepath.Join(out, name)
			if strings.Contains(strings.Join(k.args, ""), "OUT/p") {
				path = filepath.Join(out, "p/q", name)
			}
			if err == nil {
				err = os.MkdirAll(filepath.Dir(path), 0o755)
			}
			if err == nil {
				err = os.WriteFile(path, []byte("before"), 0o600)
			}
		}
	case exists:
		err = os.WriteFile(out, []byte("before"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (k outputKind) argv(out string) []string {
	args := []string{"-f", "out.df"}
	for _, a := range k.args {
		args = append(args, strings.ReplaceAll(a, "OUT", out))
	}
	return args
}

// buildRef matches the member of a metadata file that has another value in each build.
var buildRef = regexp.MustCompile(`"buildx\.build\.ref": "[^"]*"`)

// treeAt returns the content of each file below dir, and the type of everything else, by path.
func treeAt(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if all[rel] = e.Type().String(); e.Type().IsRegular() {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			raw = buildRef.ReplaceAll(raw, nil)
			all[rel] = fmt.Sprintf("%d bytes, %x", len(raw), sha256.Sum256(raw))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// differences lists a few paths in which two trees differ.
func differences(got, want map[string]string) string {
	var b strings.Builder
	for path := range maps.Keys(got) {
		if got[path] != want[path] && b.Len() < 500 {
			fmt.Fprintf(&b, "%s: %s, want %q\n", path, got[path], want[path])
		}
	}
	for path := range maps.Keys(want) {
		if got[path] == "" && b.Len() < 1000 {
			fmt.Fprintf(&b, "%s is missing\n", path)
		}
	}
	return b.String()
}

// TestInterruptedOutputs ends builds at random moments while they write an output. The destination
// must be unchanged or complete. No other files may remain after SIGTERM and SIGINT. After SIGKILL,
// the next output must remove them.
func TestInterruptedOutputs(t *testing.T) {
	lab.Root(t)
	l, at := outputLab(t)
	out := filepath.Join(at, "out")
	for _, kind := range outputKinds {
		for _, exists := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/exists=%v", kind.name, exists), func(t *testing.T) {
				kind.before(t, out, exists)
				before := treeAt(t, at)
				// the next builds take steps and layers from the cache
				accepted(t, build(l, kind.argv(out)...))
				kind.before(t, out, exists)
				began := time.Now()
				accepted(t, build(l, kind.argv(out)...))
				takes := time.Since(began)
				after := treeAt(t, at)
				name := "outputs-" + strings.ReplaceAll(kind.name, " ",
					"-") + fmt.Sprintf("-%v", exists)
				rounds.Run(t, name, rounds.Options{Fixed: 4, Fresh: 2, Long: 60},
					func(t *testing.T, seed uint64) {
						rnd := rand.New(rand.NewPCG(seed, 0))
						sig := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL,
							syscall.SIGINT}[rnd.IntN(4)]
						kind.before(t, out, exists)
						cmd := build(l, kind.argv(out)...)
						if err := cmd.Start(); err != nil {
							t.Fatal(err)
						}
						time.Sleep(time.Duration(rnd.Int64N(int64(takes) + int64(takes)/4)))
						cmd.Process.Signal(sig)
						cmd.Wait()
						checkInterrupted(t, at, sig, before, after)
						kind.before(t, out, exists)
						accepted(t, build(l, kind.argv(out)...))
						if d := differences(treeAt(t, at), after); d != "" {
							t.Errorf("after %s the next output differs:\n%s", sig, d)
						}
					})
			})
		}
	}
}

func checkInterrupted(t *testing.T, at string, sig syscall.Signal, before,
	after map[string]string) {
	t.Helper()
	now := treeAt(t, at)
	if sig == syscall.SIGKILL {
		maps.DeleteFunc(now, func(path, _ string) bool {
			return strings.Contains(path, ".layerbuild-")
		})
	}
	if maps.Equal(now, before) || maps.Equal(now, after) {
		return
	}
	// SIGKILL may arrive between two moves into a directory that existed.
	if _, existed := before["out"]; existed && sig == syscall.SIGKILL {
		for path, content := range now {
			if content != before[path] && content != after[path] {
				t.Errorf("after %s %s is neither the old one nor the new one: %s", sig, path,
					content)
			}
		}
		return
	}
	t.Errorf("after %s the destination is neither as before:\n%s\nnor complete:\n%s", sig,
		differences(now, before), differences(now, after))
}

// TestOutputsWithoutRoom checks that if an output cannot be written, because the disk is full or
// read-only, or because the destination has another type, the destination is unchanged and no other
// files remain.
func TestOutputsWithoutRoom(t *testing.T) {
	lab.Root(t)
	l, _ := outputLab(t)
	for _, kind := range outputKinds {
		for _, exists := range []bool{false, true} {
			for _, state := range []string{"full", "read-only", "other type"} {
				t.Run(fmt.Sprintf("%s/exists=%v/%s", kind.name, exists, state), func(t *testing.T) {
					at := filepath.Join(t.TempDir(), "at")
					mountOn(t, at, "tmpfs", "size=1m")
					out := filepath.Join(at, "out")
					kind.before(t, out, exists)
					switch state {
					case "full":
						if kind.name == "iidfile" || kind.name == "metadata-file" {
							// a small file fits on any disk; the case read-only tests it
							return
						}
					case "read-only":
						if err := unix.Mount("none", at, "tmpfs",
							unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
							t.Fatal(err)
						}
					case "other type":
						if !exists {
							return // there is no destination
						}
						other := kind
						other.dir = !kind.dir
						other.before(t, out, true)
					}
					before := treeAt(t, at)
					if r := run(t, build(l, kind.argv(out)...)); r.status == 0 {
						t.Error("the build succeeded")
					}
					if d := differences(treeAt(t, at), before); d != "" {
						t.Errorf("the destination is not as before:\n%s", d)
					}
				})
			}
		}
	}
}

// TestMountsInDestination checks that files below a mount in the destination are written to the
// mount, and that a directory with a mount in it is not replaced.
func TestMountsInDestination(t *testing.T) {
	lab.Root(t)
	l, at := outputLab(t)
	kind := outputKinds[0]
	out := filepath.Join(at, "out")
	kind.before(t, out, true)
	accepted(t, build(l, kind.argv(out)...))
	want := treeAt(t, at)
	kind.before(t, out, true)
	mountOn(t, filepath.Join(out, "d1"), "tmpfs", "size=1m") // hides own and f1
	delete(want, "out/d1/own")
	accepted(t, build(l, kind.argv(out)...))
	if d := differences(treeAt(t, at), want); d != "" {
		t.Errorf("with a mount:\n%s", d)
	}
	if err := os.RemoveAll(filepath.Join(out, "big")); err != nil {
		t.Fatal(err)
	}
	mountOn(t, filepath.Join(out, "big/m"), "tmpfs", "size=1m")
	if err := os.WriteFile(filepath.Join(out, "big/m/f"),
		[]byte("on the mount"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := treeAt(t, at)
	refused(t, build(l, kind.argv(out)...), "device or resource busy")
	if d := differences(treeAt(t, at), before); d != "" {
		t.Errorf("after a refusal:\n%s", d)
	}
}

// TestMountedFile checks that a small output to a file that is a mount point, as in a container, is
// written in place, and that an archive is refused.
func TestMountedFile(t *testing.T) {
	lab.Root(t)
	l, at := outputLab(t)
	out, outside := filepath.Join(at, "out"), filepath.Join(l.Dir, "outside")
	for _, name := range []string{out, outside} {
		if err := os.WriteFile(name, []byte("before"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(outside, out, "", unix.MS_BIND, ""); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(out, unix.MNT_DETACH)
	refused(t, build(l, "-f", "out.df", "-o", "type=oci,dest="+out), "device or resource busy")
	if raw, err := os.ReadFile(outside); err != nil || string(raw) != "before" {
		t.Errorf("after a refusal the file has %d bytes, %v", len(raw), err)
	}
	accepted(t, build(l, "-f", "out.df", "--iidfile", out))
	if raw, err := os.ReadFile(outside); err != nil || !strings.HasPrefix(string(raw), "sha256:") {
		t.Errorf("the file outside holds %q, %v", raw, err)
	}
	if names, err := os.ReadDir(at); err != nil || len(names) != 1 {
		t.Errorf("left: %v, %v", names, err)
	}
}

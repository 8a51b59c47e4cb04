package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

// tmpfs mounts a small file system at dir for the time of the test.
func tmpfs(t *testing.T, dir, size string) {
	t.Helper()
	lab.Need(t, "mount", "umount")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lab.Output(t, "mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir)
	t.Cleanup(func() { lab.Output(t, "umount", dir) })
}

// TestFull fills the state directory and destinations. One message must name the full directory
// and, for the state, a remedy that works.
func TestFull(t *testing.T) {
	lab.Root(t)
	random := func(mega int) string {
		f, err := os.Open("/dev/urandom")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		data := make([]byte, mega<<20)
		if _, err := f.Read(data); err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	l := lab.New(t)
	l.Busybox()
	tmpfs(t, l.State, "24m")
	tmpfs(t, filepath.Join(l.Dir, "out"), "1m")
	l.Write("big", random(30), "mid", random(3), ".dockerignore", "out\n")
	tests := []struct {
		name, dockerfile string
		args             []string
		want             string // text in the message, in addition to the text that all have
		state            bool   // the state is full, and not the destination
	}{
		{"copy", "COPY big /", nil, "no space left on device", true},
		{"copy for a command", "COPY big /\nRUN true", nil, "no space left on device", true},
		{"a command's file", "RUN dd if=/dev/zero of=/f bs=1M count=100", nil,
			"dd if=/dev/zero", true},
		{"a file in a cache mount",
			"RUN --mount=type=cache,target=/c dd if=/dev/zero of=/c/f bs=1M count=100", nil,
			"dd if=/dev/zero", true},
		{"a layer", "RUN head -c 13000000 /dev/urandom >/f", nil, "seal the layer", true},
		{"a download", "ADD big.tar /", nil, "no space left on device", true},
		{"an archive as destination", "COPY mid /",
			[]string{"-o", "type=oci,dest=out/x.tar"}, "out/x.tar", false},
		{"a layout as destination", "COPY mid /", []string{"-o", "type=oci,tar=false,dest=out/x"},
			"no space left on device", false},
		{"a directory as destination", "COPY mid /", []string{"-o", "out/x"}, "out/x", false},
	}
	l.Write("big.tar", string(lab.Output(t, "tar", "-C", l.Dir, "-c", "big")))
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l.Run("prune", "--all")
			l.Write("Dockerfile", "FROM busybox\n"+test.dockerfile+"\n")
			tp := &template{Lab: l}
			_, log, err := tp.try("build", append([]string{"--progress=plain", "-t", "app", "."},
				test.args...)...)
			if err == nil {
				t.Fatalf("it fits\n%s", log)
			}
			i := strings.LastIndex(log, "error: ")
			if i < 0 {
				t.Fatalf("no error\n%s", log)
			}
			message := log[i:]
			const remedy = "'layerbuild prune'"
			if !strings.Contains(message, test.want) ||
				strings.Count(message, remedy) != map[bool]int{true: 1}[test.state] {
				t.Errorf("the message is %s", message)
			}
			if test.state && !strings.Contains(message, l.State+" is full") {
				t.Errorf("what is full is not named: %s", message)
			}
			if strings.Count(message, "\n") > 1 {
				t.Errorf("more than one message: %s", message)
			}
			l.Run("prune", "--all")
			lab.Output(t, "sh", "-c", "rm -rf "+filepath.Join(l.Dir, "out")+"/*")
			l.Write("Dockerfile", "FROM busybox\nRUN echo 1 >/f\n")
			l.Run("build", "-t", "app", ".")
		})
	}
	// A state without a free byte: prune makes room.
	fill := filepath.Join(l.State, "fill")
	_ = os.WriteFile(fill, make([]byte, 40<<20), 0o644)
	_, log, err := (&template{Lab: l}).try("build", "-t", "app", "--no-cache", ".")
	if err == nil || !strings.Contains(log, l.State+" is full") {
		t.Errorf("with no space at all: %v\n%s", err, log)
	}
	l.Run("prune", "--all")
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	l.Run("build", "-t", "app", ".")
}

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/test/lab"
)

// TestDockerfileThatIsNone checks that a build fails quickly if a Dockerfile, or another small file
// that a build reads, is not a regular file.
func TestDockerfileThatIsNone(t *testing.T) {
	kinds := []struct {
		name string
		make func(path string) error
		want string
	}{
		{"fifo", func(p string) error { return unix.Mkfifo(p, 0o644) }, "fifo"},
		{"directory", func(p string) error { return os.Mkdir(p, 0o755) }, "directory"},
		{"null", func(p string) error {
			return unix.Mknod(p, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3)))
		}, "device"},
		{"endless", func(p string) error {
			return unix.Mknod(p, unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5)))
		}, "device"},
		{"socket", func(p string) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Bind(fd, &unix.SockaddrUnix{Name: p})
		}, "socket"},
		{"long", func(p string) error {
			if err := os.WriteFile(p, nil, 0o644); err != nil {
				return err
			}
			return os.Truncate(p, 1<<40)
		}, "maximum allowed size of 16 MiB"},
	}
	lab.Root(t) // to make devices
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			l := lab.New(t)
			if err := k.make(filepath.Join(l.Dir, "Dockerfile")); err != nil {
				t.Fatal(err)
			}
			refused(t, build(l), k.want)
			refused(t, build(l, "-f", "Dockerfile"), k.want)

			l.Write("good", "FROM scratch\n")
			for _, ignore := range []string{".dockerignore", "good.dockerignore"} {
				path := filepath.Join(l.Dir, ignore)
				if err := k.make(path); err != nil {
					t.Fatal(err)
				}
				refused(t, build(l, "-f", "good"), k.want)
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	t.Run("endless stdin", func(t *testing.T) {
		l := lab.New(t)
		zero, err := os.Open("/dev/zero")
		if err != nil {
			t.Fatal(err)
		}
		defer zero.Close()
		cmd := build(l, "-f", "-")
		cmd.Stdin = zero
		refused(t, cmd, "maximum allowed size of 16 MiB")
		cmd = l.Command("build", "-")
		cmd.Stdin = zero
		refused(t, cmd, "maximum allowed size of 16 MiB")
	})
}

// TestValuesThatDouble checks that a value that doubles 60 times, to an exabyte, exceeds the limit
// of 64 MiB for one value, and that the error has the line.
func TestValuesThatDouble(t *testing.T) {
	tests := []struct{ name, first, next string }{
		{"arg", "ARG a=xxxxxxxxxxxxxxxx", "ARG a=${a}${a}"},
		{"arg quoted", "ARG a=xxxxxxxxxxxxxxxx", `ARG a="$a$a"`},
		{"env", "ENV a=xxxxxxxxxxxxxxxx", "ENV a=$a$a"},
		{"label", "ENV a=xxxxxxxxxxxxxxxx", "ENV a=$a$a b=$a$a$a$a"},
		{"default", "ARG a=xxxxxxxxxxxxxxxx", "ARG a=${b:-$a$a}"},
		{"replacement", "ARG a=xxxxxxxxxxxxxxxx", "ARG a=${a//x/xx}"},
		{"replacement by itself", "ARG a=xxxxxxxxxxxxxxxx", "ARG a=${a//x/$a}"},
		{"two names", "ARG a=xxxxxxxxxxxxxxxx", "ARG b=$a$a a=$a$a"},
		{"workdir", "ENV a=xxxxxxxxxxxxxxxx", "ENV a=$a$a\nWORKDIR $a"},
	}
	for i, tt := range tests {
		calls := [][]string{nil, {"--check"}, {"--call=targets"}}
		if !whole() {
			calls = [][]string{nil, calls[1+i%2]}
		}
		t.Run(tt.name, func(t *testing.T) {
			for _, global := range []bool{true, false} {
				if global && !strings.HasPrefix(tt.next, "ARG") {
					continue
				}
				l := lab.New(t)
				body := tt.first + "\n" + strings.Repeat(tt.next+"\n", 60)
				if global {
					body += "FROM scratch\n"
				} else {
					body = "FROM scratch\n" + body
				}
				l.Write("Dockerfile", body)
				for _, args := range calls {
					if r := run(t, build(l, args...)); r.status == 0 && args == nil ||
						r.status != 0 && (!strings.Contains(r.log+r.stdout, " MiB") ||
							!strings.Contains(r.log+r.stdout, "Dockerfile:")) {
						t.Errorf("global %v, %q: status %d, want a failure that names the line and the limit\n%.2000s%.2000s", global, args, r.status, r.log, r.stdout)
					}
				}
			}
		})
	}
}

// TestLongDockerfiles checks that many lines and long lines are accepted as long as the file is
// below its limit.
func TestLongDockerfiles(t *testing.T) {
	l := lab.New(t)
	var b strings.Builder
	b.WriteString("FROM scratch\n")
	for i := range 9000 {
		fmt.Fprintf(&b, "LABEL l%d=%d\n", i%100, i)
	}
	l.Write("Dockerfile", b.String())
	accepted(t, build(l))
	l.Write("Dockerfile", "FROM scratch\nLABEL a="+strings.Repeat("x", 15<<20)+"\n")
	run(t, build(l))
	l.Write("Dockerfile", strings.Repeat("#", 15<<20))
	refused(t, build(l), "no instructions")
	for _, n := range []int{200_000, 5 << 20} {
		l.Write("Dockerfile", "FROM scratch\n"+strings.Repeat("\\\n", n))
		run(t, build(l))
		l.Write("Dockerfile", "FROM scratch\nCOPY <<E /x\n"+strings.Repeat("\n", n)+"E\n")
		run(t, build(l))
	}
}

package faults

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/test/lab"
)

// TestSecrets checks that a secret is in no layer, configuration, record, log or error, and is not
// visible to other processes.
func TestSecrets(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	l.Busybox()
	const secret = "correct-horse-battery-staple"
	l.Write("secret", secret, "Dockerfile", `FROM busybox
RUN --mount=type=secret,id=s,target=/a/b/c --mount=type=secret,id=e,env=TOKEN test "$(cat /a/b/c)" = "$TOKEN" && test ${#TOKEN} = 28
RUN --mount=type=secret,id=s cp /run/secrets/s /tmp/x && rm /tmp/x
RUN ! cat /proc/*/environ 2>/dev/null | grep -q TOKEN; ! ls /run/secrets /a 2>/dev/null
RUN --mount=type=secret,id=e,env=TOKEN test -n "$TOKEN" && exit 7
`)
	l.Env = append(l.Env, "FROM_ENV="+secret)
	for _, driver := range []string{"overlay", "copy"} {
		r := run(t, build(l, "--driver="+driver, "--no-cache", "--secret=id=s,src=secret",
			"--secret=id=e,env=FROM_ENV"))
		if r.status == 0 || strings.Contains(r.log+r.stdout, secret) {
			t.Errorf("status %d\n%s", r.status, r.log)
		}
		l.Write("Dockerfile.ok",
			"FROM busybox\nRUN --mount=type=secret,id=s,env=TOKEN echo $TOKEN | wc -c > /n\n")
		accepted(t, build(l, "--driver="+driver, "-f", "Dockerfile.ok", "-t", "ok",
			"--secret=id=s,src=secret"))
		if found := grep(t, l.State, secret); len(found) > 0 {
			t.Errorf("the secret is in %q", found)
		}
		for i := range l.Image("ok").Manifest.Layers {
			if plain, err := l.Image("ok").Tar(i); err != nil ||
				bytes.Contains(plain, []byte(secret)) {
				t.Errorf("the secret is in layer %d (%v)", i, err)
			}
		}
	}
}

// grep lists the files below a directory that contain a string.
func grep(t *testing.T, dir, s string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if bytes.Contains(raw, []byte(s)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestEndlessSecrets checks that a secret and a file of settings without an end are errors.
func TestEndlessSecrets(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	l.Busybox()
	l.Write("Dockerfile",
		"FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null\n")
	refused(t, build(l, "--secret=id=s,src=/dev/zero"), "secret")
	if err := unix.Mkfifo(filepath.Join(l.Dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, build(l, "--secret=id=s,src=fifo"), "secret")
	refused(t, build(l, "--secret=id=s,src="+l.Dir), "secret")
}

// TestDaemons checks that processes that a command leaves running end with the step, however they
// were started.
func TestDaemons(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	l.Busybox()
	mark := fmt.Sprint(31_000_000 + os.Getpid())
	l.Write("Dockerfile", fmt.Sprintf(`FROM busybox
RUN sleep %[1]s & setsid sleep %[1]s & (trap '' HUP TERM INT; sleep %[1]s) & (setsid sh -c 'sleep %[1]s & exec sleep %[1]s' </dev/null >/dev/null 2>&1 &) ; true
RUN for i in $(seq 300); do sleep %[1]s & done
`, mark))
	accepted(t, build(l))
	for _, p := range processes("sleep " + mark) {
		t.Errorf("left behind: %s", p)
	}
}

// TestFloods checks that a large output of a command needs no memory, and that a log that cannot be
// written does not block the command.
func TestFloods(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	l.Busybox()
	n := 100
	if whole() {
		n = 3000
	}
	l.Write("Dockerfile", fmt.Sprintf("FROM busybox\nRUN yes | head -c %[1]d000000; head -c %[1]d000000 /dev/zero; head -c %[1]d000000 /dev/zero | tr '\\0' 'x' >&2; printf '\\033]0;evil\\007'\n", n))
	for _, progress := range []string{"plain", "rawjson", "json", "quiet"} {
		r := accepted(t, l.Command("build", "--no-cache", "--progress="+progress, "."))
		if strings.Contains(r.log, "\x1b]0;evil") {
			t.Errorf("--progress=%s: a command's escape sequence reached the terminal", progress)
		}
	}
	cmd := build(l, "--no-cache")
	null, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd.Stdout = null
	run(t, cmd)
}

// TestManyLayers builds 600 layers, and builds on them with a limit of open files that is lower
// than the number of layers.
func TestManyLayers(t *testing.T) {
	lab.Root(t)
	l := lab.New(t)
	l.Busybox()
	var b strings.Builder
	b.WriteString("FROM scratch\n")
	for i := range 600 {
		fmt.Fprintf(&b, "COPY <<E /f%d\n%d\nE\n", i, i)
	}
	l.Write("Dockerfile", b.String(), "Dockerfile.on",
		"FROM many\nRUN --mount=from=busybox,source=/bin,target=/bin test $(ls / | grep -c '^f[0-9]') = 600 && rm /f5\n")
	l.Prefix = []string{"sh", "-c", `ulimit -n 512 && exec "$@"`, "sh"}
	// The check walks the merged directory of each step, which is quadratic here: 84 s of CPU of
	// 94.
	l.Env = append(l.Env, "LAYERBUILD_CHECK_LAYERS=")
	accepted(t, build(l, "-t", "many"))
	accepted(t, build(l, "-f", "Dockerfile.on", "-t", "on"))
	if n := len(l.Image("on").Manifest.Layers); n != 601 {
		t.Errorf("%d layers, want 601", n)
	}
	if got := l.Layer("on", -1); got != "whiteout f5\n" {
		t.Errorf("the last layer is\n%s", got)
	}
}

// TestOddNames checks that COPY, RUN and layers keep every valid name unchanged, and that a name
// that a layer cannot hold is omitted with a warning and does not have another meaning in the
// image.
func TestOddNames(t *testing.T) {
	lab.Root(t)
	names := []string{"a\nb", "-rf", "--", "*", "?[", "a b", "\xff\xfe", "é",
		strings.Repeat("n", 255), "'", "\"", "\\", "$HOME", "\x01\x7f", "...", " ", "a\tb", "%s",
		".wh", ".w", "wh.", "#x", "!y", "~"}
	for _, driver := range []string{"overlay", "copy"} {
		t.Run(driver, func(t *testing.T) {
			l := lab.New(t)
			l.Busybox()
			for _, n := range names {
				l.Write("src/"+n, n)
			}
			l.Write("Dockerfile", "FROM busybox AS made\nCOPY src /one/\nRUN mkdir /two && cp -a /one/. /two/\nFROM scratch\nCOPY --from=made /two /three\n")
			accepted(t, build(l, "--driver="+driver, "-o", "out"))
			got, err := os.ReadDir(filepath.Join(l.Dir, "out/three"))
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(names) {
				t.Errorf("%d names, want %d: %q", len(got), len(names), got)
			}
			for _, n := range names {
				if raw, err := os.ReadFile(filepath.Join(l.Dir, "out/three", n)); err != nil ||
					string(raw) != n {
					t.Errorf("%q is %q, %v", n, raw, err)
				}
			}
			for _, n := range []string{".wh.x", ".wh..wh..opq", ".wh.", ".wh..wh.plnk"} {
				l.Write("Dockerfile", "FROM busybox\nRUN mkdir /d && echo 1 > /d/x\n"+
					"RUN echo 2 > '/d/"+n+"' && echo 3 > /d/y\n")
				if r := accepted(t, build(l, "--driver="+driver, "-t", "x")); n != ".wh..wh..opq" &&
					!strings.Contains(r.log, "d/"+n+": left out: a layer marks a removed file") {
					// the driver may remove files of that name as its marks, without a warning.
					t.Errorf("no warning about %s\n%s", n, r.log)
				}
				if got := l.Layer("x", -1); !strings.HasSuffix(got, "file d/y 0644 \"3\\n\"\n") ||
					strings.Contains(got, "opaque") || strings.Contains(got, "whiteout") {
					t.Errorf("the layer of a step that makes %s is\n%s", n, got)
				}
			}
		})
	}
}

// TestSwappedMounts checks that a step cannot reach files outside the image by replacing
// directories that are mount points or mount sources of later steps by links.
func TestSwappedMounts(t *testing.T) {
	lab.Root(t)
	for _, driver := range []string{"overlay", "copy"} {
		t.Run(driver, func(t *testing.T) {
			l := lab.New(t)
			l.Busybox()
			out := t.TempDir()
			if err := os.WriteFile(filepath.Join(out, "secret"),
				[]byte("secret"), 0o644); err != nil {
				t.Fatal(err)
			}
			l.Write("f", "inside", "s", "shh")
			const evil = "FROM busybox AS evil\nRUN ln -s OUT /src && ln -s ../../../../../../../..OUT /rel && ln -s OUT/secret /file\n"
			const swapped = "FROM busybox\nRUN ln -s OUT /target && ln -s OUT/secret /newfile && mkdir -p /run && ln -s OUT /run/secrets\n"
			// The targets of these mounts are links to paths outside. The command must see the
			// mount, or the files of the image there.
			for _, line := range []string{
				"RUN --mount=type=cache,target=/target/c echo x >/target/c/f && ! ls /target/secret",
				"RUN --mount=type=tmpfs,target=/target/t echo x >/target/t/f && ! ls /target/secret",
				`RUN --mount=type=bind,source=f,target=/newfile test "$(cat /newfile)" = inside`,
				`RUN --mount=type=secret,id=s test "$(cat /run/secrets/s)" = shh && ! ls /run/secrets/secret`,
				"RUN --mount=type=cache,id=c,target=/c rm -rf /c/d; ln -s OUT /c/d",
				"WORKDIR /target/w",
				"COPY f /target/copied",
				"COPY f /newfile",
				"RUN ! ls OUT/secret && while true; do ln -sfn OUT /x; mkdir -p /y; ln -sfn /y /x; done & sleep 0.2",
			} {
				l.Write("Dockerfile", strings.ReplaceAll(swapped+line+"\n", "OUT", out))
				if r := run(t, build(l, "--driver="+driver, "--secret=id=s,src=s")); r.status != 0 {
					t.Errorf("%s: status %d\n%s", line, r.status, tail(r.log))
				}
			}
			first := strings.ReplaceAll(evil, "OUT", out)
			for _, line := range []string{
				"RUN --mount=from=evil,source=/src,target=/m cat /m/secret",
				"RUN --mount=from=evil,source=/rel,target=/m cat /m/secret",
				"RUN --mount=from=evil,source=/file,target=/m cat /m",
				"RUN --mount=type=cache,id=c,source=d,target=/m cat /m/secret",
				"COPY --from=evil /src/secret /x",
				"COPY --from=evil /file /x",
				"COPY --from=evil /rel/secret /x",
			} {
				l.Write("Dockerfile.m", first+"FROM busybox\n"+line+"\nRUN ! grep -r secret /x\n")
				if r := run(t, build(l, "-f", "Dockerfile.m", "--driver="+driver)); r.status == 0 ||
					!strings.Contains(r.log, "DONE") {
					t.Errorf("%s succeeds, or nothing was run\n%s", line, tail(r.log))
				}
			}
			if names, err := os.ReadDir(out); err != nil || len(names) != 1 {
				t.Errorf("outside of the image there is %v, %v", names, err)
			}
			if text, err := os.ReadFile(filepath.Join(out, "secret")); err != nil ||
				string(text) != "secret" {
				t.Errorf("the file outside of the image has %q, %v", text, err)
			}
			clean(t, l)
		})
	}
}

// TestSpecialFiles checks that special files that a step makes are not opened afterwards, since
// reading from them could block.
func TestSpecialFiles(t *testing.T) {
	lab.Root(t)
	lab.Need(t, "python3")
	l := lab.New(t)
	l.Busybox()
	for _, driver := range []string{"overlay", "copy"} {
		l.Write("Dockerfile", "FROM busybox AS a\nRUN mkfifo /p && mknod /c c 1 5 && mknod /b b 7 0 && ! cat /b 2>/dev/null; true\nFROM busybox\nCOPY --from=a / /from\nRUN ls -l /from/p /from/c; ! mount -t tmpfs none /mnt; ! mknod /sda b 8 0 || ! cat /sda\n")
		run(t, build(l, "--driver="+driver, "-t", "special"))
		clean(t, l)
	}
	// Special files in the context.
	if err := unix.Mkfifo(filepath.Join(l.Dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mknod", filepath.Join(l.Dir, "zero"), "c", "1",
		"5").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	l.Write("Dockerfile", "FROM scratch\nCOPY . /\n")
	run(t, build(l))
	l.Write("Dockerfile", "FROM scratch\nCOPY zero fifo /d/\n")
	run(t, build(l))
}

package rootless

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/test/lab"
)

// deviceTar returns an archive with device nodes of all kinds, which a user may not make.
func deviceTar(t *testing.T, more ...tar.Header) string {
	t.Helper()
	var entries []imagetest.Entry
	headers := append([]tar.Header{
		{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "d/dev/", Mode: 0o755},
		{Typeflag: tar.TypeChar, Name: "d/dev/console", Mode: 0o600, Devmajor: 5, Devminor: 1},
		{Typeflag: tar.TypeChar, Name: "d/dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeBlock, Name: "d/dev/sda", Mode: 0o660, Devmajor: 8, Devminor: 0},
		{Typeflag: tar.TypeBlock, Name: "d/dev/large", Mode: 0, Devmajor: 259, Devminor: 70000},
		{Typeflag: tar.TypeLink, Name: "d/dev/same", Linkname: "d/dev/sda"},
		{Typeflag: tar.TypeFifo, Name: "d/dev/pipe", Mode: 0o622},
		{Typeflag: tar.TypeReg, Name: "d/file", Mode: 0o644, Size: 5},
		{Typeflag: tar.TypeReg, Name: "d/caps", Mode: 0o755, Size: 5, PAXRecords: map[string]string{
			"SCHILY.xattr.user.note": "kept", "SCHILY.xattr.user.layerbuild.device": "c 1:1",
			"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		}},
	}, more...)
	for _, h := range headers {
		h.ModTime = time.Unix(1500000000, 0)
		entries = append(entries, imagetest.TarFile(h, "hello"[:h.Size]))
	}
	return string(imagetest.Tar(t, entries...))
}

// deviceFiles are Dockerfiles. Each must have the same digest as for root, with every driver.
var deviceFiles = map[string]string{
	"add":                  "FROM scratch\nADD devices.tar /\n",
	"add below":            "FROM busybox\nADD devices.tar /rootfs/\nRUN echo x >/x\n",
	"add twice":            "FROM scratch\nADD devices.tar /\nADD other.tar /\n",
	"add over files":       "FROM busybox\nRUN mkdir -p /d/dev/console /d/dev/null && echo old >/d/dev/sda && : >/d/dev/large && chmod 0 /d/dev/large && touch -d @1500000000 /d/dev/large\nRUN rmdir /d/dev/console /d/dev/null\nADD devices.tar /\n",
	"remove":               "FROM busybox\nADD devices.tar /\nRUN rm /d/dev/null /d/dev/same\n",
	"remove all":           "FROM busybox\nADD devices.tar /\nRUN rm -r /d/dev\n",
	"make anew":            "FROM busybox\nADD devices.tar /\nRUN rm -r /d/dev && mkdir -p /d/dev && echo x >/d/dev/null\n",
	"make anew empty":      "FROM busybox\nADD devices.tar /\nRUN rm -r /d/dev && mkdir /d/dev\n",
	"replace":              "FROM busybox\nADD devices.tar /\nRUN rm /d/dev/null && echo file >/d/dev/null && rm /d/dev/console && mkdir /d/dev/console\n",
	"change":               "FROM busybox\nADD devices.tar /\nRUN chmod 0444 /d/dev/console && touch -d @1400000000 /d/dev/null\n",
	"move":                 "FROM busybox\nADD devices.tar /\nRUN mv /d/dev/console /d/tty\nRUN mv /d/dev/null /d/dev/zero\n",
	"no change":            "FROM busybox\nADD devices.tar /\nRUN chmod 0666 /d/dev/null && touch -r /d/dev/console /d/dev/console\n",
	"beside":               "FROM busybox\nADD devices.tar /\nRUN echo x >/d/dev/x && ln -s null /d/dev/link\n",
	"from stage":           "FROM scratch AS a\nADD devices.tar /\nFROM scratch\nCOPY --from=a / /\n",
	"from stage below":     "FROM scratch AS a\nADD devices.tar /\nFROM busybox\nCOPY --from=a /d /copied/\nRUN echo x >/x\nCOPY --from=a /d/dev/n* /d/dev/console /some/\n",
	"from stage to name":   "FROM scratch AS a\nADD devices.tar /\nFROM busybox\nCOPY --from=a /d/dev/null /zero\n",
	"from stage with mode": "FROM scratch AS a\nADD devices.tar /\nFROM busybox\nCOPY --from=a --chmod=0640 /d/dev /copied/\n",
	"from stage linked":    "FROM scratch AS a\nADD devices.tar /\nFROM busybox\nCOPY --from=a --link /d /copied/\n",
	"three stages":         "FROM scratch AS a\nADD devices.tar /\nFROM scratch AS b\nCOPY --from=a / /x/\nFROM b AS c\nCOPY --from=b /x/d/dev /y/\nFROM scratch\nCOPY --from=c / /\n",
	"add linked":           "FROM busybox\nADD --link devices.tar /\n",
	"from context":         "FROM busybox\nCOPY nodes /copied/\nRUN echo x >/x\nCOPY --chmod=0604 nodes/block /other/\nCOPY nodes/char /name\n",
	"from context only":    "FROM scratch\nCOPY nodes /copied/\n",
	"from base":            "FROM devices\nRUN rm /d/dev/null\n",
	"from base copied":     "FROM busybox\nCOPY --from=devices / /there/\nRUN echo x >/x\n",
}

// deviceLab returns a lab with the archives in its context and an image with devices in its
// registry.
func deviceLab(t *testing.T) *lab.Lab {
	l := lab.New(t)
	l.Busybox()
	l.Write("devices.tar", deviceTar(t), "other.tar", deviceTar(t,
		tar.Header{Typeflag: tar.TypeChar, Name: "d/file", Mode: 0o600, Devmajor: 5, Devminor: 2},
		tar.Header{Typeflag: tar.TypeReg, Name: "d/dev/console", Mode: 0o600},
		tar.Header{Typeflag: tar.TypeDir, Name: "d/dev/null", Mode: 0o700}))
	nodes := filepath.Join(l.Dir, "nodes")
	if err := os.Mkdir(nodes, 0o755); err != nil {
		t.Fatal(err)
	}
	lab.Output(t, "mknod", "--mode=0640", nodes+"/char", "c", "5", "1")
	lab.Output(t, "mknod", "--mode=0600", nodes+"/block", "b", "8", "1")
	l.Write("nodes/file", "x")
	for _, name := range []string{"char", "block", "file", "."} {
		if err := os.Chtimes(filepath.Join(nodes, name), time.Unix(1600000000, 0),
			time.Unix(1600000000, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range deviceFiles {
		l.Write("Dockerfile."+strings.ReplaceAll(name, " ", "-"), text)
	}
	l.Write("Dockerfile.base", "FROM busybox\nADD devices.tar /\nRUN echo base >/base\n")
	l.Env = append(l.Env, "SOURCE_DATE_EPOCH=1700000000")
	return l
}

func buildDevices(l *lab.Lab, name string, flags ...string) string {
	name = strings.ReplaceAll(name, " ", "-")
	args := append([]string{"-f", "Dockerfile." + name, "-t", name, "--build-context",
		"devices=oci-layout://base"}, flags...)
	l.Run("build", append(args, ".")...)
	return l.Image(name).Descriptor.Digest.String()
}

func TestDevices(t *testing.T) {
	lab.Root(t)
	root := deviceLab(t)
	root.Run("build", "-f", "Dockerfile.base", "-o", "type=oci,dest=base,tar=false", ".")
	var names []string
	for name := range deviceFiles {
		names = append(names, name)
	}
	slices.Sort(names)
	want := map[string]string{}
	for _, name := range names {
		want[name] = buildDevices(root, name)
	}
	for _, driver := range []string{"overlay", "copy"} {
		for _, ranges := range []bool{true, false} {
			t.Run(driver+map[bool]string{true: " range", false: " single id"}[ranges],
				func(t *testing.T) {
					user := lab.User(t, ranges)
					l := deviceLab(t)
					if err := os.CopyFS(filepath.Join(l.Dir, "base"),
						os.DirFS(filepath.Join(root.Dir, "base"))); err != nil {
						t.Fatal(err)
					}
					l.As(user)
					if driver == "fuse-overlayfs" {
						l.Fuse()
					}
					for _, name := range names {
						for _, again := range []string{"cold", "cached"} {
							if got := buildDevices(l, name, "--driver="+driver); got != want[name] {
								file := strings.ReplaceAll(name, " ", "-")
								t.Errorf("%s, %s: the digest is %s, not root's %s", name,
									again, got, want[name])
								for n := range root.Image(file).Manifest.Layers {
									if diff := cmp.Diff(root.Layer(file, n),
										l.Layer(file, n)); diff != "" {
										t.Errorf("layer %d (-root +user)\n%s", n, diff)
									}
								}
								break
							}
						}
					}
				})
		}
	}
}

// TestDevicesWarn checks that there is one warning for each step that makes device nodes, and that
// all outputs contain the devices, except a directory, in which they cannot be made.
func TestDevicesWarn(t *testing.T) {
	lab.Root(t)
	root, l := deviceLab(t), deviceLab(t)
	// The RUN changes nothing, and its text is in no image.
	file := "FROM busybox\nADD devices.tar /\nRUN echo x >/x\nRUN test -f /d/dev/null && test ! -s /d/dev/null\nFROM scratch\nCOPY --from=0 / /\n"
	root.Write("Dockerfile", strings.Replace(file,
		"RUN test -f /d/dev/null && test ! -s /d/dev/null", "RUN test -c /d/dev/null", 1))
	l.Write("Dockerfile", file)
	l.As(lab.User(t, true))
	output := func(l *lab.Lab, args ...string) string {
		cmd := l.Command("build", append(args, ".")...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	const warning = "device nodes cannot be made without root (4, the first is d/dev/console): " +
		"the image has them"
	if got := output(l, "--progress=plain"); strings.Count(got, "WARN: "+warning) != 1 ||
		strings.Count(got, "WARN: ") != 1 {
		t.Errorf("want one warning, %q, in\n%s", warning, got)
	}
	if got := output(l, "--progress=plain"); strings.Contains(got, "device nodes") {
		t.Errorf("a cached build warns again:\n%s", got)
	}
	for _, o := range []string{"type=tar,dest=out", "type=oci,dest=out", "type=docker,dest=out"} {
		output(root, "-o", o)
		output(l, "-o", o)
		want, err := os.ReadFile(filepath.Join(root.Dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(l.Dir, "out"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("-o %s: the output of the user differs from that of root (%v)", o, err)
		}
	}
	got := output(l, "-o", "type=local,dest=dir")
	if !strings.Contains(got, "device 5:1 1 times (first d/dev/console") {
		t.Errorf("no warning about the devices that a directory cannot have:\n%s", got)
	}
	if _, err := os.Lstat(filepath.Join(l.Dir, "dir/d/dev/console")); !os.IsNotExist(err) {
		t.Errorf("a placeholder in an exported directory: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(l.Dir, "dir/d/dev/pipe")); err != nil {
		t.Error(err)
	}
}

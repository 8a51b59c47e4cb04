package soundness

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/test/lab"
)

// bench holds the parts that the rounds of a test share.
type bench struct {
	*prepared
	lab          *lab.Lab
	uid, gid     int // ids of the user who builds; 0: the user who runs the tests
	begun, built atomic.Int64
	web          string // the directory that url serves
	url          string
	socket       string // the socket for --ssh
	secret       string // a file for --secret
}

// prepared has the parts that the benches of one user share. The first bench makes them, and they
// do not change afterwards.
type prepared struct {
	dir     string
	drivers []string
	// by driver, a state directory that has the base images and nothing else
	template map[string]string
	images   string // a directory of layouts, each named after its stage in baseImages
}

// preparedFor has the prepared parts by user; "" is the user who runs the tests.
var preparedFor = map[string]*prepared{}

func removePrepared() {
	for _, p := range preparedFor {
		if err := removeAll(p.dir); err != nil {
			fmt.Fprintln(os.Stderr, "clean up:", err)
		}
	}
}

// baseImages are images that stages begin with. base is the usual one. Each other image differs
// from it in one property. The times of the files in them are those of the builds, since an image
// that was built with an epoch has no other times.
const baseImages = `FROM busybox AS base
RUN mkdir /o && mkdir -m 0777 /o/p && mkdir -m 0700 /o/p/to && chown 1:1 /o/p/to && ln -s to /o/p/link && echo 1 >/o/p/img && echo /o/p/img >/etc/new
ENV I=1
WORKDIR /tmp
WORKDIR /o/p
FROM busybox AS content
RUN mkdir /o && mkdir -m 0777 /o/p && mkdir -m 0700 /o/p/to && chown 1:1 /o/p/to && ln -s to /o/p/link && echo 2 >/o/p/img && echo /o/p/img >/etc/new
ENV I=1
WORKDIR /tmp
WORKDIR /o/p
FROM busybox AS common
RUN mkdir /o && mkdir -m 0777 /o/p && mkdir -m 0700 /o/p/to && chown 1:1 /o/p/to && ln -s to /o/p/link && echo 1 >/o/p/img && echo /o/p/img >/etc/new
FROM common AS env
ENV I=2
WORKDIR /tmp
WORKDIR /o/p
FROM common AS dir
ENV I=1
WORKDIR /o/p
WORKDIR /tmp
FROM base AS user
USER 1000
FROM base AS shell
SHELL ["/bin/sh", "-e", "-c"]
FROM base AS trigger
ONBUILD RUN echo trigger >/o/p/trigger
`

// newBench prepares state directories, in memory if there is room. asUser is "" for the user who
// runs the tests.
func newBench(t *testing.T, asUser string) *bench {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &fs); err == nil && fs.Flags&unix.ST_NOEXEC == 0 &&
		fs.Bavail*uint64(fs.Bsize) > 1<<29 {
		lab.Binary(t) // build the program before, so that it is not in /dev/shm
		t.Setenv("TMPDIR", "/dev/shm")
	}
	b := &bench{lab: lab.New(t)}
	t.Cleanup(func() { t.Logf("%d of %d builds made an image", b.built.Load(), b.begun.Load()) })
	b.lab.Busybox()
	if asUser != "" {
		u, err := user.Lookup(asUser)
		if err != nil {
			t.Fatal(err)
		}
		b.uid, _ = strconv.Atoi(u.Uid)
		b.gid, _ = strconv.Atoi(u.Gid)
		b.lab.As(asUser)
	}
	// A build is too short for garbage collections to pay off.
	b.lab.Env = append(b.lab.Env, "SOURCE_DATE_EPOCH="+strconv.Itoa(firstEpoch), "GOGC=off")
	b.serve(t)
	if b.prepared = preparedFor[asUser]; b.prepared == nil {
		b.prepare(t, asUser)
	} else if len(b.drivers) == 0 {
		t.Fatal("a test before this one could not make the base images")
	}
	return b
}

// prepare makes the base images and the templates.
func (b *bench) prepare(t *testing.T, asUser string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "soundness-")
	if err != nil {
		t.Fatal(err)
	}
	p := &prepared{dir: dir, images: filepath.Join(dir, "images"), template: map[string]string{}}
	b.prepared, preparedFor[asUser] = p, p
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if b.uid > 0 {
		if err := os.Chown(dir, b.uid, b.gid); err != nil {
			t.Fatal(err)
		}
	}
	b.makeImages()
	// The template has no record of a build, only the layers of the base images. Exporting the
	// files unpacks them.
	b.lab.Write("Dockerfile", "FROM base\nLABEL a=1\n")
	for _, driver := range []string{"overlay", "copy"} {
		l := *b.lab
		l.State = filepath.Join(dir, "state-"+driver)
		if out, err := l.Command("build", "--driver="+driver, "-q", b.context("base", "base"),
			"-o", "type=tar,dest=/dev/null", ".").CombinedOutput(); err != nil {
			t.Logf("driver %s is left out: %v: %s", driver, err, out)
			continue
		}
		p.drivers, p.template[driver] = append(p.drivers, driver), l.State
	}
	if len(p.drivers) == 0 {
		t.Fatal("no driver works")
	}
}

// makeImages builds the base images.
func (b *bench) makeImages() {
	b.lab.Write("Dockerfile", baseImages)
	for line := range strings.Lines(baseImages) {
		if f := strings.Fields(line); f[0] == "FROM" {
			b.lab.Run("build", "--target="+f[3], "-o",
				"type=oci,tar=false,dest="+filepath.Join(b.images, f[3]), ".")
		}
	}
}

// context returns the flag that makes a named context of a base image.
func (b *bench) context(name, image string) string {
	return fmt.Sprintf("--build-context=%s=oci-layout://%s", name, filepath.Join(b.images, image))
}

// serve starts a web server for ADD, and makes a secret and the socket of an agent. The server
// sends the time of the last change and an entity tag with most files, only the time with the file
// late, and neither with the file h.
func (b *bench) serve(t *testing.T) {
	t.Helper()
	top := filepath.Dir(b.lab.State)
	b.web, b.secret, b.socket = filepath.Join(top, "web"), filepath.Join(top, "secret"),
		filepath.Join(top, "agent")
	if err := os.MkdirAll(b.web, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	agent, err := net.Listen("unix", b.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close() })
	files := http.FileServer(http.Dir(b.web))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		file := filepath.Join(b.web, filepath.Clean(req.URL.Path))
		raw, err := os.ReadFile(file)
		info, err2 := os.Stat(file)
		switch name := filepath.Base(file); {
		case err == nil && err2 == nil && name == "h":
			_, _ = w.Write(raw)
			return
		case err == nil && err2 == nil && name != "late":
			w.Header().Set("ETag", fmt.Sprintf(`"%x-%d"`, sha256.Sum256(raw),
				info.ModTime().Unix()))
		}
		files.ServeHTTP(w, req)
	}))
	t.Cleanup(srv.Close)
	b.url = srv.URL
}

// site is the directory of a round, with the states and inputs of its builds.
type site struct {
	*bench
	lab  *lab.Lab // for the subtest of the round
	t    *testing.T
	r    *rand.Rand
	dir  string
	log  []string // the actions so far, for a failure
	made int      // number of states and directories
}

// newSite makes the directory of a round. If the round fails, its actions are logged.
func (b *bench) newSite(t *testing.T, seed uint64) *site {
	dir, err := os.MkdirTemp(filepath.Dir(b.lab.State), "round-")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{bench: b, lab: b.lab.For(t), t: t, r: rand.New(rand.NewPCG(seed, 1)), dir: dir}
	t.Cleanup(func() { b.remove(t, dir) })
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s\n%s", t.Name(), strings.Join(s.log, "\n"))
		}
	})
	s.check(os.Chmod(dir, 0o755))
	if b.uid > 0 {
		s.check(os.Chown(dir, b.uid, b.gid))
	}
	return s
}

func (s *site) say(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

// newState copies the state directory that has the base images.
func (s *site) newState(name, driver string) string {
	state := filepath.Join(s.dir, name)
	lab.Output(s.t, "cp", "-a", s.template[driver], state)
	return state
}

// path returns a new name below the round's directory.
func (s *site) path(name string) string {
	s.made++
	return filepath.Join(s.dir, fmt.Sprintf("%s%d", name, s.made))
}

func (b *bench) remove(t *testing.T, dir string) {
	if err := removeAll(dir); err != nil {
		t.Errorf("remove what a round has left: %v", err)
	}
}

func removeAll(dir string) error {
	if os.Getuid() != 0 {
		// The user owns files of its subordinate ids only inside a user namespace.
		_ = exec.Command("unshare", "--map-root-user", "--map-auto", "rm", "-rf",
			"--one-file-system", dir).Run()
	}
	return os.RemoveAll(dir)
}

// write writes a file that belongs to the user who builds.
func (s *site) write(path, text string) {
	s.check(os.WriteFile(path, []byte(text), 0o644))
	s.give(path)
}

// give gives a file, and its directory, to the user who builds.
func (s *site) give(path string) {
	if s.uid > 0 {
		s.check(os.Lchown(path, s.uid, s.gid))
		s.check(os.Lchown(filepath.Dir(path), s.uid, s.gid))
	}
}

func (s *site) check(err error) {
	if err != nil {
		s.t.Helper()
		s.t.Fatal(err)
	}
}

// request has the inputs and options of a build.
type request struct {
	dockerfile, target string
	driver             string
	context            string
	flags              []string
	epoch              int
	// "" for an image, "zstd" for an image with zstd layers, "tar" for a tar of its files
	output      string
	umask, zone string // of the process; "": the tests' own
	// a build removes nearly everything from the state except the data that it uses
	small bool
	// layers are not compared with the file system after the step, which takes as long as the build
	unchecked bool
}

// outcome is the result of a build: a digest, or "failed".
type outcome struct {
	digest string
	state  string // the state that has the image
	image  string // the image's name in the state
	output string // output of the program
}

// command makes the command of a build. name is the name of the image and of the returned file,
// which has metadata or a tar.
func (s *site) command(state, name string, q request, flags ...string) (*exec.Cmd, string) {
	file := filepath.Join(s.dir, fmt.Sprintf("%s.Dockerfile.%s", filepath.Base(state), name))
	s.write(file, q.dockerfile)
	out := file + ".out"
	_ = os.Remove(out)
	args := []string{"--driver=" + q.driver, "--progress=plain", "-f", file, "--target=" + q.target}
	args = append(args, q.flags...)
	switch q.output {
	case "tar":
		args = append(args, "-o", "type=tar,dest="+out)
	case "zstd":
		args = append(args, "-o", "type=image,compression=zstd", "-t", name, "--metadata-file="+out)
	default:
		args = append(args, "-t", name, "--metadata-file="+out)
	}
	for _, f := range flags {
		if f != "" {
			args = append(args, f)
		}
	}
	l := *s.lab
	l.State = state
	if q.umask != "" {
		l.Prefix = append(slices.Clone(l.Prefix), "sh", "-c", "umask "+q.umask+`; exec "$0" "$@"`)
	}
	cmd := l.Command("build", append(args, q.context)...)
	cmd.Dir = s.dir
	cmd.Env = append(cmd.Env, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", q.epoch))
	if q.unchecked {
		cmd.Env = append(cmd.Env, "LAYERBUILD_CHECK_LAYERS=0")
	}
	if q.small {
		cmd.Env = append(cmd.Env, "LAYERBUILD_KEEP_STORAGE=200k")
	}
	if q.zone != "" {
		cmd.Env = append(cmd.Env, "TZ="+q.zone)
	}
	return cmd, out
}

// hangs is the time after which a command counts as hung. It is much longer than any command takes.
const hangs = 3 * time.Minute

// finish runs a command of the program to its end and returns its output. A command that hangs or
// panics fails the round.
func (s *site) finish(cmd *exec.Cmd) (string, error) {
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		s.t.Error(err)
		return "", err
	}
	stop := lab.Watch(cmd, hangs)
	err := cmd.Wait()
	if hang := stop(); hang != "" {
		s.t.Errorf("%s: %s%s", cmd, hang, log.String())
	} else if strings.Contains(log.String(), "panic: ") ||
		strings.Contains(log.String(), "fatal error: ") {
		s.t.Errorf("%s: %v\n%s", cmd, err, log.String())
	}
	return log.String(), err
}

// build builds and returns the digest of the image or of the tar.
func (s *site) build(state, name string, q request, flags ...string) outcome {
	cmd, file := s.command(state, name, q, flags...)
	s.begun.Add(1)
	output, err := s.finish(cmd)
	got := outcome{digest: "failed", state: state, image: name, output: output}
	if err != nil {
		return got
	}
	s.built.Add(1)
	raw, err := os.ReadFile(file)
	if err != nil {
		got.digest = err.Error()
		return got
	}
	if q.output == "tar" {
		sum := sha256.Sum256(raw)
		got.digest = "tar " + hex.EncodeToString(sum[:])
		return got
	}
	var meta struct {
		Digest string `json:"containerimage.digest"`
	}
	if err := json.Unmarshal(raw, &meta); err != nil || meta.Digest == "" {
		got.digest = fmt.Sprintf("metadata %s: %v", raw, err)
		return got
	}
	got.digest = meta.Digest
	s.complete(got)
	return got
}

// complete fails the round unless the state has all blobs of an image.
func (s *site) complete(o outcome) {
	img, err := imagetest.Open(filepath.Join(o.state, "oci"), o.image)
	if err != nil {
		s.t.Errorf("%s on %s: %v", o.image, filepath.Base(o.state), err)
		return
	}
	for _, l := range img.Manifest.Layers {
		info, err := os.Stat(filepath.Join(o.state, "oci/blobs/sha256", l.Digest.Encoded()))
		if err != nil || info.Size() != l.Size {
			s.t.Errorf("%s on %s has no layer %s: %v", o.image,
				filepath.Base(o.state), l.Digest, err)
		}
	}
}

// prune prunes a state.
func (s *site) prune(state, driver, flag string) {
	s.say("prune %s of %s", flag, filepath.Base(state))
	l := *s.lab
	l.State = state
	args := []string{"--driver=" + driver}
	if flag != "" {
		args = append(args, flag)
	}
	if out, err := s.finish(l.Command("prune", args...)); err != nil {
		s.t.Errorf("prune: %v: %s", err, out)
	}
}

// pruneFlags are flags of prune, each of which removes different data.
var pruneFlags = []string{"--all", "--unused=1ms", "--keep-storage=1", ""}

// kill begins a build and kills it with SIGKILL.
func (s *site) kill(state string, q request, flag string) {
	after := time.Duration(s.r.IntN(120)) * time.Millisecond
	s.say("build %s on %s, killed after %v", flag, filepath.Base(state), after)
	cmd, _ := s.command(state, "killed", q, flag)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	stop := lab.Watch(cmd, hangs)
	_ = cmd.Wait()
	timer.Stop()
	if hang := stop(); hang != "" {
		s.t.Errorf("%s: %s", cmd, hang)
	}
}

// same fails the round unless a warm build and a cold build of a request have the same result.
func (s *site) same(warm, cold outcome, q request) {
	if warm.digest == cold.digest {
		return
	}
	s.t.Errorf("the build on %s has the result %s, on %s %s\n%s", filepath.Base(warm.state),
		warm.digest, filepath.Base(cold.state), cold.digest, difference(warm, cold))
	s.t.Logf("Dockerfile:\n%s\nrequest: %+v\nwarm build:\n%s\ncold build:\n%s", q.dockerfile, q,
		warm.output, cold.output)
}

// difference describes how two images differ.
func difference(a, b outcome) string {
	images := map[string]*imagetest.Image{}
	for side, o := range map[string]outcome{"warm": a, "cold": b} {
		img, err := imagetest.Open(filepath.Join(o.state, "oci"), o.image)
		if err != nil {
			return fmt.Sprintf("%s image: %v", side, err)
		}
		images[side] = img
	}
	warm, cold := images["warm"], images["cold"]
	var s strings.Builder
	wc, _ := json.Marshal(warm.Config)
	cc, _ := json.Marshal(cold.Config)
	if !bytes.Equal(wc, cc) {
		fmt.Fprintf(&s, "warm config %s\ncold config %s\n", wc, cc)
	}
	for i := range max(len(warm.Manifest.Layers), len(cold.Manifest.Layers)) {
		we, ce := lines(warm, i), lines(cold, i)
		for _, l := range minus(we, ce) {
			fmt.Fprintf(&s, "layer %d: only warm: %s\n", i, l)
		}
		for _, l := range minus(ce, we) {
			fmt.Fprintf(&s, "layer %d: only cold: %s\n", i, l)
		}
	}
	return s.String()
}

func lines(img *imagetest.Image, i int) []string {
	if i >= len(img.Manifest.Layers) {
		return []string{"(no layer)"}
	}
	entries, err := img.Layer(i)
	if err != nil {
		return []string{err.Error()}
	}
	var list []string
	for _, e := range entries {
		list = append(list, fmt.Sprintf("%s %d:%d %d", imagetest.Lines([]imagetest.Entry{e}),
			e.Header.Uid, e.Header.Gid, e.Header.ModTime.Unix()))
	}
	return list
}

// minus returns the elements of a that are not in b.
func minus(a, b []string) []string {
	in := map[string]bool{}
	for _, l := range b {
		in[l] = true
	}
	var list []string
	for _, l := range a {
		if !in[l] {
			list = append(list, l)
		}
	}
	return list
}

package soundness

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/rounds"
	"github.com/layerbuild/layerbuild/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// TestSoundness runs rounds as the user who runs the tests.
func TestSoundness(t *testing.T) {
	name := "soundness-root"
	if os.Getuid() != 0 {
		name = "soundness-self"
		if exec.Command("unshare", "--user", "--map-root-user", "--mount", "true").Run() != nil {
			t.Skip("neither root nor user namespaces")
		}
	}
	b := newBench(t, "")
	rounds.Run(t, name, rounds.Options{Fixed: 8, Fresh: 6, Long: 2000, Found: found}, b.round)
}

// TestSoundnessUser runs rounds as an ordinary user with subordinate ids.
func TestSoundnessUser(t *testing.T) {
	b := newBench(t, lab.User(t, true))
	rounds.Run(t, "soundness-user", rounds.Options{Fixed: 3, Fresh: 3, Long: 500, Found: found}, b.round)
}

// found are the seeds of rounds that have failed.
var found = []uint64{26}

// bench is what the rounds of a test share.
type bench struct {
	lab          *lab.Lab
	uid, gid     int // of the user who builds; 0: the user who runs the tests
	drivers      []string
	begun, built atomic.Int64
	template     map[string]string // by driver, a state directory that has the base image and nothing else
}

// newBench prepares state directories, in memory if there is room. asUser is "" for the user who runs the tests.
func newBench(t *testing.T, asUser string) *bench {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &fs); err == nil && fs.Flags&unix.ST_NOEXEC == 0 && fs.Bavail*uint64(fs.Bsize) > 1<<29 {
		lab.Binary(t) // not in there
		t.Setenv("TMPDIR", "/dev/shm")
	}
	b := &bench{lab: lab.New(t), template: map[string]string{}}
	t.Cleanup(func() { t.Logf("%d of %d builds came to an image", b.built.Load(), b.begun.Load()) })
	b.lab.Busybox()
	b.lab.Write("Dockerfile", "FROM busybox\nLABEL base=1\n")
	if asUser != "" {
		u, err := user.Lookup(asUser)
		if err != nil {
			t.Fatal(err)
		}
		b.uid, _ = strconv.Atoi(u.Uid)
		b.gid, _ = strconv.Atoi(u.Gid)
		b.lab.As(asUser)
	}
	b.lab.Env = append(b.lab.Env, "SOURCE_DATE_EPOCH=1000000000", "LAYERBUILD_CHECK_LAYERS=1")
	for _, driver := range []string{"overlay", "copy"} {
		l := *b.lab
		l.State += "-" + driver
		if out, err := l.Command("build", "--driver="+driver, "-q", ".").CombinedOutput(); err != nil {
			t.Logf("driver %s is left out: %v: %s", driver, err, out)
			continue
		}
		b.drivers, b.template[driver] = append(b.drivers, driver), l.State
	}
	if len(b.drivers) == 0 {
		t.Fatal("no driver works")
	}
	return b
}

// world is one round: the inputs of a build, and the state directories on which it is built again and again.
type world struct {
	*bench
	lab *lab.Lab
	t   *testing.T
	r   *rand.Rand
	dir string

	context, named string
	stages         []*stage
	target         int
	epoch          int
	flags          map[string]string

	// What is tried in one round is a part of all there is, so that what it tries meets more often.
	commands []int  // of shellCommand
	edits    []int  // of edit
	events   []int  // of happen
	option   string // of editFlags

	driver string
	states []string
	kept   []string // directories of exported caches
	own    string   // the layout of an image that was built before, which stages may be based on; "" before there is one
	log    []string // what was done, for a failure
	colds  map[string]outcome
	ran    int  // cold states that were made
	edited int  // edits that were made
	small  bool // each build on an old state removes nearly all that it does not use itself
}

// some returns a part of the numbers below n.
func (w *world) some(n int) []int { return w.r.Perm(n)[:2+n/5] }

// outcome is what a build came to: a digest, or "failed".
type outcome struct {
	digest string
	state  string // where the image is
	image  string // its name there
	output string // what the program printed
}

// round is one round: a world, and a sequence of edits with a build after each.
func (b *bench) round(t *testing.T, seed uint64) {
	w := b.newWorld(t, seed)
	defer func() {
		if t.Failed() {
			t.Logf("%s\nfirst Dockerfile and edits:\n%s", t.Name(), strings.Join(w.log, "\n"))
		}
	}()
	w.compare(w.states[0])
	for range 4 + w.r.IntN(8) {
		for range 1 + w.r.IntN(2) {
			w.edited++
			w.say("edit %s", w.edit())
		}
		w.happen()
		if t.Failed() {
			return
		}
	}
}

func (b *bench) newWorld(t *testing.T, seed uint64) *world {
	dir, err := os.MkdirTemp(filepath.Dir(b.lab.State), "round-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.remove(t, dir) })
	w := b.newInputs(t, seed, dir)
	w.states = []string{w.newState("warm0"), w.newState("warm1")}
	if b.uid > 0 {
		w.check(os.Chown(dir, b.uid, b.gid))
	}
	w.say("driver %s, small: %v\n%s", w.driver, w.small, w.dockerfile())
	return w
}

// newInputs makes the inputs of a round's first build, below a directory.
func (b *bench) newInputs(t *testing.T, seed uint64, dir string) *world {
	w := &world{
		bench: b, lab: b.lab.For(t), t: t, r: rand.New(rand.NewPCG(seed, 1)), dir: dir,
		context: filepath.Join(dir, "context"), named: filepath.Join(dir, "named"),
		small: seed%4 == 1, epoch: 1000000000, flags: map[string]string{}, colds: map[string]outcome{},
	}
	w.check(os.Chmod(dir, 0o755))
	for _, top := range []string{w.context, w.named} {
		w.check(os.MkdirAll(filepath.Join(top, "dir/sub"), 0o755))
		for _, name := range []string{"a", "b", "file", "dir/a", "dir/sub/c"} {
			w.write(filepath.Join(top, name), name+"\n")
		}
		w.give(filepath.Join(top, "dir/sub"))
		w.give(filepath.Join(top, "dir"))
	}
	w.writeTar(filepath.Join(w.context, "t.tar"), 0)
	w.commands = w.some(commandKinds)
	w.edits = w.some(editKinds)
	w.events = w.some(eventKinds)
	w.driver = pick(w.r, b.drivers...)
	if w.r.IntN(2) == 0 {
		w.driver = b.drivers[0]
	}
	for i := range 2 + w.r.IntN(3) {
		w.stages = append(w.stages, w.newStage(i))
	}
	w.target = len(w.stages) - 1
	return w
}

func (w *world) say(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

// newState copies the state directory that has the base image.
func (w *world) newState(name string) string {
	state := filepath.Join(w.dir, name)
	if out, err := exec.Command("cp", "-a", w.template[w.driver], state).CombinedOutput(); err != nil {
		w.t.Fatalf("copy the state: %v: %s", err, out)
	}
	return state
}

func (b *bench) remove(t *testing.T, dir string) {
	if os.Getuid() != 0 {
		// Files of the user's subordinate ids are only its own inside a user namespace.
		_ = exec.Command("unshare", "--map-root-user", "--map-auto", "rm", "-rf", "--one-file-system", dir).Run()
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Errorf("remove what a round has left: %v", err)
	}
}

// eventKinds are the cases of happen.
const eventKinds = 11

// happen builds, after something has happened to the state, or while something does.
func (w *world) happen() {
	r := w.r
	state := w.states[0]
	if r.IntN(4) == 0 {
		state = w.states[1]
	}
	filter := fmt.Sprintf("--no-cache-filter=s%d", r.IntN(len(w.stages)))
	switch pick(r, w.events...) {
	case 0:
		w.compare(state, "--no-cache")
	case 1:
		w.compare(state, filter)
	case 2:
		w.prune(state, pick(r, "--all", "--unused=1ms", "--keep-storage=1", ""))
	case 3:
		w.kill(state, pick(r, "", "--no-cache", filter))
	case 4:
		w.twoAtOnce(state)
	case 5, 6:
		w.export(state)
	case 7, 8:
		w.carried(state, pick(r, "", "", "", filter))
	case 9:
		w.publish(state)
	case 10:
		w.driver, w.kept = pick(r, w.drivers...), nil // layers of two drivers may differ where a hard link was changed
		w.say("driver %s", w.driver)
	}
	w.compare(state)
}

// carried builds with results that were exported, mostly on a new state.
func (w *world) carried(state, flag string) {
	r := w.r
	if len(w.kept) == 0 {
		w.export(w.states[0])
	}
	if len(w.kept) == 0 {
		return
	}
	args := []string{flag, "--cache-from=type=local,src=" + pick(r, w.kept...)}
	if r.IntN(3) == 0 {
		args = append(args, "--cache-from=type=local,src="+pick(r, w.kept...))
	}
	if r.IntN(4) > 0 {
		w.check(os.RemoveAll(w.states[1])) // another machine
		w.states[1] = w.newState("warm1")
		state = w.states[1]
	}
	w.compare(state, args...)
	w.compare(state)
}

// prune prunes a state.
func (w *world) prune(state, flag string) {
	w.say("prune %s of %s", flag, filepath.Base(state))
	l := *w.lab
	l.State = state
	args := []string{"--driver=" + w.driver}
	if flag != "" {
		args = append(args, flag)
	}
	if out, err := w.finish(l.Command("prune", args...)); err != nil {
		w.t.Errorf("prune: %v: %s", err, out)
	}
}

// kill begins a build and kills it with SIGKILL.
func (w *world) kill(state, flag string) {
	after := time.Duration(w.r.IntN(120)) * time.Millisecond
	w.say("build %s on %s, killed after %v", flag, filepath.Base(state), after)
	cmd, _ := w.command(state, "killed", flag)
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	stop := lab.Watch(cmd, hangs)
	_ = cmd.Wait()
	timer.Stop()
	if hang := stop(); hang != "" {
		w.t.Errorf("%s: %s", cmd, hang)
	}
}

// export leaves the results of steps in a directory, as an artifact of their own or inside an image.
func (w *world) export(state string) {
	dir := filepath.Join(w.dir, fmt.Sprintf("kept%d", len(w.kept)))
	args := []string{"--cache-to=type=local,dest=" + dir + pick(w.r, "", ",mode=max")}
	if w.r.IntN(3) == 0 {
		args = []string{"--cache-to=type=inline", "-o", "type=oci,tar=false,dest=" + dir}
	}
	w.say("build on %s with %s", filepath.Base(state), strings.Join(args, " "))
	cmd, _ := w.command(state, "export", args...)
	if out, err := w.finish(cmd); err != nil {
		w.say("failed: %s", out)
		return
	}
	w.kept = append(w.kept, dir)
}

// publish builds an image that stages may be based on.
func (w *world) publish(state string) {
	dir := filepath.Join(w.dir, fmt.Sprintf("own%d", w.ran))
	w.ran++
	w.say("edit: publish an image from %s with epoch %d", filepath.Base(state), w.epoch)
	cmd, _ := w.command(state, "own", "-o", "type=oci,tar=false,dest="+dir)
	if out, err := w.finish(cmd); err != nil {
		w.say("failed: %s", out)
		return
	}
	if w.stages[w.target].shell {
		w.own = dir
		w.edited++
	}
}

// twoAtOnce builds two things at the same time on one state.
func (w *world) twoAtOnce(state string) {
	r := w.r
	other := *w
	other.flags = map[string]string{}
	for k, v := range w.flags {
		other.flags[k] = v
	}
	other.target = r.IntN(len(w.stages))
	if r.IntN(2) == 0 {
		other.flags["A"] = "--build-arg=A=2"
	}
	flags := [2]string{pick(r, "", "--no-cache"), pick(r, "", "", "--no-cache")}
	w.say("two builds at once on %s: %q, and target s%d %q", filepath.Base(state), flags[0], other.target, flags[1])
	var got [2]outcome
	var wg sync.WaitGroup
	for i, each := range []*world{w, &other} {
		wg.Go(func() { got[i] = each.build(state, fmt.Sprintf("at-once-%d", i), flags[i]) })
	}
	wg.Wait()
	w.same(got[0], w.cold(), state)
	other.colds = w.colds
	other.same(got[1], other.cold(), state)
}

// compare builds on a state and compares with the build on a new one.
func (w *world) compare(state string, flags ...string) {
	w.say("build on %s %s", filepath.Base(state), strings.Join(flags, " "))
	w.same(w.build(state, "warm", flags...), w.cold(), state)
}

func (w *world) same(warm, cold outcome, state string) {
	if warm.digest == cold.digest {
		return
	}
	w.t.Errorf("on %s the build came to %s, on a new state to %s\n%s", filepath.Base(state), warm.digest, cold.digest, w.difference(warm, cold))
	w.t.Logf("Dockerfile:\n%s\nflags: %q target s%d epoch %d\nwarm build:\n%s\ncold build:\n%s", w.dockerfile(), w.flags, w.target, w.epoch, warm.output, cold.output)
}

// cold builds on a new state. The outcome of equal inputs is remembered while the context stays as it is.
func (w *world) cold() outcome {
	key := fmt.Sprint(w.edited, w.target, w.epoch, w.flags)
	if have, ok := w.colds[key]; ok {
		return have
	}
	w.ran++
	state := w.newState(fmt.Sprintf("cold%d", w.ran))
	got := w.build(state, "cold")
	w.colds[key] = got
	return got
}

// command makes the command of a build. name is for the image, and for the file that is returned: metadata, or a tar.
func (w *world) command(state, name string, flags ...string) (*exec.Cmd, string) {
	file := filepath.Join(w.dir, fmt.Sprintf("%s.Dockerfile.%s", filepath.Base(state), name))
	w.write(file, w.dockerfile())
	out := file + ".out"
	_ = os.Remove(out)
	args := []string{"--driver=" + w.driver, "--progress=plain", "-f", file, fmt.Sprintf("--target=s%d", w.target), "--build-context=x=" + w.named}
	if w.own != "" {
		args = append(args, "--build-context=own=oci-layout://"+w.own)
	}
	for _, v := range w.flags {
		if strings.HasPrefix(v, "--") {
			args = append(args, v)
		}
	}
	switch w.flags["output"] {
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
	l := *w.lab
	l.State = state
	if mask := w.flags["umask"]; mask != "" {
		l.Prefix = append(slices.Clone(l.Prefix), "sh", "-c", "umask "+mask+`; exec "$0" "$@"`)
	}
	cmd := l.Command("build", append(args, w.context)...)
	cmd.Dir = w.dir
	cmd.Env = append(cmd.Env, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", w.epoch))
	if w.small {
		cmd.Env = append(cmd.Env, "LAYERBUILD_KEEP_STORAGE=200k")
	}
	if zone := w.flags["zone"]; zone != "" {
		cmd.Env = append(cmd.Env, "TZ="+zone)
	}
	return cmd, out
}

// hangs is far more time than a command takes: one that takes longer hangs.
const hangs = 3 * time.Minute

// finish runs a command of the program to its end and returns what it printed. A command that hangs or panics fails the round.
func (w *world) finish(cmd *exec.Cmd) (string, error) {
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		w.t.Error(err)
		return "", err
	}
	stop := lab.Watch(cmd, hangs)
	err := cmd.Wait()
	if hang := stop(); hang != "" {
		w.t.Errorf("%s: %s%s", cmd, hang, log.String())
	} else if strings.Contains(log.String(), "panic: ") || strings.Contains(log.String(), "fatal error: ") {
		w.t.Errorf("%s: %v\n%s", cmd, err, log.String())
	}
	return log.String(), err
}

// build builds and returns the image's digest, or that of the tar.
func (w *world) build(state, name string, flags ...string) outcome {
	cmd, file := w.command(state, name, flags...)
	w.begun.Add(1)
	output, err := w.finish(cmd)
	got := outcome{digest: "failed", state: state, image: name, output: output}
	if err != nil {
		return got
	}
	w.built.Add(1)
	raw, err := os.ReadFile(file)
	if err != nil {
		got.digest = err.Error()
		return got
	}
	if w.flags["output"] == "tar" {
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
	return got
}

// difference describes how two images differ.
func (w *world) difference(a, b outcome) string {
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
		list = append(list, fmt.Sprintf("%s %d:%d %d", imagetest.Lines([]imagetest.Entry{e}), e.Header.Uid, e.Header.Gid, e.Header.ModTime.Unix()))
	}
	return list
}

// minus returns what is in a and not in b.
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

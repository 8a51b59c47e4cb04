package soundness

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/layerbuild/layerbuild/internal/rounds"
	"github.com/layerbuild/layerbuild/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m, removePrepared) }

// ledger returns the name of a test's ledger for the user who runs the tests, and skips the test if
// the user cannot build.
func ledger(t *testing.T, name string) string {
	if os.Getuid() == 0 {
		return name + "-root"
	}
	if exec.Command("unshare", "--user", "--map-root-user", "--mount", "true").Run() != nil {
		t.Skip("neither root nor user namespaces")
	}
	return name + "-self"
}

// TestSoundness runs rounds as the user who runs the tests.
func TestSoundness(t *testing.T) {
	name := ledger(t, "soundness")
	b := newBench(t, "")
	rounds.Run(t, name, rounds.Options{Fixed: 3, Fresh: 2, Long: 600, Found: found}, b.round)
	b.succeeds(t)
}

// TestSoundnessUser runs rounds as an ordinary user with subordinate ids.
func TestSoundnessUser(t *testing.T) {
	b := newBench(t, lab.User(t, true))
	rounds.Run(t, "soundness-user", rounds.Options{Fixed: 1, Fresh: 1, Long: 200, Found: found},
		b.round)
	b.succeeds(t)
}

// found are the seeds of rounds that have failed.
var found = []uint64{}

// succeeds fails the test if more than a few builds have failed: builds that fail in the same way
// test nothing.
func (b *bench) succeeds(t *testing.T) {
	begun, built := b.begun.Load(), b.built.Load()
	if begun >= 50 && built*100 < begun*85 {
		t.Errorf("only %d of %d builds made an image", built, begun)
	}
}

// world is the state of a round: the inputs of a build, and the state directories on which it is
// built again and again.
type world struct {
	*site
	context, named string
	stages         []*stage
	target         int
	epoch          int
	flags          map[string]string

	// A round uses only some of the commands, edits and events, so that the same ones follow each
	// other more often.
	commands []int  // of shellCommand
	edits    []int  // of edit
	events   []int  // of happen
	option   string // of editFlags

	driver string
	states []string
	kept   []string // directories of exported caches
	// the layout of an earlier image on which stages may be based; "" if there is none yet
	own       string
	published int // the number of such images
	colds     map[string]outcome
	edited    int  // number of edits
	checked   bool // layers are compared with the file system after the step
	small     bool // each build on an old state removes nearly all data that it does not use
}

// some returns a part of the numbers below n.
func (w *world) some(n int) []int { return w.r.Perm(n)[:2+n/5] }

// round runs one round: a world, and a sequence of edits with a build after each.
func (b *bench) round(t *testing.T, seed uint64) {
	w := b.newWorld(t, seed)
	w.compare(w.states[0])
	for range 2 + w.r.IntN(4) {
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
	w := b.newInputs(b.newSite(t, seed), seed)
	w.states = []string{w.newState("warm0", w.driver), w.newState("warm1", w.driver)}
	w.say("driver %s, small: %v\n%s", w.driver, w.small, w.dockerfile())
	return w
}

// newInputs makes the inputs of a round's first build.
func (b *bench) newInputs(s *site, seed uint64) *world {
	w := &world{
		site: s, context: filepath.Join(s.dir, "context"), named: filepath.Join(s.dir, "named"),
		checked: seed%4 == 2, small: seed%4 == 1, epoch: firstEpoch, flags: map[string]string{},
		colds: map[string]outcome{},
	}
	for _, top := range []string{w.context, w.named} {
		w.check(os.MkdirAll(filepath.Join(top, "dir/sub"), 0o755))
		for _, name := range []string{"keep", "a", "b", "file", "dir/keep", "dir/a",
			"dir/sub/keep", "dir/sub/c"} {
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
	for i := range 2 + w.r.IntN(2) {
		w.stages = append(w.stages, w.newStage(i))
	}
	w.target = len(w.stages) - 1
	return w
}

// request returns the current request.
func (w *world) request() request {
	q := request{
		dockerfile: w.dockerfile(), target: fmt.Sprintf("s%d", w.target), driver: w.driver,
		context: w.context, epoch: w.epoch,
		output: w.flags["output"], umask: w.flags["umask"], zone: w.flags["zone"], small: w.small,
		unchecked: !w.checked,
		flags:     []string{w.bench.context("base", "base"), "--build-context=x=" + w.named},
	}
	if w.own != "" {
		q.flags = append(q.flags, "--build-context=own=oci-layout://"+w.own)
	}
	for _, v := range w.flags {
		if strings.HasPrefix(v, "--") {
			q.flags = append(q.flags, v)
		}
	}
	return q
}

// eventKinds is the number of cases of happen.
const eventKinds = 11

// happen builds after a change of the state, or while one happens.
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
		w.prune(state, w.driver, pick(r, pruneFlags...))
	case 3:
		w.kill(state, w.request(), pick(r, "", "--no-cache", filter))
	case 4:
		w.twoAtOnce(state)
	case 5, 6:
		w.export(state)
	case 7, 8:
		w.carried(state, pick(r, "", "", "", filter))
	case 9:
		w.publish(state)
	case 10:
		// layers of two drivers may differ where a hard link was changed
		w.driver, w.kept = pick(r, w.drivers...), nil
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
		w.check(os.RemoveAll(w.states[1])) // as on another machine
		w.states[1] = w.newState("warm1", w.driver)
		state = w.states[1]
	}
	w.compare(state, args...)
	w.compare(state)
}

// export exports the results of steps to a directory, as a separate artifact or inside an image.
func (w *world) export(state string) {
	dir := w.path("kept")
	args := []string{"--cache-to=type=local,dest=" + dir + pick(w.r, "", ",mode=max")}
	if w.r.IntN(3) == 0 {
		args = []string{"--cache-to=type=inline", "-o", "type=oci,tar=false,dest=" + dir}
	}
	got := w.build(state, "export", w.request(), args...)
	w.say("build on %s with %s: %s", filepath.Base(state), strings.Join(args, " "), got.digest)
	if got.digest != "failed" {
		w.kept = append(w.kept, dir)
	}
}

// publish builds an image on which stages may be based.
func (w *world) publish(state string) {
	dir := w.path("own")
	got := w.build(state, "own", w.request(), "-o", "type=oci,tar=false,dest="+dir)
	w.say("edit: publish an image from %s with epoch %d: %s",
		filepath.Base(state), w.epoch, got.digest)
	if got.digest != "failed" && w.stages[w.target].shell {
		w.own = dir
		w.published++
		w.edited++
	}
}

// twoAtOnce builds two things at the same time on one state.
func (w *world) twoAtOnce(state string) {
	r := w.r
	other := *w
	other.flags = maps.Clone(w.flags)
	other.target = r.IntN(len(w.stages))
	if r.IntN(2) == 0 {
		other.flags["A"] = "--build-arg=A=2"
	}
	flags := [2]string{pick(r, "", "--no-cache"), pick(r, "", "", "--no-cache")}
	w.say("two builds at once on %s: %q, and target s%d %q", filepath.Base(state), flags[0],
		other.target, flags[1])
	var got [2]outcome
	var wg sync.WaitGroup
	for i, each := range []*world{w, &other} {
		wg.Go(func() {
			got[i] = each.build(state, fmt.Sprintf("at-once-%d", i), each.request(), flags[i])
		})
	}
	wg.Wait()
	w.same(got[0], w.cold(), w.request())
	w.same(got[1], other.cold(), other.request())
}

// compare builds on a state and compares the result with that on a new state.
func (w *world) compare(state string, flags ...string) {
	got := w.build(state, "warm", w.request(), flags...)
	w.say("build on %s %s: %s", filepath.Base(state), strings.Join(flags, " "), got.digest)
	w.same(got, w.cold(), w.request())
}

// cold builds on a new state. The outcome of equal inputs is kept while the context does not
// change.
func (w *world) cold() outcome {
	key := fmt.Sprint(w.edited, w.target, w.epoch, w.driver, w.flags)
	if have, ok := w.colds[key]; ok {
		return have
	}
	q := w.request()
	q.small, q.unchecked = false, true
	got := w.build(w.newState(filepath.Base(w.path("cold")), w.driver), "cold", q)
	w.colds[key] = got
	return got
}

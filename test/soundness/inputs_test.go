package soundness

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/rounds"
	"github.com/layerbuild/layerbuild/test/lab"
)

// TestInputs changes the inputs of steps one at a time. Its first round changes the inputs that all
// steps share. The following rounds have each change of each subject once. The rounds of go test
// have the changes that are not rare.
func TestInputs(t *testing.T) {
	name := ledger(t, "soundness-inputs")
	b := newBench(t, "")
	_, common := walk()
	rounds.Run(t, name, rounds.Options{Fixed: 1 + common, Fresh: 1, Long: 120, Found: foundInputs},
		b.inputsRound)
}

// TestInputsUser is like TestInputs, for an ordinary user with subordinate ids.
func TestInputsUser(t *testing.T) {
	b := newBench(t, lab.User(t, true))
	rounds.Run(t, "soundness-inputs-user",
		rounds.Options{Fixed: 0, Fresh: 1, Long: 40, Found: foundInputs}, b.inputsRound)
}

// foundInputs are the seeds of rounds of TestInputs that have failed.
var foundInputs = []uint64{}

// A trial is a subject in a round, with the changes that the round makes. It makes them one after
// the other, each to the initial state.
type trial struct {
	*subject
	i       int
	changes []change
	now     change            // of is nil before the first change
	values  map[string]string // current values of the inputs
}

const (
	trialChanges = 4 // number of changes of a trial
	roundTrials  = 23
	mostRandom   = 6 // number of trials in a round with random trials
)

// walk divides all changes of all subjects among rounds. The rounds with the changes that are not
// rare come first.
func walk() (list [][][]change, common int) {
	list = divide(func(c change) bool { return !c.rare })
	return append(list, divide(func(c change) bool { return c.rare })...), len(list)
}

// divide divides changes among rounds. The image shows the configuration of the last trial of a
// round.
func divide(among func(change) bool) [][][]change {
	var plain, config [][]change
	for _, s := range subjects {
		list := slices.DeleteFunc(s.changes(), func(c change) bool { return !among(c) })
		for part := range slices.Chunk(list, trialChanges) {
			if s.config {
				config = append(config, part)
			} else {
				plain = append(plain, part)
			}
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(len(plain), func(i, k int) { plain[i], plain[k] = plain[k], plain[i] })
	// A round makes as many builds as its longest trial has changes.
	slices.SortStableFunc(plain, func(a, b []change) int { return len(b) - len(a) })
	var list [][][]change
	for part := range slices.Chunk(plain, roundTrials-1) {
		list = append(list, slices.Clone(part))
	}
	for i, c := range config {
		list[i%len(list)] = append(list[i%len(list)], c)
	}
	return list
}

// experiment is a round of TestInputs: a Dockerfile with each trial in a separate stage, and a last
// stage with the results of all of them. The stage of the last trial is the base of the last stage.
type experiment struct {
	*site
	driver string
	trials []*trial
	turn   int      // selects the stages with a step after the one under test
	ends   bool     // the last trial's stage is also built separately, and its step is the last one
	common []string // names in global that the round changes
	at     point
	colds  map[string]outcome // by target and point
	warm   string             // the state on which the builds are made one after the other
	kept   string             // --cache-from with the records of the first build
}

// A point is the difference to the first build: a change of each trial, or a value of an input that
// all steps share.
type point struct {
	change      int // number of the change; -1 for none
	name, value string
}

// begin is the point of the first build.
var begin = point{change: -1}

// inputsRound builds with the first values of all inputs (A), then after each change of the trials,
// then after changes of the shared inputs, and then A again. A build on another state uses the
// records of the first build.
func (b *bench) inputsRound(t *testing.T, seed uint64) {
	e := b.newExperiment(t, seed)
	e.first()
	points := []point{begin}
	for n := range slices.MaxFunc(e.trials,
		func(a, b *trial) int { return len(a.changes) - len(b.changes) }).changes {
		points = append(points, point{change: n})
	}
	for _, name := range e.common {
		values := global[name][1:]
		switch len(e.common) {
		case 1:
			// use only a later epoch: an earlier one would also limit the times in layers with a
			// wrong epoch
			values = values[:1]
		case 2:
			values = []string{pick(e.r, values...)}
		}
		for _, value := range values {
			points = append(points, point{-1, name, value})
		}
	}
	for _, p := range points[1:] {
		e.visit(p)
		e.compare(e.warm)
		e.shows()
	}
	e.visit(begin)
	e.event(seed)
	e.compare(e.warm)
	// Another machine has the records of the first build.
	state := e.newState("carried", e.driver)
	changed := 1 + e.r.IntN(len(points)-1)
	for _, p := range []point{points[changed],
		points[(changed+1+e.r.IntN(len(points)-1))%len(points)]} {
		e.visit(p)
		e.compare(state, e.kept)
	}
}

func (b *bench) newExperiment(t *testing.T, seed uint64) *experiment {
	s := b.newSite(t, seed)
	e := &experiment{site: s, at: begin, colds: map[string]outcome{}, driver: b.drivers[0],
		turn: int(seed % 4), ends: seed%2 == 1}
	names := slices.Sorted(maps.Keys(global))
	switch parts, _ := walk(); {
	case seed == 1:
		e.add([][]change{{{of: subjects[0], hidden: true}}})
		e.ends = false
		e.common = names
	case seed <= uint64(len(parts)+1):
		e.add(parts[seed-2])
		e.common = []string{"epoch"}
	default:
		e.add(randomTrials(s.r))
		if s.r.IntN(4) == 0 {
			e.driver = pick(s.r, b.drivers...)
		}
		e.common = []string{pick(s.r, names...), "epoch"}
	}
	e.warm = e.newState("warm", e.driver)
	s.check(os.MkdirAll(e.context(), 0o755))
	for _, tr := range e.trials {
		e.fill(tr)
		for n, c := range tr.changes {
			s.say("change %d: stage p%d: %s", n, tr.i, c)
		}
	}
	s.say("driver %s, the last step ends its stage: %v\n%s", e.driver, e.ends,
		e.request("end").dockerfile)
	return e
}

// randomTrials chooses subjects and changes.
func randomTrials(r *rand.Rand) [][]change {
	var list [][]change
	for n := range 1 + r.IntN(mostRandom) {
		s := subjects[r.IntN(len(subjects))]
		for s.config && n > 0 {
			s = subjects[r.IntN(len(subjects))]
		}
		all := s.changes()
		r.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
		list = append(list, all[:min(len(all), trialChanges)])
	}
	slices.Reverse(list) // the first one may be a change of the configuration
	return list
}

func (e *experiment) add(list [][]change) {
	for i, changes := range list {
		e.trials = append(e.trials, &trial{subject: changes[0].of, i: i, changes: changes})
	}
}

func (e *experiment) context() string { return filepath.Join(e.dir, "context") }

// fill makes the initial files of a trial.
func (e *experiment) fill(tr *trial) {
	for _, dir := range e.dirs(tr) {
		e.populate(dir)
		if tr.many {
			e.populateMany(dir)
		}
	}
	if tr.git {
		e.populateGit(e.dirs(tr)["web"])
	}
}

// later sets the times of files after the first epoch to a time after all epochs. With the first
// epoch the digests of both are the same. A copy keeps the time in its snapshot until its layer is
// written, so that a later epoch needs another snapshot.
func (e *experiment) later(tr *trial) {
	for _, dir := range e.dirs(tr) {
		e.touch(dir+"/g", lateTime)
		e.touch(dir+"/late", lateTime)
	}
}

// dirs returns the directories from which a trial's step takes files.
func (e *experiment) dirs(tr *trial) map[string]string {
	dirs := map[string]string{"files": filepath.Join(e.context(), fmt.Sprintf("p%d", tr.i))}
	if len(tr.named) > 0 {
		dirs["named"] = filepath.Join(e.dir, fmt.Sprintf("x%d", tr.i))
	}
	if len(tr.web) > 0 {
		dirs["web"] = filepath.Join(e.web, filepath.Base(e.dir), fmt.Sprintf("p%d", tr.i))
	}
	return dirs
}

// visit sets the inputs to those of a point.
func (e *experiment) visit(p point) {
	refill := e.value("epoch") != ""
	e.at = p
	var ignore strings.Builder
	for _, tr := range e.trials {
		if e.dirs(tr)[tr.now.input] != "" || refill {
			e.fill(tr)
		}
		if e.value("epoch") != "" {
			e.later(tr)
		}
		tr.now = change{}
		if p.change >= 0 && p.change < len(tr.changes) {
			tr.now = tr.changes[p.change]
		}
		if dir := e.dirs(tr)[tr.now.input]; dir != "" {
			if err := fileEdits[tr.now.value](e.site, dir); err != nil {
				e.t.Logf("%s: %v", tr.now, err)
				tr.now = change{}
			}
		}
		ignore.WriteString(e.expand(tr, "{ignore}\n"))
	}
	e.write(filepath.Join(e.context(), ".dockerignore"),
		strings.ReplaceAll(ignore.String(), "{ignore}\n", ""))
}

// expand replaces the names of inputs in a text of a trial by the current values.
func (e *experiment) expand(tr *trial, text string) string {
	values := map[string]string{}
	for input, list := range tr.vary {
		values[input] = list[0]
		if tr.now.input == input {
			values[input] = tr.now.value
		}
	}
	return expand(text, values, map[string]string{
		"i": strconv.Itoa(tr.i), "d": fmt.Sprintf("p%d", tr.i),
		"url": e.url + "/" + filepath.Base(e.dir), "images": e.images,
		"secret": e.secret, "socket": e.socket,
		"sum": fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("f\n"))),
	})
}

// request returns the current request: for the stage end, or for the stage of the last trial.
func (e *experiment) request(target string) request {
	q := request{
		dockerfile: e.dockerfile(), target: target, driver: e.driver, context: e.context(),
		epoch: firstEpoch, unchecked: true,
		output: e.value("output"), umask: e.value("umask"), zone: e.value("zone"),
		flags: []string{e.bench.context("base", "base")},
	}
	for _, tr := range e.trials {
		q.flags = append(q.flags, strings.Fields(e.expand(tr, tr.flags))...)
		if dir := e.dirs(tr)["named"]; dir != "" {
			q.flags = append(q.flags, fmt.Sprintf("--build-context=x%d=%s", tr.i, dir))
		}
	}
	if strings.HasPrefix(e.at.value, "--") {
		q.flags = append(q.flags, e.at.value)
	}
	if seconds := e.value("epoch"); seconds != "" {
		q.epoch, _ = strconv.Atoi(seconds)
	}
	return q
}

// value returns the current value of an input in global; "" for the usual one.
func (e *experiment) value(name string) string {
	if e.at.name == name {
		return e.at.value
	}
	return ""
}

// last returns the name of the last trial's stage.
func (e *experiment) last() string { return fmt.Sprintf("p%d", len(e.trials)-1) }

func (e *experiment) dockerfile() string {
	var text, end strings.Builder
	fmt.Fprintf(&end, "FROM %s AS end\n", e.last())
	for i, tr := range e.trials {
		from, result := tr.from, "/o"
		if from == "" {
			from = "base"
		}
		stage := tr.before + "FROM " + from + " AS p{i}\n" + tr.text + "\n"
		last := i == len(e.trials)-1
		stageOf := "p"
		switch {
		case tr.bare:
			result = "/"
		case !tr.config && !(last && e.ends) && (i+e.turn)%4 == 0:
			stage += "RUN " + census + "\n"
			if !last {
				// A copy on the base image: its parent does not depend on the change, and neither
				// does the step before the copy.
				stage += "FROM base AS r{i}\nCOPY --from=p{i} /o /o/r\n"
				stageOf = "r"
			}
		}
		text.WriteString(e.expand(tr, stage))
		if !last {
			fmt.Fprintf(&end, "COPY --from=%s%d %s /r/%d/\n", stageOf, i, result, i)
		}
	}
	return text.String() + "FROM base AS seen\nRUN " + seen + "\n" + end.String() +
		"COPY --from=seen /o/p/seen /r/\n"
}

// first builds on the empty state, and keeps the records of its steps.
func (e *experiment) first() {
	dir := e.path("kept")
	e.kept = "--cache-from=type=local,src=" + dir
	flags := []string{"--cache-to=type=local,mode=max,dest=" + dir}
	switch e.r.IntN(8) {
	case 0:
		flags[0] = "--cache-to=type=local,dest=" + dir
	case 1:
		ref := fmt.Sprintf("%s/cache/%s", e.lab.Registry.Host,
			strings.ToLower(filepath.Base(e.dir)))
		flags[0], e.kept = "--cache-to=type=registry,mode=max,ref="+ref,
			"--cache-from=type=registry,ref="+ref
	case 2: // these records are part of the image, and of its digest
		e.compare(e.warm)
		flags = []string{"--cache-to=type=inline", "-o", "type=oci,tar=false,dest=" + dir}
	}
	got := e.build(e.warm, "cold-end", e.request("end"), flags...)
	e.say("build with %s: %s", flags, got.digest)
	if got.digest == "failed" {
		e.t.Fatalf("the first build failed:\n%s\n%s", e.dockerfile(), got.output)
	}
	if len(flags) == 1 {
		e.colds[e.key("end")] = got
	}
}

// key returns a text that identifies the current inputs.
func (e *experiment) key(target string) string { return fmt.Sprint(target, e.at) }

// cold builds the current inputs on a new state, once. The last trial's stage is built on the state
// on which the stage end was built.
func (e *experiment) cold(target string) outcome {
	key := e.key(target)
	have, ok := e.colds[key]
	if ok {
		return have
	}
	state := ""
	if target == "end" {
		state = e.newState(filepath.Base(e.path("cold")), e.driver)
	} else {
		state = e.cold("end").state
	}
	got := e.build(state, "cold-"+target, e.request(target))
	e.colds[key] = got
	if got.digest == "failed" {
		e.t.Fatalf("the build on a new state failed:\n%s\n%s", e.dockerfile(), got.output)
	}
	return got
}

// compare builds the current inputs on a state, and fails the round if the result differs from the
// one on a new state.
func (e *experiment) compare(state string, flags ...string) {
	targets := []string{"end"}
	if e.ends && e.r.IntN(2) == 0 {
		targets = []string{e.last(), "end"}
	}
	for _, target := range targets {
		got := e.build(state, "warm", e.request(target), flags...)
		e.say("%+v: build of %s on %s %s: %s", e.at, target,
			filepath.Base(state), flags, got.digest)
		e.same(got, e.cold(target), e.request(target))
	}
}

// shows fails the round if a change cannot be seen in the image: the subject would test nothing.
func (e *experiment) shows() {
	if e.at.change < 0 {
		return
	}
	before, after := e.image(e.colds[fmt.Sprint("end", begin)]), e.image(e.cold("end"))
	for i, tr := range e.trials {
		if tr.now.of == nil || tr.now.hidden {
			continue
		}
		same := false
		n := len(e.trials)
		if x, y := before.Config.RootFS.DiffIDs, after.Config.RootFS.DiffIDs; i < n-1 {
			same = x[len(x)-n+i] == y[len(y)-n+i]
		} else {
			same = slices.Equal(x[:len(x)-n], y[:len(y)-n]) &&
				fmt.Sprint(before.Config.Config) == fmt.Sprint(after.Config.Config)
		}
		if same {
			e.t.Errorf("stage p%d: the image does not show the change %s", i, tr.now)
		}
	}
}

func (e *experiment) image(o outcome) *imagetest.Image {
	img, err := imagetest.Open(filepath.Join(o.state, "oci"), o.image)
	e.check(err)
	return img
}

// event changes the state, or builds in a way that makes other records. Each of the first rounds
// has a different event.
func (e *experiment) event(seed uint64) {
	filter := fmt.Sprintf("--no-cache-filter=p%d", e.r.IntN(len(e.trials)))
	switch seed % 9 {
	case 1:
		e.driver = pick(e.r, e.drivers...)
		e.say("driver %s", e.driver)
	case 2:
		e.loseLayer(e.warm)
	case 3, 6:
		e.prune(e.warm, e.driver, pick(e.r, pruneFlags...))
	case 4:
		q := e.request("end")
		q.small = true
		e.same(e.build(e.warm, "warm", q), e.cold("end"), q)
	case 5:
		e.compare(e.warm, "--no-cache")
	case 7:
		e.compare(e.warm, filter)
	case 8:
		e.kill(e.warm, e.request("end"), pick(e.r, "--no-cache", filter))
	}
}

// loseLayer removes the file of a layer that the last build has made. Records and snapshots remain.
func (e *experiment) loseLayer(state string) {
	e.compare(state)
	img := e.image(outcome{state: state, image: "warm"})
	// The last layers belong to the stage end.
	list := img.Manifest.Layers
	l := list[len(list)-1-e.r.IntN(len(e.trials))]
	e.say("remove layer %s", l.Digest)
	e.check(os.Remove(filepath.Join(state, "oci/blobs/sha256", l.Digest.Encoded())))
}

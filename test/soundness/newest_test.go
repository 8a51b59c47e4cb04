package soundness

import (
	"fmt"
	"math/rand/v2"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/rounds"
	"github.com/layerbuild/layerbuild/test/lab"
)

// TestNewest builds commands that write a random number each time they run. Such a build cannot be
// compared with one on a new state. But all files of an image that were made from the number of one
// command must be from the same run of it, and a build without a change must have the image of the
// previous build.
func TestNewest(t *testing.T) {
	name := ledger(t, "soundness-newest")
	b := newBench(t, "")
	rounds.Run(t, name, rounds.Options{Fixed: 2, Fresh: 1, Long: 300, Found: foundNewest},
		b.newestRound)
}

// TestNewestUser is like TestNewest, for an ordinary user with subordinate ids.
func TestNewestUser(t *testing.T) {
	b := newBench(t, lab.User(t, true))
	rounds.Run(t, "soundness-newest-user",
		rounds.Options{Fixed: 0, Fresh: 1, Long: 100, Found: foundNewest}, b.newestRound)
}

// foundNewest are the seeds of rounds of TestNewest that have failed.
var foundNewest = []uint64{}

// lottery is a round of TestNewest. The command of stage N writes its number to a file nonceN,
// which other steps copy.
type lottery struct {
	*site
	driver string
	small  bool
	turn   int        // determines which commands have which mounts
	stages [][]string // the instructions of each stage, the first of which is FROM
	target int
	states []string
	drawn  map[string]bool // all numbers that were seen
	copies int
}

// newestRound builds again and again. In between, it runs some commands again, removes their
// results, or imports results of another machine.
func (b *bench) newestRound(t *testing.T, seed uint64) {
	s := b.newSite(t, seed)
	l := &lottery{site: s, driver: b.drivers[0], small: seed%8 == 5, turn: int(seed % 3),
		drawn: map[string]bool{}}
	if seed%4 == 3 {
		l.driver = pick(s.r, b.drivers...)
	}
	for i := range 2 + s.r.IntN(2) {
		l.stages = append(l.stages, l.stage(i, i == 1 && seed%2 == 1))
	}
	l.target = len(l.stages) - 1
	l.states = []string{s.newState("state0", l.driver), s.newState("state1", l.driver)}
	l.write(filepath.Join(s.dir, "f"), "f\n")
	s.say("driver %s, small %v\n%s", l.driver, l.small, l.dockerfile())
	l.settle(l.states[0])
	for _, event := range newestEvents(seed) {
		l.happen(event)
		if t.Failed() {
			return
		}
	}
}

// lotteryEvents is the number of cases of happen.
const lotteryEvents = 12

// newestEvents returns the events of a round. Two rounds of which the first has an odd seed have
// all events.
func newestEvents(seed uint64) []int {
	list := rand.New(rand.NewPCG((seed+1)/2, 3)).Perm(lotteryEvents)
	if seed%2 == 1 {
		return list[:lotteryEvents/2]
	}
	return list[lotteryEvents/2:]
}

// stage makes the instructions of the stage with an index. If it is based on another stage, it
// copies that stage's number after a command that changes nothing, so that a result made from an
// earlier run of the other stage is detected.
func (l *lottery) stage(i int, based bool) []string {
	from := "base"
	if i > 0 && (based || l.r.IntN(3) == 0) {
		from = fmt.Sprintf("s%d", l.r.IntN(i))
	}
	list := []string{fmt.Sprintf("FROM %s AS s%d", from, i)}
	if l.r.IntN(3) == 0 {
		list = append(list, l.idle())
	}
	// With the first mount the result has records under two keys.
	mount := []string{"--mount=from=base,target=/m ", "", "--mount=target=/m "}[(i+l.turn)%3]
	list = append(list, fmt.Sprintf(
		"RUN %smkdir -p /n && cat /proc/sys/kernel/random/uuid >/n/nonce%d", mount, i))
	if from != "base" {
		l.copies++
		list = append(list, "RUN true", fmt.Sprintf("RUN cp -a /n /c%d", l.copies))
	}
	for range 1 + l.r.IntN(3) {
		list = append(list, l.follow(i))
	}
	return list
}

// idle makes an instruction that does not concern the numbers.
func (l *lottery) idle() string {
	l.copies++
	return pick(l.r, "RUN true", fmt.Sprintf("WORKDIR /w%d", l.copies), "COPY f /",
		fmt.Sprintf("RUN echo >/e%d", l.copies), "LABEL a=1")
}

// follow makes an instruction for the stage with an index that copies its own number or the number
// of an earlier stage.
func (l *lottery) follow(i int) string {
	l.copies++
	dir := fmt.Sprintf("/c%d", l.copies)
	if i == 0 || l.r.IntN(4) == 0 {
		return pick(l.r, fmt.Sprintf("RUN cp -a /n %s", dir),
			fmt.Sprintf("RUN mkdir %[1]s && ln /n/nonce%[2]d %[1]s", dir, i), l.idle())
	}
	k := l.r.IntN(i)
	return pick(l.r,
		fmt.Sprintf("COPY --from=s%d /n %s", k, dir),
		fmt.Sprintf("COPY --link --from=s%d /n %s", k, dir),
		fmt.Sprintf("RUN --mount=from=s%d,source=/n,target=/m cp -a /m %s", k, dir),
		fmt.Sprintf(
			"RUN --mount=type=cache,id=c%[2]d,from=s%[1]d,source=/n,target=/m cp -a /m %[3]s", k,
			l.copies, dir),
	)
}

func (l *lottery) dockerfile() string {
	var b strings.Builder
	for _, s := range l.stages {
		b.WriteString(strings.Join(s, "\n") + "\n")
	}
	return b.String()
}

func (l *lottery) request() request {
	return request{
		dockerfile: l.dockerfile(), target: fmt.Sprintf("s%d", l.target), driver: l.driver,
		context: l.dir, epoch: firstEpoch, small: l.small,
		unchecked: true, flags: []string{l.bench.context("base", "base")},
	}
}

// draw builds, and fails the round if two files of the image have numbers of different runs of one
// command. It returns the image's digest and its numbers.
func (l *lottery) draw(state string, flags ...string) (string, map[string]string) {
	got := l.build(state, "image", l.request(), flags...)
	return got.digest, l.numbers(got, flags...)
}

func (l *lottery) numbers(got outcome, flags ...string) map[string]string {
	l.say("build of s%d on %s with %q: %s", l.target, filepath.Base(got.state), flags, got.digest)
	if got.digest == "failed" {
		l.t.Fatalf("the build failed:\n%s\n%s", l.dockerfile(), got.output)
	}
	img, err := imagetest.Open(filepath.Join(got.state, "oci"), got.image)
	l.check(err)
	found := map[string]string{}
	for i := range img.Manifest.Layers {
		entries, err := img.Layer(i)
		l.check(err)
		for _, e := range entries {
			name, value := path.Base(e.Path), string(e.Data)
			if !strings.HasPrefix(name, "nonce") || value == "" { // a hard link has no data
				continue
			}
			if strings.HasPrefix(strings.TrimPrefix(e.Path, "/"), "twin/") {
				name = "twin " + name // from the other, equal command
			}
			if have := found[name]; have != "" && have != value {
				l.t.Fatalf("%s of one run and of another in one image, in layer %d at %s\n%s\n%s",
					name, i, e.Path, l.dockerfile(), got.output)
			}
			found[name] = value
		}
	}
	l.say("%q", found)
	return found
}

// note records numbers and reports which of them were recorded before.
func (l *lottery) note(numbers map[string]string) (old []string) {
	for name, value := range numbers {
		if l.drawn[value] {
			old = append(old, name)
		}
		l.drawn[value] = true
	}
	return old
}

// settle builds twice: the second build must have the image of the first.
func (l *lottery) settle(state string, flags ...string) string {
	first, numbers := l.draw(state, flags...)
	l.note(numbers)
	l.again(state, first, flags...)
	return first
}

// again builds, and fails the round unless the build has the image of an earlier build.
func (l *lottery) again(state, want string, flags ...string) {
	if got, _ := l.draw(state, flags...); got != want {
		l.t.Errorf("on %s a build that changes nothing has the image %s, the one before %s\n%s",
			filepath.Base(state), got, want, l.dockerfile())
	}
}

// happen makes commands run again, or changes the state, and builds.
func (l *lottery) happen(event int) {
	r := l.r
	state := l.states[0]
	k := r.IntN(len(l.stages))
	if event == 1 {
		k = 0 // other stages are based on the first stage, or copy from it
	}
	filter := fmt.Sprintf("--no-cache-filter=s%d", k)
	switch event {
	case 0:
		got, numbers := l.draw(state, "--no-cache")
		if old := l.note(numbers); len(old) > 0 {
			l.t.Errorf("--no-cache has not run the commands of %q again", old)
		}
		l.again(state, got)
	case 1, 2:
		got, numbers := l.draw(state, filter)
		own := fmt.Sprintf("nonce%d", k)
		for _, old := range l.note(numbers) {
			if old == own {
				l.t.Errorf("%s has not run the command of %s again", filter, old)
			}
		}
		l.again(state, got)
	case 3:
		l.kill(state, l.request(), pick(r, "--no-cache", filter))
		l.settle(state)
	case 4:
		l.prune(state, l.driver, pick(r, pruneFlags...))
		l.settle(state)
	case 5:
		l.edit(state)
	case 6:
		l.twoAtOnce(state, pick(r, "", "--no-cache", filter))
	case 7:
		l.twins(state)
	case 8:
		l.stranger(state)
	default:
		l.carried(state)
	}
}

// edit builds with another instruction, and then again without it.
func (l *lottery) edit(state string) {
	before := l.settle(state)
	i := l.r.IntN(len(l.stages))
	old, target := l.stages[i], l.target
	at := 1 + l.r.IntN(len(old))
	l.stages[i] = append(append(append([]string{}, old[:at]...), l.idle()), old[at:]...)
	l.target = l.r.IntN(len(l.stages))
	l.say("stage s%d becomes\n%s", i, strings.Join(l.stages[i], "\n"))
	l.settle(state)
	l.stages[i], l.target = old, target
	l.again(state, before)
}

// command returns an instruction that draws a number and that no build has run before.
func (l *lottery) command() string {
	l.copies++
	return fmt.Sprintf("RUN mkdir /n && cat /proc/sys/kernel/random/uuid >/n/nonce9 # %d", l.copies)
}

// other is a lottery of other stages, the last of which is built.
func (l *lottery) other(stages ...[]string) *lottery {
	o := *l
	o.stages, o.target = stages, len(stages)-1
	return &o
}

func (l *lottery) drawAndNote(state string, flags ...string) {
	_, numbers := l.draw(state, flags...)
	l.note(numbers)
}

// twins builds two stages with the same steps. Then the command of one of them is run again, and
// both stages have a new step: its result for one stage must not be used for the other. The layers
// of the image are those of the stage whose command runs again.
func (l *lottery) twins(state string) {
	command := l.command()
	s0, s1, s2 := []string{"FROM base AS s0", command}, []string{"FROM base AS s1", command},
		[]string{"FROM s0 AS s2"}
	l.other(s0, s1, append(s2, "COPY --from=s1 /n /twin/n")).drawAndNote(state)
	step := "RUN cp -a /n /c"
	l.other(append(s0, step), append(s1, step),
		append(s2, "COPY --from=s1 /c /twin/c")).drawAndNote(state, "--no-cache-filter=s0")
}

// stranger builds with the records of another machine, where a command had another result. Files
// that were copied from that result must not be used as copies of the result here.
func (l *lottery) stranger(state string) {
	here, dir := l.states[1], l.path("kept")
	s0, s1, s2 := []string{"FROM base AS s0", l.command()}, []string{"FROM base AS s1"},
		[]string{"FROM base AS s2", "COPY --from=s0 /n /a"}
	l.other(s0, s1, s2).drawAndNote(here)
	s1, s2 = append(s1, pick(l.r, "COPY --from=s0 /n /b",
		"RUN --mount=from=s0,source=/n,target=/m cp -a /m /b")), append(s2, "COPY --from=s1 /b /b")
	both := l.other(s0, s1, s2)
	both.drawAndNote(state, "--cache-to=type=local,mode=max,dest="+dir)
	both.drawAndNote(here, "--cache-from=type=local,src="+dir)
}

// twoAtOnce builds the same twice at once.
func (l *lottery) twoAtOnce(state, flag string) {
	l.say("two builds at once, one with %q", flag)
	var got [2]outcome
	var wg sync.WaitGroup
	for i, f := range []string{"", flag} {
		wg.Go(func() { got[i] = l.build(state, fmt.Sprintf("at-once-%d", i), l.request(), f) })
	}
	wg.Wait()
	for _, o := range got {
		l.note(l.numbers(o))
	}
	l.settle(state)
}

// carried builds on the second state, which may have its own results, with the results of the first
// state.
func (l *lottery) carried(state string) {
	dir := l.path("kept")
	flags := []string{"--cache-to=type=local,dest=" + dir + pick(l.r, "", ",mode=max", ",mode=max")}
	if l.r.IntN(4) == 0 {
		flags = []string{"--cache-to=type=inline", "-o", "type=oci,tar=false,dest=" + dir}
	}
	_, numbers := l.draw(state, flags...)
	l.note(numbers)
	other := l.states[1]
	switch l.r.IntN(3) {
	case 0:
		l.settle(other)
	case 1:
		other = l.newState(filepath.Base(l.path("state")), l.driver)
		l.states[1] = other
	}
	from := "--cache-from=type=local,src=" + dir
	l.settle(other, from)
	if l.r.IntN(2) == 0 {
		_, numbers := l.draw(other, fmt.Sprintf("--no-cache-filter=s%d", l.r.IntN(len(l.stages))),
			from)
		l.note(numbers)
	}
	l.settle(other)
}

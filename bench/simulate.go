package main

import (
	"container/heap"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// simulation describes a fleet of machines that build the images of a repository with one cache.
// Each build begins on an empty machine, as a job of CI does.
type simulation struct {
	machines  int
	images    int
	packages  int     // directories with sources, of which a commit changes a share
	touch     float64 // the share of the packages that a commit changes
	commits   int
	interval  time.Duration // between two commits
	latency   time.Duration // of a request
	bandwidth float64       // of the registry, in bytes a second
	link      float64       // of a machine, in bytes a second
	rate      float64       // requests that the registry answers in a second
	noCache   bool
	noHint    bool
	lease     bool // of a key that several builds lack one runs it, and the others wait
	seed      uint64
}

// simulate is the command simulate.
func simulate(_ context.Context, args []string) error {
	fs := flag.NewFlagSet("bench simulate", flag.ExitOnError)
	var s simulation
	var gbit, link float64
	fs.IntVar(&s.machines, "machines", 200, "machines; each build begins on an empty one")
	fs.IntVar(&s.images, "images", 50, "images of the repository; each commit builds all of them")
	fs.IntVar(&s.packages, "packages", 500, "directories of sources")
	fs.Float64Var(&s.touch, "touch", 0.03, "share of the files that a commit changes")
	fs.IntVar(&s.commits, "commits", 100, "commits")
	fs.DurationVar(&s.interval, "interval", 30*time.Second, "time between two commits")
	fs.DurationVar(&s.latency, "latency", 20*time.Millisecond, "time of a request")
	fs.Float64Var(&gbit, "bandwidth", 10, "of the registry, in Gbit/s")
	fs.Float64Var(&link, "link", 1, "of a machine, in Gbit/s")
	fs.Float64Var(&s.rate, "rate", 2000, "requests a second that the registry answers")
	fs.BoolVar(&s.noCache, "no-cache", false, "build without a cache")
	fs.BoolVar(&s.noHint, "no-hint", false, "look up each key")
	fs.BoolVar(&s.lease, "lease", false, "builds do not run a step that another one runs")
	fs.Uint64Var(&s.seed, "seed", 1, "of the random numbers")
	if err := fs.Parse(args); err != nil {
		return err
	}
	s.bandwidth, s.link = gbit*1e9/8, link*1e9/8
	if s.machines < 1 || s.images < 1 || s.packages < 1 || s.commits < 1 || fs.NArg() > 0 ||
		min(s.bandwidth, s.link, s.rate) <= 0 || s.touch < 0 || s.touch > 1 {
		return errors.New("simulate: a flag is out of range")
	}
	return s.run().print(os.Stdout)
}

// A build of an image has these steps. The stages tools and library are those of several images.
//
//	FROM base AS tools       RUN install tools      (the same in all images)
//	FROM tools AS library    COPY, RUN compile      (the same in ten images)
//	FROM tools AS deps       COPY lock, RUN install (changes with one directory of the image)
//	FROM deps AS app         COPY sources, COPY --from=library, RUN compile
//	FROM base                COPY --from=app
type simStep struct {
	key   string
	took  float64 // seconds
	layer float64 // bytes
	stage int
	needs int // the stage from which files are copied; -1: none
}

// stageBase has the stage on which a stage is based; -1 is the base image.
var stageBase = [...]int{-1, 0, 0, 2, -1}

const (
	baseBytes   = 30e6 // bytes
	recordBytes = 600
	docBytes    = 1200 // a manifest with one record
	keysOfFrom  = 2    // a COPY --from has a definition key and a content key
	groupSize   = 10   // images that have a library in common
	leasePoll   = 1    // seconds between two requests for a result that another build makes
)

// steps returns the steps of an image. versions has the version of each package.
func (s *simulation) steps(image int, versions []int) []simStep {
	sum := func(first, n int) string {
		text := ""
		for i := range n {
			p := (first + i) % len(versions)
			text += fmt.Sprint(p, ".", versions[p], " ")
		}
		return text
	}
	each := max(1, s.packages/(s.images+s.images/groupSize+1))
	group := image / groupSize
	library := sum((s.images+group)*each, each)
	own := sum(image*each+1, max(1, each-1))
	lock := fmt.Sprint("lock ", image, " ", sum(image*each, 1))
	return []simStep{
		{"tools a", 60, 80e6, 0, -1}, {"tools b", 20, 30e6, 0, -1},
		{"lib copy " + library, 1, 4e6, 1, -1},
		{"lib run " + library, 30, 20e6, 1, -1},
		{"copy " + lock, 0.1, 1e4, 2, -1}, {"install " + lock, 40, 60e6, 2, -1},
		{"sources " + lock + own, 1, 3e6, 3, -1},
		{"from lib " + lock + own + library, 1, 20e6, 3, 1},
		{"compile " + lock + own + library, 45, 40e6, 3, -1},
		{"from app " + lock + own + library, 0.5, 15e6, 4, 3},
	}
}

// wait describes why a process waits: for a time, for bytes from or to the registry, or until
// another process takes it from park.
type wait struct {
	seconds float64
	bytes   float64
	up      bool
	park    **process
}

// process is a build, or the writing of a step, that runs beside others.
type process struct {
	next func() (wait, bool)
	done func()
	at   float64 // when it goes on, in seconds or in bytes of the service of net
	n    int     // order of equal times
}

type queue []*process

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].n < q[j].n
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*process)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// world is the state of a simulation.
type world struct {
	s   *simulation
	now float64
	n   int

	timers queue
	// Transfers share the registry's bandwidth equally, up to that of a machine. service is the
	// number of bytes that a transfer that began at 0 has got.
	transfers queue
	service   float64
	answers   float64 // when the registry can answer the next request

	cache    map[string]bool         // by key
	hints    map[int]map[string]bool // by image
	everRan  map[string]int
	running  map[string]bool
	idle     int
	waiting  []func()
	times    []float64 // of builds
	requests int
	second   map[int]int // requests in each second
	down, up float64
	busy     float64 // seconds in which the registry's bandwidth was used up
	steps    int
	hits     int
	last     float64
}

// run simulates all commits.
func (s *simulation) run() *world {
	w := &world{s: s, cache: map[string]bool{}, hints: map[int]map[string]bool{},
		everRan: map[string]int{}, running: map[string]bool{}, idle: s.machines,
		second: map[int]int{}}
	random := rand.New(rand.NewPCG(s.seed, s.seed))
	versions := make([]int, s.packages)
	for c := range s.commits {
		for range int(s.touch * float64(s.packages)) {
			versions[random.IntN(s.packages)]++
		}
		at := slices.Clone(versions)
		for image := range s.images {
			w.after(float64(c)*s.interval.Seconds(), func() { w.start(image, s.steps(image, at)) })
		}
	}
	for len(w.timers)+len(w.transfers) > 0 {
		w.advance()
	}
	return w
}

// after calls a function at a time.
func (w *world) after(at float64, f func()) {
	w.n++
	heap.Push(&w.timers, &process{at: at, n: w.n, done: f})
}

// share returns the bytes a second that each transfer gets.
func (w *world) share() float64 {
	return min(w.s.link, w.s.bandwidth/float64(max(1, len(w.transfers))))
}

// advance goes to the next event.
func (w *world) advance() {
	share := w.share()
	if len(w.transfers) > 0 {
		end := w.now + (w.transfers[0].at-w.service)/share
		if len(w.timers) == 0 || end <= w.timers[0].at {
			w.elapse(end, share)
			w.service = w.transfers[0].at
			w.goOn(heap.Pop(&w.transfers).(*process))
			return
		}
	}
	w.elapse(w.timers[0].at, share)
	w.goOn(heap.Pop(&w.timers).(*process))
}

func (w *world) elapse(to, share float64) {
	w.service += (to - w.now) * share
	if share < w.s.link {
		w.busy += to - w.now
	}
	w.now = to
}

// goOn lets a process run until it waits again.
func (w *world) goOn(p *process) {
	if p.next == nil {
		p.done()
		return
	}
	next, ok := p.next()
	if !ok {
		if p.done != nil {
			p.done()
		}
		return
	}
	if next.park != nil {
		*next.park = p
		return
	}
	w.n++
	p.n = w.n
	if next.bytes > 0 {
		if next.up {
			w.up += next.bytes
		} else {
			w.down += next.bytes
		}
		p.at = w.service + next.bytes
		heap.Push(&w.transfers, p)
		return
	}
	p.at = w.now + next.seconds
	heap.Push(&w.timers, p)
}

// begin starts a process.
func (w *world) begin(body iter.Seq[wait], done func()) {
	next, stop := iter.Pull(body)
	w.goOn(&process{next: next, done: func() { stop(); done() }})
}

// start runs a build on an idle machine, or when one is idle.
func (w *world) start(image int, steps []simStep) {
	if w.idle == 0 {
		w.waiting = append(w.waiting, func() { w.start(image, steps) })
		return
	}
	w.idle--
	b := &simBuild{world: w, image: image, steps: steps, began: w.now}
	w.begin(b.run, func() {
		w.idle++
		w.times = append(w.times, w.now-b.began)
		w.last = w.now
		if len(w.waiting) > 0 {
			next := w.waiting[0]
			w.waiting = w.waiting[1:]
			next()
		}
	})
}

// request returns the time until n requests are answered that are sent at once.
func (w *world) request(n int) wait {
	w.requests += n
	w.second[int(w.now)] += n
	w.answers = max(w.answers, w.now) + float64(n)/w.s.rate
	return wait{seconds: w.answers - w.now + w.s.latency.Seconds()}
}

// simBuild is a build.
type simBuild struct {
	*world
	image   int
	steps   []simStep
	began   float64
	writing int
	parked  *process // waits until nothing is written
	written int
}

// run looks for the results of all steps, runs those that have none, and writes them.
func (b *simBuild) run(yield func(wait) bool) {
	var hint map[string]bool
	if !b.s.noCache && !b.s.noHint {
		hint = b.hints[b.image]
		if !yield(b.request(1)) || !yield(wait{bytes: recordBytes * float64(1+len(hint))}) {
			return
		}
	}
	found := make([]bool, len(b.steps))
	for i, step := range b.steps {
		b.world.steps++
		if b.s.noCache {
			continue
		}
		if hint[step.key] {
			found[i] = true
			continue
		}
		n := 1
		if step.needs >= 0 {
			n = keysOfFrom
		}
		if !yield(b.request(n)) || !yield(wait{bytes: docBytes}) {
			return
		}
		found[i] = b.cache[step.key]
	}
	have := map[int]bool{} // steps whose layers are on this machine
	base := false
	for i, step := range b.steps {
		for b.s.lease && !found[i] && b.running[step.key] {
			if !yield(wait{seconds: leasePoll}) || !yield(b.request(1)) {
				return
			}
			found[i] = b.cache[step.key]
		}
		if found[i] {
			b.hits++
			continue
		}
		b.running[step.key] = true
		bytes, n := b.missing(i, have)
		if !base {
			base, bytes, n = true, bytes+baseBytes, n+3
		}
		if n > 0 && (!yield(b.request(n)) || !yield(wait{bytes: bytes})) {
			return
		}
		if !yield(wait{seconds: step.took}) {
			return
		}
		have[i] = true
		b.everRan[step.key]++
		if !b.s.noCache {
			b.writing++
			b.begin(func(yield func(wait) bool) { b.write(step, yield) }, b.wrote)
		}
	}
	// The image: a mount or a push of each layer, the configuration and the manifest.
	if !yield(b.request(len(b.steps) + 3)) {
		return
	}
	if b.writing > 0 && !yield(wait{park: &b.parked}) {
		return
	}
	b.finish(yield)
}

// wrote is called when a step was written.
func (b *simBuild) wrote() {
	if b.writing--; b.writing == 0 && b.parked != nil {
		p := b.parked
		b.parked = nil
		b.goOn(p)
	}
}

// missing returns the bytes and the number of layers that step i needs and that are not on this
// machine, and marks them as fetched: those below the step, and those of the stage from which it
// copies.
func (b *simBuild) missing(i int, have map[int]bool) (bytes float64, n int) {
	need := map[int]bool{}
	for _, st := range []int{b.steps[i].stage, b.steps[i].needs} {
		for ; st >= 0; st = stageBase[st] {
			need[st] = true
		}
	}
	for k, step := range b.steps[:i] {
		if need[step.stage] && !have[k] {
			have[k] = true
			bytes, n = bytes+step.layer, n+1
		}
	}
	return bytes, n
}

// write writes the result of a step: it asks for the blob, begins and ends an upload, reads the
// document of the key and writes it. A COPY --from has documents under two keys.
func (b *simBuild) write(step simStep, yield func(wait) bool) {
	keys := 1
	if step.needs >= 0 {
		keys = keysOfFrom
	}
	for range 2 {
		if !yield(b.request(1)) {
			return
		}
	}
	if !yield(wait{bytes: step.layer, up: true}) || !yield(b.request(1)) {
		return
	}
	for range keys {
		if !yield(b.request(1)) || !yield(b.request(1)) || !yield(wait{bytes: docBytes, up: true}) {
			return
		}
	}
	b.written += keys
	b.cache[step.key] = true
}

// finish reads the written documents again, and writes the hint. A build also sends the empty
// configuration that the manifests of all documents have: it asks for the blob, and begins and ends
// an upload.
func (b *simBuild) finish(yield func(wait) bool) {
	if b.s.noCache || b.written == 0 {
		return
	}
	if !yield(wait{seconds: max(0.1, 8*b.s.latency.Seconds())}) || !yield(b.request(b.written)) ||
		!yield(wait{bytes: docBytes * float64(b.written)}) {
		return
	}
	if !yield(b.request(4)) ||
		!yield(wait{bytes: recordBytes * float64(len(b.steps)), up: true}) {
		return
	}
	hint := map[string]bool{}
	for _, step := range b.steps {
		hint[step.key] = true
	}
	b.hints[b.image] = hint
}

// print writes the results.
func (w *world) print(to io.Writer) error {
	runs, twice := 0, 0
	for _, n := range w.everRan {
		runs, twice = runs+n, twice+n-1
	}
	peak := 0
	for _, n := range w.second {
		peak = max(peak, n)
	}
	slices.Sort(w.times)
	at := func(share float64) float64 { return w.times[int(share*float64(len(w.times)-1))] }
	sum := 0.0
	for _, t := range w.times {
		sum += t
	}
	tw := tabwriter.NewWriter(to, 0, 4, 2, ' ', 0)
	for _, row := range []struct {
		name  string
		value string
	}{
		{"machines", fmt.Sprint(w.s.machines)},
		{"builds", fmt.Sprint(len(w.times))},
		{"steps found in the cache", fmt.Sprintf("%.1f %%",
			100*float64(w.hits)/float64(w.steps))},
		{"steps run", fmt.Sprintf("%d (%d for the second time or more)", runs, twice)},
		{"requests", fmt.Sprintf("%d (%.1f a build, at most %d in a second)", w.requests,
			float64(w.requests)/float64(len(w.times)), peak)},
		{"read from the registry", fmt.Sprintf("%.1f GB", w.down/1e9)},
		{"written to the registry", fmt.Sprintf("%.1f GB", w.up/1e9)},
		{"bandwidth used up", fmt.Sprintf("%.1f %% of the time", 100*w.busy/w.last)},
		{"time of a build",
			fmt.Sprintf("%.1f s (half of them), %.1f s (95 %%)", at(0.5), at(0.95))},
		{"time of all builds", fmt.Sprintf("%.1f h", sum/3600)},
		{"time until the last has ended", fmt.Sprintf("%.0f s (the last commit is at %.0f s)",
			w.last, float64(w.s.commits-1)*w.s.interval.Seconds())},
	} {
		fmt.Fprintf(tw, "%s\t%s\n", row.name, row.value)
	}
	return tw.Flush()
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// An account shows where the time of one run of layerbuild goes.
type account struct {
	of string // name of the contender
	usage
	phases []phase
}

// A usage holds what the commands of a run used, with all processes whose end they waited for. A
// negative number is not known.
type usage struct {
	Began, Ended      time.Time
	User, System      time.Duration
	Read, Written     int64 // bytes, by system calls
	FromDisk, ToDisk  int64 // bytes, by the kernel for these processes
	Processes         int
	ProcessesNotKnown string // the reason
}

// A phase is a kind of work that layerbuild reports by its events, or the time without such work.
type phase struct {
	name    string
	pieces  int // how often it was done
	cached  int // how many results came from the cache
	took    time.Duration
	started time.Time
}

// account runs a contender once more, with the events of layerbuild, and adds up what it reports
// and what it uses. The run is not one of those that are measured.
func (l *lab) account(ctx context.Context, c contender, run int) (*account, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if c.before != nil {
		if err := c.before(ctx, run); err != nil {
			return nil, err
		}
	}
	cmds, err := c.commands()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if !l.options.quick {
		l.disk.settle(ctx)
	}
	all := &account{of: c.name}
	for i, cmd := range cmds {
		result, log := filepath.Join(l.run, "usage.json"), filepath.Join(l.run, "events.log")
		line := []string{"account", result, l.tracing}
		for _, arg := range cmd.Args {
			if arg == "--progress=plain" {
				arg = "--progress=json"
			}
			line = append(line, arg)
		}
		wrapped := exec.Command(self, line...)
		wrapped.Env = cmd.Env
		out, err := os.Create(log)
		if err != nil {
			return nil, err
		}
		wrapped.Stdout, wrapped.Stderr = out, out
		err = errors.Join(c.group.run(ctx, wrapped), out.Close())
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, tail(log))
		}
		var u usage
		raw, err := os.ReadFile(result)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(raw, &u); err != nil {
			return nil, err
		}
		events, err := os.ReadFile(log)
		if err != nil {
			return nil, err
		}
		parts := phases(events, u.Began, u.Ended)
		if parts == nil && len(cmds) > 1 {
			parts = []phase{{name: "layerbuild " + cmd.Args[1], took: u.Ended.Sub(u.Began)}}
		}
		all.phases = append(all.phases, parts...)
		if i == 0 {
			all.usage = u
		} else {
			all.add(u)
		}
	}
	return all, nil
}

// add adds the usage of a later command.
func (u *usage) add(v usage) {
	u.Ended = v.Ended
	u.User += v.User
	u.System += v.System
	for _, pair := range [][2]*int64{{&u.Read, &v.Read}, {&u.Written, &v.Written},
		{&u.FromDisk, &v.FromDisk}, {&u.ToDisk, &v.ToDisk}} {
		sum := *pair[0] + *pair[1]
		if *pair[0] < 0 || *pair[1] < 0 {
			sum = -1
		}
		*pair[0] = sum
	}
	if v.Processes < 0 {
		u.Processes, u.ProcessesNotKnown = -1, v.ProcessesNotKnown
	} else if u.Processes >= 0 {
		u.Processes += v.Processes
	}
}

// An event is a line of layerbuild's --progress json (docs/PROGRESS.md).
type event struct {
	Type   string    `json:"type"`
	Time   time.Time `json:"time"`
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Line   int       `json:"line"`
	Cached bool      `json:"cached"`
}

// phases sums up the events of a program that ran from began to ended. The time of a phase is that
// in which at least one piece of its work was done: phases may overlap.
func phases(log []byte, began, ended time.Time) []phase {
	type span struct{ from, to time.Time }
	type piece struct {
		kind    string
		cached  bool
		started time.Time
		open    int
	}
	pieces := map[string]*piece{}
	spans := map[string][]span{}
	found := map[string]*phase{}
	var first, last time.Time
	for line := range bytes.Lines(log) {
		var e event
		if json.Unmarshal(line, &e) != nil || e.Time.IsZero() || e.Type == "version" {
			continue // no event, but the first line, or the output of another command
		}
		if last = e.Time; first.IsZero() {
			first = e.Time
		}
		switch p := pieces[e.ID]; {
		case e.Type == "start" && (p == nil || p.open == 0):
			kind := kindOf(e)
			pieces[e.ID] = &piece{kind: kind, started: e.Time, open: 1}
			if found[kind] == nil {
				found[kind] = &phase{name: kind, started: e.Time}
			}
			found[kind].pieces++
		case e.Type == "start":
			p.open++
		case e.Type == "done" && p != nil && p.open > 0:
			if e.Cached {
				found[p.kind].cached++
			}
			if p.open--; p.open == 0 {
				spans[p.kind] = append(spans[p.kind], span{p.started, e.Time})
			}
		}
	}
	if first.IsZero() {
		return nil
	}
	union := func(all []span) (sum time.Duration) {
		slices.SortFunc(all, func(a, b span) int { return a.from.Compare(b.from) })
		var end time.Time
		for _, s := range all {
			if s.from.Before(end) {
				s.from = end
			}
			if s.to.After(s.from) {
				sum += s.to.Sub(s.from)
				end = s.to
			}
		}
		return sum
	}
	list := []phase{{name: "start of the program", took: first.Sub(began)}}
	var kinds []phase
	var every []span
	for kind, p := range found {
		p.took = union(spans[kind])
		kinds = append(kinds, *p)
		every = append(every, spans[kind]...)
	}
	slices.SortFunc(kinds, func(a, b phase) int { return a.started.Compare(b.started) })
	return append(append(list, kinds...),
		phase{name: "between these", took: last.Sub(first) - union(every)},
		phase{name: "end of the program", took: ended.Sub(last)})
}

// kindOf returns the phase to which a piece of work belongs: "steps", or the beginning of its name
// without the names of files and images.
func kindOf(e event) string {
	if e.Line > 0 || strings.HasPrefix(e.Name, "[") {
		return "steps"
	}
	var words []string
	for word := range strings.FieldsSeq(e.Name) {
		if strings.ContainsAny(word, ":/@.=") {
			break
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func (a *account) markdown(b *strings.Builder) {
	bytes := func(n int64) string {
		if n < 0 {
			return "not known"
		}
		return size.format(float64(n))
	}
	processes := number(a.Processes)
	if a.Processes < 0 {
		processes = "not counted (" + a.ProcessesNotKnown + ")"
	}
	fmt.Fprintf(b, "\nOne more run of %s: %s. CPU: %s user, %s system. Processes: %s. Read: %s, "+
		"from the disk: %s. Written: %s, to the disk: %s.\n", a.of,
		span(a.Ended.Sub(a.Began).Seconds()), span(a.User.Seconds()), span(a.System.Seconds()),
		processes, bytes(a.Read), bytes(a.FromDisk), bytes(a.Written), bytes(a.ToDisk))
	if len(a.phases) == 0 {
		return
	}
	b.WriteString("\n| phase | pieces | time |\n| --- | --- | --- |\n")
	for _, p := range a.phases {
		pieces := ""
		if p.pieces > 0 {
			pieces = number(p.pieces)
		}
		if p.cached > 0 {
			pieces += ", " + number(p.cached) + " cached"
		}
		cells(b, []string{p.name, pieces, span(p.took.Seconds())})
	}
}

// accountChild RESULT TRACING COMMAND ARG... runs a command and writes what it used to a file.
// TRACING is a directory that it makes in tracefs, or empty.
func accountChild(ctx context.Context, args []string) error {
	if len(args) < 3 {
		return errors.New("usage: account RESULT TRACING COMMAND [ARG...]")
	}
	u := usage{Processes: -1, ProcessesNotKnown: "no tracefs"}
	var trace *newTasks
	if args[1] != "" {
		// The first call makes os start a process, to try pidfds.
		os.FindProcess(os.Getpid())
		var err error
		if trace, err = countTasks(args[1]); err != nil {
			u.ProcessesNotKnown = err.Error()
		}
	}
	// The kernel adds the numbers of a process to those of the one that waits for its end.
	before := readIO()
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := exec.CommandContext(ctx, args[2], args[3:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	u.Began = time.Now()
	err := cmd.Run()
	u.Ended = time.Now()
	if cmd.ProcessState != nil {
		u.User, u.System = cmd.ProcessState.UserTime(), cmd.ProcessState.SystemTime()
	}
	after := readIO()
	for key, to := range map[string]*int64{"rchar": &u.Read, "wchar": &u.Written,
		"read_bytes": &u.FromDisk, "write_bytes": &u.ToDisk} {
		if *to = -1; before != nil && after != nil {
			*to = after[key] - before[key]
		}
	}
	if trace != nil {
		n, err := trace.close()
		if err == nil {
			u.Processes, u.ProcessesNotKnown = n, ""
		} else {
			u.ProcessesNotKnown = err.Error()
		}
	}
	raw, marshalErr := json.Marshal(u)
	return errors.Join(err, marshalErr, os.WriteFile(args[0], raw, 0o644))
}

// readIO returns the numbers of /proc/self/io, nil if they cannot be read.
func readIO() map[string]int64 {
	raw, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return nil
	}
	all := map[string]int64{}
	for line := range strings.Lines(string(raw)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			all[key] = n
		}
	}
	return all
}

// newTasks counts the processes that this process and its descendants start. It uses a trace buffer
// of its own, which other users of tracefs do not see.
type newTasks struct{ dir string }

func countTasks(dir string) (*newTasks, error) {
	t := &newTasks{dir: dir}
	if err := os.Mkdir(t.dir, 0o755); err != nil {
		return nil, err
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, errors.Join(err, os.Remove(t.dir))
	}
	var own []string
	for _, e := range threads {
		own = append(own, e.Name())
	}
	for _, file := range [][2]string{
		{"options/event-fork", "1"}, // the children of a traced task are traced too
		{"set_event_pid", strings.Join(own, " ")},
		{"events/task/task_newtask/filter", "!(clone_flags & 0x10000)"}, // CLONE_THREAD
		{"events/task/task_newtask/enable", "1"},
	} {
		if err := os.WriteFile(filepath.Join(t.dir, file[0]), []byte(file[1]), 0o644); err != nil {
			return nil, errors.Join(err, os.Remove(t.dir))
		}
	}
	return t, nil
}

// close returns the number of processes.
func (t *newTasks) close() (int, error) {
	disable := os.WriteFile(filepath.Join(t.dir, "events/task/task_newtask/enable"), []byte("0"),
		0o644)
	raw, err := os.ReadFile(filepath.Join(t.dir, "trace"))
	if err := errors.Join(disable, err, os.Remove(t.dir)); err != nil {
		return 0, err
	}
	return tasks(string(raw))
}

// tasks counts the events of a trace. Its head has the number of events in the buffer and of all
// events.
func tasks(trace string) (int, error) {
	_, head, _ := strings.Cut(trace, "entries-in-buffer/entries-written: ")
	var kept, written int
	if _, err := fmt.Sscanf(head, "%d/%d", &kept, &written); err != nil {
		return 0, errors.New("the trace of the kernel has another form")
	}
	if kept != written {
		return 0, errors.New("more than the kernel's trace buffer holds")
	}
	return kept, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A lab holds the peers that are measured, and the means of measuring them.
type lab struct {
	options options
	sizes   sizes
	disk    *disk
	run     string // directory for sockets, whose paths must be short
	peers   []*peer
	missing []string          // peers that are left out, with the reasons
	group   *group            // group of commands that do not belong to a peer
	made    map[string]string // fixtures: their directories by name
	pool    []byte            // contents of small files
	served  *registry
	cleanup []func() // ends what was started beside served
	tracing string   // a directory to make in tracefs, "" if tracefs cannot be mounted
	log     io.Writer
}

// newLab makes a lab on a file system of the kind fs.
func newLab(ctx context.Context, o options, fs string) (l *lab, err error) {
	l = &lab{options: o, sizes: full, made: map[string]string{}, log: os.Stderr}
	if o.quick {
		l.sizes = quick
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.disk, err = newDisk(ctx, o, fs); err != nil {
		return l, err
	}
	if l.run, err = os.MkdirTemp("", "lb-bench-"); err != nil {
		return l, err
	}
	if at := filepath.Join(l.run, "tracing"); os.Mkdir(at, 0o755) == nil &&
		command(ctx, "mount", "-t", "tracefs", "tracefs", at) == nil {
		// When l.run is removed, everything below it is unmounted.
		l.tracing = filepath.Join(at, "instances", groupTop())
	}
	l.group = newGroup("other")
	for name := range strings.SplitSeq(o.peers, ",") {
		p, err := newPeer(name, o, filepath.Join(l.disk.dir, name), l.run)
		if err != nil {
			l.missing = append(l.missing, fmt.Sprintf("%s: %v", name, err))
			fmt.Fprintf(l.log, "left out: %s: %v\n", name, err)
			continue
		}
		l.peers = append(l.peers, p)
	}
	if len(l.peers) == 0 {
		return l, errors.New("no tool to measure")
	}
	return l, nil
}

func (l *lab) close() error {
	var errs []error
	l.endRegistry()
	for _, p := range l.peers {
		errs = append(errs, p.close())
	}
	if l.group != nil {
		errs = append(errs, l.group.close())
	}
	sweepGroups()
	if l.tracing != "" {
		os.Remove(l.tracing) // exists if an account was interrupted
	}
	if l.run != "" {
		errs = append(errs, remove(l.run))
	}
	if l.disk != nil {
		errs = append(errs, l.disk.close())
	}
	return errors.Join(errs...)
}

// A work is a task that is measured with several contenders.
type work struct {
	name  string // for -cases
	title string
	what  string // description of the work
	curve bool   // shows how one tool scales instead of comparing tools
	unit  string // what contender.units counts: "step"
	goals []goal
	make  func(ctx context.Context, l *lab) ([]contender, error)
}

// A contender is one way to do the work.
type contender struct {
	name  string
	group *group
	// number of units in the measured work
	units    int
	before   func(ctx context.Context, run int) error // prepares; not measured
	commands func() ([]*exec.Cmd, error)              // measured, one after the other
	// checks the result; not measured
	after func(ctx context.Context, s *sample, out string) error
	// the commands are layerbuild's: the report shows where their time goes
	own bool
}

// A sample holds the measured values of one run.
type sample struct {
	wall, cpu time.Duration
	memory    int64 // peak of the sum of the processes' resident memory
	size      int64 // size of the result, if it is reported
	// moved are the bytes that were sent and received, and requests the requests, if a proxy has
	// counted them.
	moved, requests int64
}

// A result holds all runs of a work.
type result struct {
	work
	fs   string // the file system, if there are several
	note string // reason for missing figures
	rows []row

	account    *account // of the last contender whose commands are layerbuild's
	accountErr string   // why there is no account
}

type row struct {
	name    string
	units   int
	failure string
	samples []sample
}

// curveRuns limits how often a point of a curve is measured: the points of a curve confirm each
// other, and the last ones take long.
const curveRuns = 1

// timeout ends commands that hang. It is many times longer than any build.
const timeout = 30 * time.Minute

// measure runs the contenders of a work in turn, so that other load on the machine affects all of
// them. It returns an error only if it was interrupted: other errors are in the result.
func (l *lab) measure(ctx context.Context, w work) (result, error) {
	fmt.Fprintf(l.log, "%s: %s\n", w.name, w.title)
	result := result{work: w}
	contenders, err := w.make(ctx, l)
	if ctx.Err() != nil {
		return result, ctx.Err()
	}
	if err != nil {
		result.note = err.Error()
		fmt.Fprintf(l.log, "  left out: %v\n", err)
		return result, nil
	}
	for _, c := range contenders {
		result.rows = append(result.rows, row{name: c.name, units: c.units})
	}
	runs := l.options.runs
	if w.curve {
		runs = min(runs, curveRuns)
	}
	for run := range runs {
		for i := range contenders {
			// Each contender is the first one in some run.
			n := (i + run) % len(contenders)
			c, r := contenders[n], &result.rows[n]
			if r.failure != "" {
				continue
			}
			s, err := l.once(ctx, c, run)
			if ctx.Err() != nil {
				return result, ctx.Err()
			}
			if err != nil {
				r.failure = err.Error()
				fmt.Fprintf(l.log, "  %s: %v\n", c.name, err)
				continue
			}
			r.samples = append(r.samples, s)
			fmt.Fprintf(l.log, "  %-20s %8.3f s  %8.3f s CPU  %6.1f MB\n", c.name, s.wall.Seconds(),
				s.cpu.Seconds(), float64(s.memory)/1e6)
		}
	}
	if err := l.addAccount(ctx, contenders, &result, runs); err != nil {
		return result, err
	}
	return result, l.clean()
}

// addAccount adds the account of the last contender whose commands are layerbuild's. It returns an
// error only if it was interrupted.
func (l *lab) addAccount(ctx context.Context, contenders []contender, r *result, run int) error {
	for i, c := range slices.Backward(contenders) {
		if !c.own || r.rows[i].failure != "" {
			continue
		}
		var err error
		if r.account, err = l.account(ctx, c, run); err != nil {
			r.accountErr = c.name + ": " + err.Error()
			fmt.Fprintf(l.log, "  no account of %s: %v\n", c.name, err)
		}
		return ctx.Err()
	}
	return nil
}

// clean empties the stores and removes the files of the last work.
func (l *lab) clean() error {
	var errs []error
	for _, p := range l.peers {
		errs = append(errs, p.stop(), remove(p.dir))
	}
	l.endRegistry()
	return errors.Join(append(errs, remove(l.path("temp")))...)
}

func (l *lab) path(elem ...string) string {
	return filepath.Join(append([]string{l.disk.dir}, elem...)...)
}

// once prepares and measures one run.
func (l *lab) once(ctx context.Context, c contender, run int) (s sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if c.before != nil {
		if err := c.before(ctx, run); err != nil {
			return s, err
		}
	}
	cmds, err := c.commands()
	if err != nil {
		return s, err
	}
	log, err := os.Create(filepath.Join(l.run, "command.log"))
	if err != nil {
		return s, err
	}
	defer log.Close()
	if !l.options.quick {
		l.disk.settle(ctx)
	}
	used, err := c.group.cpu()
	if err != nil {
		return s, err
	}
	peak := c.group.watch()
	began := time.Now()
	for _, cmd := range cmds {
		// Use a file: a goroutine would have to copy from a pipe during the measurement.
		cmd.Stdout, cmd.Stderr = log, log
		if err = c.group.run(ctx, cmd); err != nil {
			err = fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, tail(log.Name()))
			break
		}
	}
	s.wall = time.Since(began)
	s.memory = peak()
	if err != nil {
		return s, err
	}
	now, err := c.group.cpu()
	if err != nil {
		return s, err
	}
	s.cpu = now - used
	if c.after == nil {
		return s, nil
	}
	out, err := os.ReadFile(log.Name())
	if err != nil {
		return s, err
	}
	return s, c.after(ctx, &s, string(out))
}

// do runs a command of a peer without measuring it.
func (l *lab) do(ctx context.Context, p *peer, line []string) error {
	log, err := os.Create(filepath.Join(l.run, "command.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := p.command(line)
	cmd.Stdout, cmd.Stderr = log, log
	if err := p.group.run(ctx, cmd); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(line[0]), err, tail(log.Name()))
	}
	return nil
}

func (p *peer) command(line []string) *exec.Cmd {
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(os.Environ(), p.env...)
	return cmd
}

// sizeSaid reads the size of the result from the command's output.
func sizeSaid(_ context.Context, s *sample, out string) (err error) {
	s.size, err = strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	return err
}

// each makes a contender of each peer.
func (l *lab) each(f func(p *peer) contender) []contender {
	var all []contender
	for _, p := range l.peers {
		c := f(p)
		c.name, c.group, c.own = p.name, p.group, p.name == layerbuild
		all = append(all, c)
	}
	return all
}

// peer returns the peer of a name.
func (l *lab) peer(name string) (*peer, error) {
	i := slices.IndexFunc(l.peers, func(p *peer) bool { return p.name == name })
	if i < 0 {
		return nil, fmt.Errorf("%s is not measured", name)
	}
	return l.peers[i], nil
}

// tail returns the end of a log.
func tail(name string) string {
	raw, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(raw[max(0, len(raw)-1000):]))
}

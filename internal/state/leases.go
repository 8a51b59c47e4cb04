package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/internal/smallfile"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
)

// leaseKind is the kind of data that a lease is for. A lease is a line of a file in running/: the
// kind, a space, and a name.
type leaseKind string

const (
	leasedSnapshot leaseKind = "snapshot" // with those that it is made on, and its records
	leasedBlob     leaseKind = "blob"
	leasedImage    leaseKind = "image" // a blob and all that it refers to
	leasedMount    leaseKind = "mount"
	leasedRecord   leaseKind = "record" // by its path below the state directory
)

// leases are the parts of the state that this process uses. Each process that has the state open
// has a file in running/, which it keeps locked while it lives. It appends the name of each part of
// the state before it looks the part up or makes it. While it appends, it holds the gate, the file
// "lock" of the state, in shared mode. A collector holds the gate exclusively from before it reads
// all these files until it has renamed the parts that it removes. So a part is either leased before
// the collector reads the leases, and is kept, or looked up after it has been renamed, and is not
// found.
type leases struct {
	root string
	gate *lock.Held
	id   string // the name of the file in running/
	file *lock.Held

	// turn holds a value while a goroutine uses the gate, the file and the fields below. It is a
	// mutex for which a goroutine waits only until its context ends.
	//
	// It is held while add waits for the gate and writes the file: when add returns, its lines are
	// in the file, also those that another goroutine was adding. The wait is for a collector of
	// another process, which holds the gate until it has renamed what it removes.
	//
	// It is also held while collecting waits for the gate: between its attempts the gate is not
	// locked, and nothing may be leased then.
	turn chan struct{}
	held map[string]bool // lines in the file
	// leases cannot be written: the gate is held in shared mode until the end, so that no process
	// collects
	all    bool
	paused bool  // this process collects, and its reads lease nothing
	lost   error // all was set, and another process took the gate; nothing can be leased any more
}

func runningDir(root string) string { return filepath.Join(root, runningName) }

// openLeases makes the file of this process.
func openLeases(ctx context.Context, root string) (_ *leases, err error) {
	l := &leases{root: root, turn: make(chan struct{}, 1), held: map[string]bool{}}
	if l.gate, err = lock.Acquire(ctx, filepath.Join(root, gateName), false); err != nil {
		return nil, err
	}
	if l.file, err = makeRunning(ctx, runningDir(root)); err != nil {
		if !noSpace(err) {
			return nil, errors.Join(err, l.gate.Close())
		}
		l.all = true
		return l, nil
	}
	l.id = filepath.Base(l.file.File().Name())
	return l, l.gate.Unlock()
}

// makeRunning makes and locks a file in dir. The gate is held, so that no collector sees the file
// before it is locked.
func makeRunning(ctx context.Context, dir string) (*lock.Held, error) {
	f, err := os.CreateTemp(dir, "")
	if errors.Is(err, os.ErrNotExist) {
		if err = os.Mkdir(dir, 0o700); err == nil || errors.Is(err, os.ErrExist) {
			f, err = os.CreateTemp(dir, "")
		}
	}
	if err != nil {
		return nil, err
	}
	held, err := lock.Hold(ctx, f, true)
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()), f.Close())
	}
	return held, nil
}

// close ends all leases.
func (l *leases) close() error {
	var err error
	if l.file != nil {
		if err = os.Remove(l.file.File().Name()); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		err = errors.Join(err, l.file.Close())
	}
	return errors.Join(err, l.gate.Close())
}

// enter waits until no other goroutine has the turn, or until ctx ends. The caller then calls
// leave.
func (l *leases) enter(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}: // also if ctx has ended
		return nil
	default:
	}
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("lock the state directory: %w", context.Cause(ctx))
	}
}

func (l *leases) leave() { <-l.turn }

// add leases parts of the state. It waits for a collector that has the gate, until ctx ends. After
// an error it has leased nothing, and may be called again. If the file cannot be written, as on a
// full disk, add keeps the gate instead and returns no error.
func (l *leases) add(ctx context.Context, lines ...string) error {
	if err := l.enter(ctx); err != nil {
		return err
	}
	defer l.leave()
	if l.lost != nil {
		return l.lost
	}
	if l.all || l.paused {
		return nil
	}
	lines = slices.DeleteFunc(lines, func(line string) bool { return l.held[line] })
	if len(lines) == 0 {
		return nil
	}
	if err := l.gate.Wait(ctx, false); err != nil {
		return fmt.Errorf("lock the state directory: %w", err)
	}
	_, err := l.file.File().WriteString(strings.Join(lines, "\n") + "\n")
	if err == nil {
		err = l.gate.Unlock()
	}
	l.all = err != nil
	for _, line := range lines {
		l.held[line] = true
	}
	return nil
}

func line(kind leaseKind, name string) string { return string(kind) + " " + name }

func (s *State) leaseSnapshot(ctx context.Context, id snapshot.ID) error {
	return s.leases.add(ctx, line(leasedSnapshot, string(id)))
}

func (s *State) leaseBlob(ctx context.Context, d digest.Digest, image bool) error {
	kind := leasedBlob
	if image {
		kind = leasedImage
	}
	return s.leases.add(ctx, line(kind, string(d)))
}

func (s *State) leaseRecord(ctx context.Context, file, id string) error {
	lines := []string{line(leasedRecord, s.relative(file))}
	if id != "" {
		lines = append(lines, line(leasedSnapshot, id))
	}
	return s.leases.add(ctx, lines...)
}

// LeaseMount keeps collectors from removing the directory of a cache mount until the state is
// closed. It waits for a collector of another process until ctx ends, and then returns the cause
// (context.Cause).
func (s *State) LeaseMount(ctx context.Context, name string) error {
	return s.leases.add(ctx, line(leasedMount, name))
}

// relative returns a path relative to the state directory.
func (s *State) relative(path string) string {
	rel, _ := strings.CutPrefix(path, s.Root+"/")
	return rel
}

// inUse contains the leases of all processes that have the state open.
type inUse struct {
	held   map[string]bool // lines of their files
	owners map[string]bool // the names of their files
}

func (u inUse) has(kind leaseKind, name string) bool { return u.held[line(kind, name)] }

// hasBlob reports whether a blob is leased, alone or as an image.
func (u inUse) hasBlob(d digest.Digest) bool {
	return u.has(leasedBlob, string(d)) || u.has(leasedImage, string(d))
}

// read returns the leases of all processes. The caller holds the gate exclusively. read removes the
// files of processes that have ended.
func (l *leases) read() (inUse, error) {
	u := inUse{held: map[string]bool{}, owners: map[string]bool{}}
	for line := range l.held {
		u.held[line] = true
	}
	if l.id != "" {
		u.owners[l.id] = true
	}
	dir := runningDir(l.root)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return u, err
	}
	for _, e := range entries {
		if e.Name() == l.id {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if !e.Type().IsRegular() { // damage
			if err := os.RemoveAll(path); err != nil {
				return u, err
			}
			continue
		}
		ended, err := lock.TryExisting(path)
		switch {
		case err == nil:
			if err := errors.Join(os.Remove(path), ended.Close()); err != nil {
				return u, err
			}
		case errors.Is(err, os.ErrNotExist): // its process has ended meanwhile
		case !errors.Is(err, lock.ErrHeld):
			return u, err
		default:
			if err := u.add(path); err != nil {
				return u, err
			}
		}
	}
	return u, nil
}

// add adds the leases of a process.
func (u inUse) add(path string) error {
	data, err := smallfile.Read(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	u.owners[filepath.Base(path)] = true
	for line := range bytes.Lines(data) {
		u.held[string(bytes.TrimSuffix(line, []byte("\n")))] = true
	}
	return nil
}

// gateWait is how long a build waits for the gate before it skips the collection. Other processes
// hold the gate only briefly, unless they are stopped or their disk is full.
const gateWait = 2 * time.Second

var errGateHeld = errors.New("another process holds the lock of the state directory")

// collecting takes the gate exclusively, and waits at most the given time for it, or until ctx is
// canceled if it is 0. It returns errGateHeld if the time is over. The caller calls release when
// everything that is removed has been renamed.
func (l *leases) collecting(ctx context.Context,
	wait time.Duration) (release func() error, err error) {
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	defer l.leave()
	if l.lost != nil {
		return nil, l.lost
	}
	began := time.Now()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := l.gate.Convert(true)
		if err == nil {
			break
		}
		if !errors.Is(err, lock.ErrHeld) {
			return nil, fmt.Errorf("lock the state directory: %w", err)
		}
		if wait > 0 && time.Since(began) > wait {
			return nil, errors.Join(errGateHeld, l.releaseGate(ctx))
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), l.releaseGate(ctx))
		case <-time.After(pause):
		}
	}
	l.paused = true
	return func() error {
		l.turn <- struct{}{} // no one holds it for long: reads lease nothing until paused is false
		defer l.leave()
		l.paused = false
		return l.releaseGate(ctx)
	}, nil
}

// releaseGate releases the gate, or takes it in shared mode if that replaces all leases. If ctx
// ends while a collector of another process has the gate, the leases are lost.
func (l *leases) releaseGate(ctx context.Context) error {
	if !l.all {
		return l.gate.Unlock()
	}
	if err := l.gate.Wait(ctx, false); err != nil {
		l.lost = fmt.Errorf("lock the state directory: %w", err)
	}
	return l.lost
}

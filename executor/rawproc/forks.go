package rawproc

import (
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// forks holds the processes that may have copies of this program's descriptors.
var forks forkList

type forkList struct {
	mu  sync.Mutex
	all []*Process
}

func (l *forkList) add(p *Process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, p)
}

// open returns the processes that may have copies.
func (l *forkList) open() []*Process {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = slices.DeleteFunc(l.all, (*Process).closed)
	return slices.Clone(l.all)
}

// closed reports whether the process has closed its copies.
func (p *Process) closed() bool {
	return p.closes > 0 && atomic.LoadUintptr(&p.list[p.closes-1].ret) == 0
}

// Ended records that the process has ended, or executes another program. It may be called more than
// once.
func (p *Process) Ended() {
	forks.mu.Lock()
	defer forks.mu.Unlock()
	forks.all = slices.DeleteFunc(forks.all, func(q *Process) bool { return p == q })
}

// Settle waits until no process that was started before by this package or by os.StartProcess has a
// copy of one of this program's descriptors. A process closes its copies as soon as it gets a CPU.
func Settle() {
	// os.StartProcess holds this lock until the new process executes its program.
	syscall.ForkLock.Lock()
	syscall.ForkLock.Unlock() //nolint:staticcheck // only waits
	for before := forks.open(); len(before) > 0; {
		now := forks.open()
		before = slices.DeleteFunc(before, func(p *Process) bool {
			return !slices.Contains(now, p)
		})
		if len(before) > 0 {
			time.Sleep(50 * time.Microsecond)
		}
	}
}

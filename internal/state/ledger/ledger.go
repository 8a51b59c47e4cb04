package ledger

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/internal/smallfile"
)

// Mark records when data were written: the boot, and the number of syncs that had been started in
// that boot.
type Mark struct {
	Boot  string
	Syncs int
}

// Unknown is the number of syncs in a mark without that number: the mark is safe only in its own
// boot.
const Unknown = math.MaxInt

// Ledger is a file that several processes share. It is safe for concurrent use. Methods that change
// the file wait for its lock until their context ends, and then return the cause (context.Cause).
type Ledger struct {
	dir     string
	boot    string
	earlier func() map[string]boot // by boot id: other boots, read once; they no longer change
}

// boot is the state of one boot.
type boot struct {
	begun, done int
	// unsynced is set if there is work to sync. It was first noted at since, and last noted after
	// noted syncs had been started.
	unsynced bool
	noted    int
	since    time.Time
}

// maxBoots is the largest number of boots in the file. Marks of boots that are dropped are no
// longer safe.
const maxBoots = 256

// Open returns the ledger of the directory dir, which must exist, for the machine's current boot.
func Open(dir string) (*Ledger, error) {
	id, err := smallfile.BootID()
	if err != nil {
		return nil, fmt.Errorf("open the ledger of syncs: read the boot id: %w", err)
	}
	return OpenBoot(dir, id), nil
}

// OpenBoot is like Open, for a given boot.
func OpenBoot(dir, id string) *Ledger {
	l := &Ledger{dir: dir, boot: id}
	l.earlier = sync.OnceValue(func() map[string]boot {
		all, _ := l.read()
		return all
	})
	return l
}

// Boot returns the id of the current boot.
func (l *Ledger) Boot() string { return l.boot }

// Dir returns the directory of the ledger.
func (l *Ledger) Dir() string { return l.dir }

func (l *Ledger) file() string { return filepath.Join(l.dir, "syncs") }

// Mark returns the mark of the data written until now.
func (l *Ledger) Mark() Mark {
	all, _ := l.read()
	return Mark{l.boot, all[l.boot].begun}
}

// Safe reports whether the data with the mark are on the disk, or still in memory.
func (l *Ledger) Safe(m Mark) bool {
	if m.Boot == l.boot {
		return true
	}
	// Data written after a sync was started have the number of that sync, and are safe only after
	// the next one.
	return m.Syncs < l.earlier()[m.Boot].done
}

// Begin is called before the file systems of the state directory are synced. It returns the sync's
// number.
func (l *Ledger) Begin(ctx context.Context) (int, error) {
	var n int
	err := l.change(ctx, func(b *boot) {
		b.begun++
		n = b.begun
	})
	return n, err
}

// Done is called after sync n has succeeded: marks from before its Begin are safe in later boots
// too.
func (l *Ledger) Done(ctx context.Context, n int) error {
	return l.change(ctx, func(b *boot) {
		b.done = max(b.done, n)
		if b.noted < n {
			b.unsynced = false
		}
	})
}

// Note records that there is work to sync.
func (l *Ledger) Note(ctx context.Context) error {
	all, _ := l.read()
	if b := all[l.boot]; b.unsynced && b.noted == b.begun {
		return nil
	}
	return l.change(ctx, func(b *boot) {
		if !b.unsynced {
			b.since = time.Now()
		}
		b.unsynced, b.noted = true, b.begun
	})
}

// Unsynced reports whether there is work to sync, and since when.
func (l *Ledger) Unsynced() (since time.Time, ok bool) {
	all, _ := l.read()
	return all[l.boot].since, all[l.boot].unsynced
}

// read reads a line for each boot, oldest first: its id, the number of syncs started, the number of
// the last that has succeeded, and if there is work to sync, the number of syncs started when it
// was noted and the time of the first note in seconds. Lines that cannot be read are ignored: data
// with marks of those boots are treated as unsafe, and are made again.
func (l *Ledger) read() (all map[string]boot, order []string) {
	all = map[string]boot{}
	data, err := smallfile.Read(l.file())
	if err != nil {
		return all, nil
	}
	for line := range strings.Lines(string(data)) {
		id, b, ok := parse(line)
		if !ok {
			continue
		}
		if _, ok := all[id]; !ok {
			order = append(order, id)
		}
		all[id] = b
	}
	return all, order
}

func parse(line string) (id string, b boot, ok bool) {
	f := strings.Fields(line)
	if len(f) != 3 && len(f) != 5 || !strings.HasSuffix(line, "\n") { // truncated by a crash
		return "", b, false
	}
	numbers := make([]int64, len(f)-1)
	for i, s := range f[1:] {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return "", b, false
		}
		numbers[i] = n
	}
	b.begun, b.done = int(numbers[0]), int(numbers[1])
	if len(numbers) == 4 {
		b.unsynced, b.noted, b.since = true, int(numbers[2]), time.Unix(numbers[3], 0)
	}
	return f[0], b, true
}

// change changes the state of this boot.
func (l *Ledger) change(ctx context.Context, change func(*boot)) error {
	held, err := lock.Acquire(ctx, filepath.Join(l.dir, "lock"), true)
	if err != nil {
		return fmt.Errorf("write the ledger of syncs: %w", err)
	}
	defer held.Close()
	all, order := l.read()
	b, ok := all[l.boot]
	if !ok {
		order = append(order, l.boot)
	}
	change(&b)
	all[l.boot] = b
	if len(order) > maxBoots {
		order = order[len(order)-maxBoots:]
	}
	var text strings.Builder
	for _, id := range order {
		b := all[id]
		fmt.Fprintf(&text, "%s %d %d", id, b.begun, b.done)
		if b.unsynced {
			fmt.Fprintf(&text, " %d %d", b.noted, b.since.Unix())
		}
		text.WriteByte('\n')
	}
	if err := (atomicfile.Own{Locked: true, Perm: 0o644}).ReplaceFile(l.file(),
		[]byte(text.String())); err != nil {
		return fmt.Errorf("write the ledger of syncs: %w", err)
	}
	return nil
}

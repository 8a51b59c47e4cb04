package ledger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/lock/locktest"
	"github.com/layerbuild/layerbuild/internal/workertest"
)

func TestSafe(t *testing.T) {
	dir := t.TempDir()
	one := OpenBoot(dir, "boot1")
	marks := map[string]Mark{"before": one.Mark()}
	n := begin(t, one)
	marks["during"] = one.Mark()
	done(t, one, n)
	marks["after"] = one.Mark()
	begin(t, one) // a sync that failed
	marks["after a failed sync"] = one.Mark()
	marks["that does not say"] = Mark{"boot1", Unknown}
	for name, m := range marks {
		if !one.Safe(m) {
			t.Errorf("%s: not safe in its own boot", name)
		}
		if got := OpenBoot(dir, "boot2").Safe(m); got != (name == "before") {
			t.Errorf("%s: safe in the next boot: %v", name, got)
		}
	}
	// A sync in the next boot does not restore data that the crash may have lost.
	two := OpenBoot(dir, "boot2")
	done(t, two, begin(t, two))
	if two.Safe(marks["after"]) {
		t.Error("safe after a sync in the next boot")
	}
}

func begin(t *testing.T, l *Ledger) int {
	t.Helper()
	n, err := l.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func done(t *testing.T, l *Ledger, n int) {
	t.Helper()
	if err := l.Done(t.Context(), n); err != nil {
		t.Fatal(err)
	}
}

// TestNote makes notes before, during and after syncs.
func TestNote(t *testing.T) {
	unsynced := func(l *Ledger, when string, want bool) {
		t.Helper()
		if _, got := l.Unsynced(); got != want {
			t.Errorf("%s: unsynced is %v, want %v", when, got, want)
		}
	}
	note := func(l *Ledger) {
		t.Helper()
		if err := l.Note(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	l := OpenBoot(dir, "boot1")
	unsynced(l, "at first", false)
	note(l)
	since, _ := l.Unsynced()
	n := begin(t, l)
	unsynced(l, "while the sync is made", true)
	begin(t, l) // this sync fails
	unsynced(l, "after a failed sync", true)
	done(t, l, n)
	unsynced(l, "after a sync", false)

	note(l)
	n = begin(t, l)
	note(l) // by a build that ends during the sync
	if again, _ := l.Unsynced(); again.Before(since) {
		t.Errorf("noted at %v, and then at %v", since, again)
	}
	done(t, l, n)
	unsynced(l, "after a sync while which something was written", true)
	done(t, l, begin(t, l))
	unsynced(l, "after the next sync", false)

	note(l)
	unsynced(OpenBoot(dir, "boot2"), "in the next boot, where the work is lost", false)
}

func TestManyBoots(t *testing.T) {
	dir := t.TempDir()
	for i := range maxBoots + 10 {
		l := OpenBoot(dir, fmt.Sprintf("boot%d", i))
		done(t, l, begin(t, l))
	}
	for i, want := range map[int]bool{0: false, 9: false, 10: true, maxBoots + 9: true} {
		if got := OpenBoot(dir, "now").Safe(Mark{fmt.Sprintf("boot%d", i), 0}); got != want {
			t.Errorf("mark of boot %d safe: %v, want %v", i, got, want)
		}
	}
}

// TestDamage reads a damaged ledger: no data of earlier boots are safe, and the next sync repairs
// it.
func TestDamage(t *testing.T) {
	damage := map[string]func(path string) error{
		"empty": func(p string) error { return os.Truncate(p, 0) },
		"cut":   func(p string) error { return os.Truncate(p, int64(len("boot1 1 1"))) },
		"garbage": func(p string) error {
			return os.WriteFile(p, []byte("boot1 x 9\nboot1\n\x00\x00"), 0o644)
		},
		"negative": func(p string) error { return os.WriteFile(p, []byte("boot1 -1 9\n"), 0o644) },
		"missing":  os.Remove,
		"directory": func(p string) error {
			os.Remove(p)
			return os.MkdirAll(filepath.Join(p, "x"), 0o755)
		},
	}
	for name, break_ := range damage {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			one := OpenBoot(dir, "boot1")
			m := one.Mark()
			done(t, one, begin(t, one))
			if err := break_(one.file()); err != nil {
				t.Fatal(err)
			}
			two := OpenBoot(dir, "boot2")
			if two.Safe(m) {
				t.Error("a mark of an earlier boot is safe")
			}
			m = two.Mark()
			done(t, two, begin(t, two))
			if !OpenBoot(dir, "boot3").Safe(m) {
				t.Error("a sync after the damage is not recorded")
			}
		})
	}
}

// TestCanceled cancels changes that wait for the lock. They leave the ledger as it was.
func TestCanceled(t *testing.T) {
	for name, change := range map[string]func(context.Context, *Ledger) error{
		"Begin": func(ctx context.Context, l *Ledger) error {
			_, err := l.Begin(ctx)
			return err
		},
		"Done": func(ctx context.Context, l *Ledger) error { return l.Done(ctx, 2) },
		"Note": func(ctx context.Context, l *Ledger) error { return l.Note(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			l := OpenBoot(t.TempDir(), "boot")
			done(t, l, begin(t, l))
			begin(t, l)
			before, err := os.ReadFile(l.file())
			if err != nil {
				t.Fatal(err)
			}
			calls := 0
			locktest.Canceled(t, filepath.Join(l.dir, "lock"), func(ctx context.Context) error {
				if calls++; calls == 2 { // after the canceled call
					after, err := os.ReadFile(l.file())
					if err != nil || string(after) != string(before) {
						t.Errorf("the ledger is %q, %v, and was %q", after, err, before)
					}
				}
				return change(ctx, l)
			})
			if after, err := os.ReadFile(l.file()); err != nil || string(after) == string(before) {
				t.Errorf("the second call has changed nothing: %q, %v", after, err)
			}
		})
	}
}

// TestProcesses starts and ends syncs in several processes at once.
func TestProcesses(t *testing.T) {
	dir := workertest.Run(t, 2, func(dir, _ string) error {
		l := OpenBoot(dir, "boot")
		for range 30 {
			n, err := l.Begin(t.Context())
			if err == nil {
				err = l.Note(t.Context())
			}
			if err == nil {
				err = l.Done(t.Context(), n)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	all, _ := OpenBoot(dir, "boot").read()
	if b := all["boot"]; b.begun != 120 || b.done != 120 {
		t.Errorf("%d syncs begun and %d done, want 120", b.begun, b.done)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("boot 1 1\n")
	f.Add("boot 3 2 1 1767225600\n")
	f.Fuzz(func(t *testing.T, line string) {
		id, b, ok := parse(line)
		if ok && (id == "" || strings.ContainsAny(id, " \n") || b.begun < 0 || b.done < 0) {
			t.Errorf("parse(%q) = %q, %+v", line, id, b)
		}
	})
}

// Package rounds runs randomized tests round by round, each round from one seed.
//
// A run of go test executes the fixed seeds and a few fresh ones. With LAYERBUILD_FAULTS=1, which make faults sets, a test
// goes on from the last seed that its ledger records until it has passed the number of rounds asked for, so that hours of
// rounds can be spread over several runs. LAYERBUILD_SEED=N runs the one round of seed N.
package rounds

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Options has the number of rounds of a test.
type Options struct {
	Fixed int // go test runs the seeds 1 to Fixed
	Fresh int // and then this many seeds chosen at random
	Long  int // make faults runs the seeds 1 to Long, over as many runs as it takes

	// Found holds seeds that found a fault once. They run in each mode, before all others.
	Found []uint64
}

// Environment variables that choose the mode.
const (
	faultsEnv  = "LAYERBUILD_FAULTS"         // "1": long, with a ledger
	seedEnv    = "LAYERBUILD_SEED"           // one seed, nothing else
	budgetEnv  = "LAYERBUILD_FAULTS_BUDGET"  // a duration after which a long run stops and records how far it has come
	ledgersEnv = "LAYERBUILD_FAULTS_LEDGERS" // the directory of the ledgers; default test/faults/ledger of the checkout
)

// Run calls round with one seed after another, each in a subtest named after its seed. name identifies the ledger: it is
// a file name, unique in the project, with the driver or user in it where a test runs on several.
//
// The first seed that fails ends the run. A failed round prints its seed and the command that repeats it.
func Run(t *testing.T, name string, o Options, round func(t *testing.T, seed uint64)) {
	t.Helper()
	if s := os.Getenv(seedEnv); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", seedEnv, err)
		}
		one(t, name, seed, round)
		return
	}
	for _, seed := range o.Found {
		if !one(t, name, seed, round) {
			return
		}
	}
	if os.Getenv(faultsEnv) == "1" {
		long(t, name, o, round)
		return
	}
	for seed := uint64(1); seed <= uint64(o.Fixed); seed++ {
		if !one(t, name, seed, round) {
			return
		}
	}
	for range o.Fresh {
		if !one(t, name, rand.Uint64(), round) {
			return
		}
	}
}

// one runs the round of one seed and reports whether it passed.
func one(t *testing.T, name string, seed uint64, round func(t *testing.T, seed uint64)) bool {
	t.Helper()
	top, _, _ := strings.Cut(t.Name(), "/")
	return t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%s: seed %d failed; to repeat it: %s=%d go test -count=1 -run '^%s$' in the test's directory", name, seed, seedEnv, seed, top)
			}
		})
		round(t, seed)
	})
}

// long runs the seeds that the ledger does not record yet, and records them.
func long(t *testing.T, name string, o Options, round func(t *testing.T, seed uint64)) {
	t.Helper()
	file := filepath.Join(ledgers(t), name)
	done, err := last(file)
	if err != nil {
		t.Fatal(err)
	}
	first := done + 1
	deadline := time.Time{}
	if s := os.Getenv(budgetEnv); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatalf("%s: %v", budgetEnv, err)
		}
		deadline = time.Now().Add(d)
	}
	for seed := first; seed <= uint64(o.Long); seed++ {
		if !deadline.IsZero() && time.Now().After(deadline) {
			break
		}
		if !one(t, name, seed, round) {
			break
		}
		done = seed
	}
	if done >= first {
		if err := appendRange(file, first, done); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s: %d of %d rounds are recorded in %s", name, done, o.Long, file)
}

// ledgers returns the directory that holds a file for each long test.
func ledgers(t *testing.T) string {
	t.Helper()
	dir := os.Getenv(ledgersEnv)
	if dir == "" {
		top, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
		if err != nil {
			t.Fatalf("%s is not set and this is not a git checkout: %v", ledgersEnv, err)
		}
		dir = filepath.Join(strings.TrimSpace(string(top)), "test", "faults", "ledger")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// last returns the last seed that a ledger records, 0 for a ledger that does not exist. A ledger has a line for each run,
// "FIRST-LAST COMMIT", in ascending order without gaps.
func last(file string) (uint64, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	done := uint64(0)
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		var first, end uint64
		if _, err := fmt.Sscanf(lines.Text(), "%d-%d", &first, &end); err != nil || first != done+1 || end < first {
			return 0, fmt.Errorf("%s: line %q does not continue after seed %d", file, lines.Text(), done)
		}
		done = end
	}
	return done, lines.Err()
}

// appendRange records in a ledger that the seeds first to end have passed with the checkout's present commit.
func appendRange(file string, first, end uint64) error {
	commit := "unknown"
	if out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output(); err == nil {
		commit = strings.TrimSpace(string(out))
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d-%d %s\n", first, end, commit)
	return errors.Join(err, f.Close())
}

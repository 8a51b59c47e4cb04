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
	Long  int // make faults runs the seeds 1 to Long, over as many runs as needed

	// Found has seeds that once found a fault. They run in each mode, before all other seeds.
	Found []uint64
}

// Environment variables that select the mode.
const (
	faultsEnv = "LAYERBUILD_FAULTS" // "1": long, with a ledger
	seedEnv   = "LAYERBUILD_SEED"   // one seed, nothing else
	// a duration after which a long run stops and records its progress
	budgetEnv = "LAYERBUILD_FAULTS_BUDGET"
	// the directory of the ledgers; default test/faults/ledger of the checkout
	ledgersEnv = "LAYERBUILD_FAULTS_LEDGERS"
)

// Run calls round with one seed after another, each in a subtest named after its seed. name
// identifies the ledger: it is a file name, unique in the project, with the driver or user in it if
// a test runs with several.
//
// The first seed that fails ends the run. A failed round prints its seed and the command that
// repeats it.
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
				t.Logf("%s: seed %d failed; to repeat it: %s=%d go test -count=1 -run '^%s$' in "+
					"the test's directory", name, seed, seedEnv, seed, top)
			}
		})
		round(t, seed)
	})
}

// recordEvery is the interval at which a long run writes to its ledger, so that a run that is
// killed loses little.
const recordEvery = time.Minute

// long runs the seeds that are not in the ledger yet, and records them.
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
	recorded, at := done, time.Now()
	record := func() {
		if done == recorded {
			return
		}
		if err := appendRange(file, recorded+1, done); err != nil {
			t.Fatal(err)
		}
		recorded, at = done, time.Now()
	}
	for seed := first; seed <= uint64(o.Long); seed++ {
		if !deadline.IsZero() && time.Now().After(deadline) {
			break
		}
		if !one(t, name, seed, round) {
			break
		}
		done = seed
		if time.Since(at) > recordEvery {
			record()
		}
	}
	record()
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

// span is a line of a ledger: the seeds from first to end have passed with the program of a commit.
type span struct {
	first, end uint64
	commit     string
}

func (s span) String() string { return fmt.Sprintf("%d-%d %s\n", s.first, s.end, s.commit) }

// readLedger returns the lines of a ledger, or none if the ledger does not exist. A ledger has
// lines "FIRST-LAST COMMIT" in ascending order without gaps.
func readLedger(file string) ([]span, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var spans []span
	done := uint64(0)
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		var s span
		if _, err := fmt.Sscanf(lines.Text(), "%d-%d %s", &s.first, &s.end,
			&s.commit); err != nil || s.first != done+1 || s.end < s.first {
			return nil, fmt.Errorf("%s: line %q does not continue after seed %d",
				file, lines.Text(), done)
		}
		done = s.end
		spans = append(spans, s)
	}
	return spans, lines.Err()
}

// last returns the last seed in a ledger, or 0 if the ledger does not exist.
func last(file string) (uint64, error) {
	spans, err := readLedger(file)
	if err != nil || len(spans) == 0 {
		return 0, err
	}
	return spans[len(spans)-1].end, nil
}

// appendRange records in a ledger that the seeds first to end have passed with the checkout's
// present commit. If the last line has the same commit, appendRange extends that line.
func appendRange(file string, first, end uint64) error {
	commit := "unknown"
	if out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output(); err == nil {
		commit = strings.TrimSpace(string(out))
	}
	spans, err := readLedger(file)
	if err != nil {
		return err
	}
	if n := len(spans) - 1; n >= 0 && spans[n].commit == commit && spans[n].end == first-1 {
		spans[n].end = end
	} else {
		spans = append(spans, span{first, end, commit})
	}
	var text strings.Builder
	for _, s := range spans {
		text.WriteString(s.String())
	}
	tmp := file + ".new"
	return errors.Join(os.WriteFile(tmp, []byte(text.String()), 0o644), os.Rename(tmp, file))
}

package rounds

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestRunModes(t *testing.T) {
	tests := []struct {
		name   string
		env    map[string]string
		ledger string // the ledger's content before the run
		want   []uint64
		after  string // beginnings of the ledger's lines after the run
	}{
		{name: "fixed", want: []uint64{7, 1, 2, 3}},
		{name: "one seed", env: map[string]string{seedEnv: "42"}, want: []uint64{42}},
		{name: "long, from the start", env: map[string]string{faultsEnv: "1"},
			want: []uint64{7, 1, 2, 3, 4, 5}, after: "1-5 "},
		{name: "long, resumed", env: map[string]string{faultsEnv: "1"},
			ledger: "1-2 abc\n3-3 def\n", want: []uint64{7, 4, 5}, after: "1-2 abc\n3-3 def\n4-5 "},
		{name: "long, all recorded", env: map[string]string{faultsEnv: "1"}, ledger: "1-5 abc\n",
			want: []uint64{7}, after: "1-5 abc\n"},
		{name: "long, no time", env: map[string]string{faultsEnv: "1", budgetEnv: "0s"},
			want: []uint64{7}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, name := range []string{faultsEnv, seedEnv, budgetEnv} {
				t.Setenv(name, tt.env[name])
			}
			dir := t.TempDir()
			t.Setenv(ledgersEnv, dir)
			file := filepath.Join(dir, "example")
			if tt.ledger != "" {
				if err := os.WriteFile(file, []byte(tt.ledger), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			var got []uint64
			Run(t, "example", Options{Fixed: 3, Long: 5, Found: []uint64{7}},
				func(t *testing.T, seed uint64) { got = append(got, seed) })
			if !slices.Equal(got, tt.want) {
				t.Errorf("seeds = %v, want %v", got, tt.want)
			}
			data, _ := os.ReadFile(file)
			if len(data) < len(tt.after) || string(data[:len(tt.after)]) != tt.after {
				t.Errorf("ledger = %q, want it to begin with %q", data, tt.after)
			}
		})
	}
}

func TestRunFresh(t *testing.T) {
	t.Setenv(faultsEnv, "")
	t.Setenv(seedEnv, "")
	seen := map[uint64]bool{}
	Run(t, "example", Options{Fresh: 4}, func(t *testing.T, seed uint64) { seen[seed] = true })
	if len(seen) != 4 {
		t.Errorf("%d different seeds, want 4", len(seen))
	}
}

func TestLastRefusesGaps(t *testing.T) {
	for _, content := range []string{"2-3 abc\n", "1-2 abc\n4-5 abc\n", "1-0 abc\n", "x\n"} {
		file := filepath.Join(t.TempDir(), "ledger")
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := last(file); err == nil {
			t.Errorf("last accepts %q", content)
		}
	}
}

// TestAppendRangeExtends records seeds in several pieces, as a long run does.
func TestAppendRangeExtends(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger")
	if err := os.WriteFile(file, []byte("1-2 abc\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]uint64{{3, 3}, {4, 9}, {10, 12}} {
		if err := appendRange(file, r[0], r[1]); err != nil {
			t.Fatal(err)
		}
	}
	spans, err := readLedger(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(spans) != 2 || spans[0] != (span{1, 2, "abc"}) ||
		spans[1].first != 3 || spans[1].end != 12 {
		t.Errorf("ledger = %v", spans)
	}
}

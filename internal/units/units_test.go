package units

import (
	"strconv"
	"testing"
)

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		-1: "0B", 0: "0B", 7: "7B", 999: "999B", 1000: "1.00kB", 1234: "1.23kB", 9994: "9.99kB",
		9995: "10.0kB", 45_600: "45.6kB",
		99_949: "99.9kB", 99_950: "100kB", 999_499: "999kB", 999_500: "1.00MB",
		1_500_000_000: "1.50GB", 1 << 62: "4612PB",
	} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		text        string
		own, docker int64 // -1: an error
	}{
		{"0", 0, 0}, {"100", 100, 100}, {"100b", 100, 100}, {"1k", 1000, 1024}, {"1kB", 1000, 1024},
		{"1KiB", 1024, 1024},
		{"5MB", 5_000_000, 5 << 20}, {"5 MB", 5_000_000, 5 << 20},
		{" 1.5g ", 1_500_000_000, 3 << 29}, {"2GiB", 2 << 30, 2 << 30},
		{"1t", 1e12, 1 << 40}, {"", -1, -1}, {"k", -1, -1}, {"-1", -1, -1}, {"1x", -1, -1},
		{"1kbb", -1, -1}, {"1e3", 1000, 1000},
		{"NaN", -1, -1}, {"Inf", -1, -1}, {"1e300", -1, -1}, {"9999p", -1, -1},
		{"0x10", -1, -1}, {"1 2", -1, -1},
	} {
		for name, f := range map[string]func(string) (int64, error){"Parse": Parse,
			"ParseDocker": ParseDocker} {
			want := tt.own
			if name == "ParseDocker" {
				want = tt.docker
			}
			got, err := f(tt.text)
			if err != nil {
				got = -1
			}
			if got != want {
				t.Errorf("%s(%q) = %d, %v, want %d", name, tt.text, got, err, want)
			}
		}
	}
}

// FuzzParse checks that a parsed number is not negative, and that Parse reads the result of Size as
// the rounded number.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"5MB", "1.5g", "512KiB", "1e18", "NaN", "9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, read := range []func(string) (int64, error){Parse, ParseDocker} {
			n, err := read(s)
			if err == nil && (n < 0 || n > 1<<62) {
				t.Errorf("%q is %d", s, n)
			}
			if err != nil {
				continue
			}
			if again, err := Parse(Size(n)); err != nil || float64(again) < 0.99*float64(n) ||
				float64(again) > 1.01*float64(n)+1 {
				t.Errorf("%d is printed as %s and read as %s, %v", n, Size(n),
					strconv.FormatInt(again, 10), err)
			}
		}
	})
}

func TestShare(t *testing.T) {
	for _, tt := range []struct {
		part, all int64
		want      string
	}{{0, 0, "0%"}, {1, -1, "0%"}, {1, 3, "33.3%"}, {3, 3, "100.0%"}, {0, 5, "0.0%"}} {
		if got := Share(tt.part, tt.all); got != tt.want {
			t.Errorf("Share(%d, %d) = %q, want %q", tt.part, tt.all, got, tt.want)
		}
	}
}

package ui

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func cleaned(pieces ...string) []string {
	var got []string
	l := lines{emit: func(line []byte) { got = append(got, string(line)) }}
	for _, p := range pieces {
		l.write([]byte(p))
	}
	l.flush()
	return got
}

func TestLines(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"plain", "a\nb\n", []string{"a", "b"}},
		{"no end", "a\nb", []string{"a", "b"}},
		{"empty lines", "\n\na", []string{"", "", "a"}},
		{"crlf", "a\r\nb\r\n", []string{"a", "b"}},
		{"progress bar", "10%\r20%\r30%\n", []string{"30%"}},
		{"bar that ends in a return", "10%\r20%\r", []string{"20%"}},
		{"bar with shorter text", "downloading\rok\n", []string{"ok"}},
		{"tabs", "a\tb\n\tc", []string{"a       b", "        c"}},
		{"tab after wide", "漢\tb", []string{"漢      b"}},
		{"backspaces", "ab\b\bcd\n\b\be", []string{"cd", "e"}},
		{"colors", "\x1b[31mred\x1b[0m \x1b[38;5;1mx", []string{"red x"}},
		{"title", "\x1b]0;title\x07a\x1b]2;t\x1b\\b\x1b]0;x\u009cc", []string{"abc"}},
		{"link", "\x1b]8;;http://x\x1b\\text\x1b]8;;\x1b\\", []string{"text"}},
		{"unfinished title ends with the line", "a\x1b]0;ti\ntle", []string{"a", "tle"}},
		{"dcs, apc, pm, sos", "a\x1bPq\x1b\\b\x1b_x\x1b\\c\x1b^x\x1b\\d\x1bXx\x1b\\e",
			[]string{"abcde"}},
		{"eight-bit in utf-8", "a\u009b31mb\u009d0;x\x07c", []string{"abc"}},
		{"eight-bit raw", "a\x9b31mb", []string{"a\uFFFD31mb"}},
		{"charset, reset", "\x1b(0lqk\x1b(B\x1bc\x1b7\x1b#8x", []string{"lqkx"}},
		{"escape in escape", "\x1b\x1b[1mx\x1b[\x1b[2Jy", []string{"xy"}},
		{"sequence broken by a line end", "\x1b[3\nx", []string{"", "x"}},
		{"other controls", "a\x00\x07\x0e\x7f\u0085b", []string{"ab"}},
		{"bytes", "a\xff\xfeb\xe4\xbd", []string{"a\uFFFD\uFFFDb\uFFFD"}},
		{"turned", "a\u202eb\u2066c\u2028d", []string{"abcd"}},
		{"joined", "👩\u200d👧 e\u0301", []string{"👩\u200d👧 e\u0301"}},
		{"long", strings.Repeat("x", maxLine+5), []string{strings.Repeat("x", maxLine), "xxxxx"}},
		{"long, with wide ones", strings.Repeat("漢", maxLine/3+2),
			[]string{strings.Repeat("漢", maxLine/3+1), "漢"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, cleaned(tt.in)); diff != "" {
				t.Errorf("lines of %q differ (-want +got):\n%s", tt.in, diff)
			}
			if diff := cmp.Diff(tt.want, cleaned(strings.Split(tt.in, "")...)); diff != "" {
				t.Errorf("lines of %q, a character at a time, differ (-want +got):\n%s", tt.in,
					diff)
			}
		})
	}
}

// FuzzLines checks, for any input, that lines are short, valid UTF-8 without control characters,
// and that they do not depend on how the input is split.
func FuzzLines(f *testing.F) {
	for _, h := range hostile {
		f.Add(h, 3)
	}
	f.Fuzz(func(t *testing.T, s string, at int) {
		whole := cleaned(s)
		if at < 0 || at > len(s) {
			at = len(s) / 2
		}
		if diff := cmp.Diff(whole, cleaned(s[:at], s[at:])); diff != "" {
			t.Errorf("torn at %d lines differ (-whole +torn):\n%s", at, diff)
		}
		single := make([]string, len(s))
		for i := range len(s) {
			single[i] = s[i : i+1]
		}
		if diff := cmp.Diff(whole, cleaned(single...)); diff != "" {
			t.Errorf("byte by byte lines differ (-whole +torn):\n%s", diff)
		}
		for _, line := range append(whole, clean(s), visible(strings.ReplaceAll(s, "\n", ""))) {
			if !utf8.ValidString(line) {
				t.Errorf("line %q is not UTF-8", line)
			}
			for _, r := range line {
				if r < ' ' || r >= 0x7f && r < 0xa0 || turns(r) {
					t.Errorf("line %q has the control character %#x", line, r)
				}
			}
			for _, n := range []int{0, 1, 2, 3, 10, 79} {
				if c := cut(line, n); columns(c) > n {
					t.Errorf("cut(%q, %d) = %q has %d columns", line, n, c, columns(c))
				}
			}
		}
		for _, line := range whole {
			if len(line) > maxLine+utf8.UTFMax {
				t.Errorf("a line has %d bytes", len(line))
			}
		}
	})
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		in   string
		n    int
		want string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "a.."}, {"abcd", 2, "ab"}, {"abcd", 0, ""}, {"abcd", -1, ""},
		{"漢字", 4, "漢字"}, {"漢字", 3, ".."}, {"漢字かな", 5, "漢.."}, {"漢字かな", 6, "漢字.."}, {"漢", 1, ""},
		{"e\u0301e\u0301", 2, "e\u0301e\u0301"}, {"ae\u0301bcd", 4, "ae\u0301.."},
	} {
		if got := cut(tt.in, tt.n); got != tt.want {
			t.Errorf("cut(%q, %d) = %q, want %q", tt.in, tt.n, got, tt.want)
		}
	}
}

func TestWidth(t *testing.T) {
	for r, want := range map[rune]int{'a': 1, 'é': 1, '漢': 2, 'ｱ': 1, 'Ａ': 2, '한': 2,
		'\u0301': 0, '\u200d': 0, '👩': 2, '─': 1, '\U0002A6DF': 2, '\uFFFD': 1, 'Ж': 1} {
		if got := width(r); got != want {
			t.Errorf("width(%q) = %d, want %d", r, got, want)
		}
	}
}

func TestShorten(t *testing.T) {
	if got := shorten("download sha256:" + strings.Repeat("ab", 32) +
		" and sha256:123"); got != "download sha256:abababababab and sha256:123" {
		t.Errorf("shorten = %q", got)
	}
}

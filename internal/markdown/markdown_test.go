package markdown

import (
	"strings"
	"testing"
)

func TestCode(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"RUN make", "`RUN make`"},
		{"", "` `"},
		{" \n", "` `"},
		{"a`b|c\nd", "`a'b¦c d`"},
	} {
		if got := Code(tt.in); got != tt.want {
			t.Errorf("Code(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestEscape(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"plain text, 5 %", "plain text, 5 %"},
		{"*a* _b_ `c` ~d~", `\*a\* \_b\_ \` + "`c\\`" + ` \~d\~`},
		{"<script>", "&lt;script>"},
		{"[a](b) | c", `\[a](b) \| c`},
		{"&lt; @user #1", `&amp;lt; &#64;user \#1`},
		{"a\r\nb", "a  b"},
	} {
		if got := Escape(tt.in); got != tt.want {
			t.Errorf("Escape(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// FuzzEscape checks that hostile text stays in its line and cell, and begins no HTML.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"a|b", "`x`", "\n\n# h", `\|`, `\` + "`", "<!--"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if code := Code(s); strings.Count(code, "`") != 2 || strings.ContainsAny(code, "|\n\r") {
			t.Errorf("Code(%q) = %q", s, code)
		}
		text := Escape(s)
		if strings.ContainsAny(text, "\n\r<@") {
			t.Errorf("Escape(%q) = %q", s, text)
		}
		text = strings.ReplaceAll(text, "&#64;", "") // the only # without a backslash
		for i := range len(text) {
			if !strings.ContainsRune("|`*_[#~", rune(text[i])) {
				continue
			}
			if slashes := i - len(strings.TrimRight(text[:i], `\`)); slashes%2 == 0 {
				t.Errorf("Escape(%q) = %q: %c has its meaning", s, text, text[i])
			}
		}
	})
}

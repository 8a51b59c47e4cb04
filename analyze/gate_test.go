package analyze

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseThreshold(t *testing.T) {
	for _, c := range []struct {
		in   string
		want *Threshold
	}{
		{"5MB", &Threshold{Bytes: 5e6}}, {"5 mb", &Threshold{Bytes: 5e6}},
		{"1.5KiB", &Threshold{Bytes: 1536}}, {"0", &Threshold{}},
		{"100", &Threshold{Bytes: 100}}, {"2%", &Threshold{Percent: 2, Relative: true}},
		{"0.5 %", &Threshold{Percent: 0.5, Relative: true}},
		{"", nil}, {"-1", nil}, {"MB", nil}, {"101%", nil}, {"nan%", nil}, {"NaN", nil},
		{"1e30GB", nil}, {"5 apples", nil}, {"inf", nil},
	} {
		got, err := ParseThreshold(c.in)
		if (err == nil) != (c.want != nil) || err == nil && *got != *c.want {
			t.Errorf("ParseThreshold(%q) = %+v, %v, want %+v", c.in, got, err, c.want)
		}
	}
}

func TestParseConfig(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     Config
		err      string
	}{
		{"empty", "", Config{}, ""},
		{"all", "---\n# rules\nfail-over: 2%   # of our own\nfail-on: [debris, 'secrets']\naccept:\n- /a/**\n- \"/b #1/*\"\n\nbase: debian:13\r\n",
			Config{FailOver: &Threshold{Percent: 2, Relative: true},
				FailOn: []string{"debris", "secrets"}, Accept: []string{"/a/**", "/b #1/*"},
				Base: "debian:13"}, ""},
		{"a list of lines", "fail-on:\n  - logs\n", Config{FailOn: []string{"logs"}}, ""},
		{"an empty list", "accept: []\n", Config{}, ""},
		{"unknown key", "\nfail: 1\n", Config{}, `f:2: unknown key "fail"`},
		{"unknown key of a list", "oh:\n  - x\n", Config{}, `f:1: unknown key "oh"`},
		{"twice", "base: a\nbase: b\n", Config{}, "f:2: base is already set in line 1"},
		{"no value", "base:\n", Config{}, "f:1: base has no value"},
		{"no size", "fail-over: much\n", Config{}, `f:1: "much" is neither`},
		{"no kind", "fail-on: [dust]\n", Config{}, `f:1: "dust" is not one of`},
		{"a rule that rules nothing", "accept: []\nfail-on:\n# - debris\n", Config{},
			"f:2: fail-on has no items"},
		{"a rule that is to rule nothing", "fail-on: []\n", Config{}, ""},
		{"an empty size", "fail-over: ''\n", Config{}, "f:1: fail-over has no value"},
		{"a list for one", "base: [a, b]\n", Config{}, "f:1: base takes one value, not a list"},
		{"nested", "fail-on:\n  debris: true\n", Config{}, "f:2: fail-on: a string is expected"},
		{"item of nothing", "- a\n", Config{}, "f:1: keys with values are expected"},
		{"tab", "accept:\n\t- a\n", Config{}, "f:2: found character that cannot start any token"},
		{"open bracket", "fail-on: [debris\n", Config{}, "f:1: did not find expected ',' or ']'"},
		{"open quote", "base: \"a\n", Config{}, "f:2: found unexpected end of stream"},
		{"anchor", "accept: &x [/y]\nbase: a\n", Config{Accept: []string{"/y"}, Base: "a"}, ""},
		{"alias", "base: &x y\naccept: [*x, /z]\n",
			Config{Accept: []string{"y", "/z"}, Base: "y"}, ""},
		{"alias of itself", "accept: &x [*x]\n", Config{}, "f:1: accept: a string is expected"},
		{"merge", "<<: {base: a}\n", Config{}, `f:1: unknown key "<<"`},
		{"escapes", `base: "a\u0062"`, Config{Base: "ab"}, ""},
		{"block", "base: >-\n  a\n", Config{Base: "a"}, ""},
		{"flow", "{base: a, accept: [b,\n c]}", Config{Base: "a", Accept: []string{"b", "c"}}, ""},
		{"a number", "accept: [1, 2.50, true]\nfail-over: 0\n",
			Config{Accept: []string{"1", "2.50", "true"}, FailOver: &Threshold{}}, ""},
		{"two documents", "base: a\n---\nbase: b\n", Config{}, "f:2: there is more than one YAML document"},
		{"comments only", "# nothing\n", Config{}, ""},
		{"no UTF-8", "base: \xff\n", Config{}, "f:1: "},
		{"byte order mark", "\ufeffbase: a\n", Config{Base: "a"}, ""},
		{"star", "accept:\n  - **/x\n", Config{},
			"f:2: did not find expected alphabetic or numeric character (a value that begins with"},
		{"no key", "hello\n", Config{}, "f:1: keys with values are expected"},
		{"bad pattern", "accept: [\"a[\"]\n", Config{}, "f:1: accepted paths"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseConfig("f", []byte(c.in))
			if c.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), c.err) {
					t.Errorf("error %v, want %s…", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(got, c.want); d != "" {
				t.Error(d)
			}
		})
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, s := range []string{"fail-over: 2%\naccept:\n  - \"a\"\n", "fail-on: [debris, secrets]",
		"base: 'x' # y", "- a", "a: [", "accept: [[]", "base: \"\\\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig("f", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("error %v has no line", err)
			}
			return
		}
		if _, err := newAcceptor(c.Accept); err != nil {
			t.Errorf("an invalid pattern was accepted: %v", err)
		}
		for _, name := range c.FailOn {
			if err := CheckFailOn(name); err != nil {
				t.Error(err)
			}
		}
	})
}

// gateImage has a base with waste and debris, and waste, debris and a secret above the base.
func gateImage(t *testing.T, accept ...string) *Report {
	t.Helper()
	in := input(1,
		pack(t, []item{file("var/log/base", "base"), file("x", size('x', 1000))}),
		pack(t, []item{file("x", size('y', 500)), file("var/log/own", "own"),
			file("root/.ssh/id_rsa", "key"), file("home/.git/config", "git")}),
		pack(t, []item{whiteout("root/.ssh"), file("x", size('z', 100))}),
	)
	in.Accept = accept
	r, err := Image(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name   string
		rules  Rules
		accept []string
		want   []string // beginnings of the failures
	}{
		{"nothing asked", Rules{}, nil, nil},
		{"just enough", Rules{FailOver: &Threshold{Bytes: 503}}, nil, nil},
		{"too much", Rules{FailOver: &Threshold{Bytes: 502}}, nil,
			[]string{"503B (503 bytes) of 609B are dead"}},
		{"a part", Rules{FailOver: &Threshold{Percent: 90, Relative: true}}, nil, nil},
		{"too large a part", Rules{FailOver: &Threshold{Percent: 80, Relative: true}},
			nil, []string{"503B"}},
		{"accepted", Rules{FailOver: &Threshold{}, FailOn: []string{"secrets", "debris"}},
			[]string{"/x", "root", "**/.git", "/var/log/*"}, nil},
		{"accepted in part", Rules{FailOver: &Threshold{Bytes: 2}}, []string{"/x"},
			[]string{"3B (3 bytes)"}},
		{"debris", Rules{FailOn: []string{"debris"}}, nil,
			[]string{"/home/.git/config: version control", "/var/log/own: logs"}},
		{"one kind", Rules{FailOn: []string{"logs"}}, nil, []string{"/var/log/own: logs"}},
		{"secrets", Rules{FailOn: []string{"secrets"}}, nil,
			[]string{"/root/.ssh/id_rsa: looks like a secret, hidden but still in a layer (3B, line 3)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := gateImage(t, c.accept...)
			r.Check(c.rules)
			if r.Gate.Passed != (len(c.want) == 0) || len(r.Gate.Failures) != len(c.want) {
				t.Fatalf("gate %+v, want %q", r.Gate, c.want)
			}
			for i, f := range r.Gate.Failures {
				if !strings.HasPrefix(f, c.want[i]) {
					t.Errorf("failure %q, want %q", f, c.want[i])
				}
			}
		})
	}
}

// TestCheckGuess checks that an image whose base is a guess passes only if it also passes with the
// base's layers.
func TestCheckGuess(t *testing.T) {
	for _, c := range []struct {
		name   string
		base   Base
		rules  Rules
		passes bool
	}{
		{"known", Base{Layers: 1, Source: BaseRecord},
			Rules{FailOver: &Threshold{Bytes: 600}}, true},
		{"a guess", Base{Layers: 1, Source: BaseGuess},
			Rules{FailOver: &Threshold{Bytes: 600}}, false},
		{"a guess that does not matter", Base{Layers: 1, Source: BaseGuess},
			Rules{FailOver: &Threshold{Bytes: 1503}}, true},
		{"a guess that there is none", Base{Source: BaseGuess},
			Rules{FailOver: &Threshold{Bytes: 600}}, true},
		{"a guess about debris", Base{Layers: 1, Source: BaseGuess},
			Rules{FailOn: []string{"logs"}}, false},
		{"a guess and no rules", Base{Layers: 1, Source: BaseGuess}, Rules{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := gateImage(t, "/var/log/own")
			r.Base = c.base
			r.Check(c.rules)
			if r.Gate.Passed != c.passes || r.Gate.BaseGuessed == c.passes {
				t.Fatalf("gate %+v, want passed = %v", r.Gate, c.passes)
			}
			for _, f := range r.Gate.Failures {
				if !strings.Contains(f,
					"the base image (the first layer) is a guess; give --base IMAGE, or --base scratch") {
					t.Errorf("failure %q says nothing of the guess", f)
				}
			}
		})
	}
}

// TestOutputsAreTame checks that names of an image are escaped for terminals and for Markdown
// tables.
func TestOutputsAreTame(t *testing.T) {
	evil := "a\x1b[31m|`\n<b>\u202e\xff"
	in := input(0, pack(t, []item{file("d/"+evil, "1"), file("e/"+evil+"/.git/x", "1")}),
		pack(t, []item{whiteout("d/" + evil)}))
	in.Image, in.Instructions[0].Text = evil, "RUN "+evil
	r, err := Image(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	r.Check(Rules{FailOn: []string{"debris"}})
	for name, write := range map[string]func(*bytes.Buffer) error{
		"text":     func(b *bytes.Buffer) error { return r.WriteText(b, TextOptions{}) },
		"markdown": func(b *bytes.Buffer) error { return r.WriteMarkdown(b) },
		"diff": func(b *bytes.Buffer) error {
			return Compare(r, gateImage(t)).WriteText(b, TextOptions{})
		},
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), `\x1b[31m`) &&
			!strings.Contains(b.String(), `\\x1b\[31m`) {
			t.Errorf("%s does not show the name:\n%s", name, b.String())
		}
		if bytes.ContainsAny(b.Bytes(), "\x1b\u202e") || bytes.Contains(b.Bytes(), []byte{0xff}) {
			t.Errorf("%s has raw bytes of a name:\n%q", name, b.String())
		}
	}
}

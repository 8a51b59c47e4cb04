package suggest

import (
	"strings"
	"testing"
)

func TestClosest(t *testing.T) {
	options := []string{"build", "run", "images", "prune", "prune-image"}
	for _, tt := range []struct{ word, want string }{
		{"biuld", "build"}, {"bulid", "build"}, {"buil", "build"}, {"image", "images"},
		{"prun", "run"}, {"prunes", "prune"},
		{"run", ""}, {"nothing", ""}, {"", ""}, {"BUILD", ""}, {strings.Repeat("build", 1000), ""},
	} {
		if got := Closest(tt.word, options); got != tt.want {
			t.Errorf("Closest(%q) = %q, want %q", tt.word, got, tt.want)
		}
	}
}

// TestNear has words that people type in the place of a verb or a flag, with the verbs and some
// flags of the program.
func TestNear(t *testing.T) {
	verbs := []string{"build", "bake", "executor", "run", "images", "image", "history", "inspect",
		"tag", "rm", "pull", "push", "copy", "save", "load", "login", "logout", "index", "du",
		"prune", "info", "analyze", "diff", "prune-image", "sbom", "help", "version"}
	flags := []string{"file", "target", "tag", "build-arg", "build-context", "platform", "pull",
		"push", "load", "no-cache", "no-cache-filter", "cache-from", "cache-to", "output", "label",
		"network", "ulimit", "env", "env-file", "volume", "user", "tty"}
	for _, tt := range []struct {
		options    []string
		word, want string
	}{
		{verbs, "biuld", "build"}, {verbs, "bulid", "build"}, {verbs, "buil", "build"},
		{verbs, "bild", "build"}, {verbs, "uild", "build"}, {verbs, "prun", "prune"},
		{verbs, "prunes", "prune"}, {verbs, "rnu", "run"}, {verbs, "rn", "run"},
		{verbs, "ru", "run"}, {verbs, "rmm", "rm"}, {verbs, "psuh", "push"}, {verbs, "pus", "push"},
		{verbs, "pul", "pull"}, {verbs, "atg", "tag"}, {verbs, "dif", "diff"},
		{verbs, "img", "image"}, {verbs, "imgs", "images"}, {verbs, "imags", "images"},
		{verbs, "hist", "history"}, {verbs, "insp", "inspect"}, {verbs, "inspct", "inspect"},
		{verbs, "ver", "version"}, {verbs, "logn", "login"}, {verbs, "lgout", "logout"},
		{verbs, "anaylze", "analyze"}, {verbs, "cpy", "copy"}, {verbs, "hlp", "help"},
		{verbs, "prune-iamge", "prune-image"}, {verbs, "backe", "bake"},

		{verbs, "up", ""}, {verbs, "cp", ""}, {verbs, "mv", ""}, {verbs, "sh", ""},
		{verbs, "log", ""}, {verbs, "top", ""}, {verbs, "cat", ""}, {verbs, "imp", ""},
		{verbs, "kill", ""}, {verbs, "stop", ""}, {verbs, "make", ""}, {verbs, "bash", ""},
		{verbs, "logs", ""}, {verbs, "scan", ""}, {verbs, "commit", ""}, {verbs, "search", ""},
		{verbs, "run", ""}, {verbs, "", ""}, {verbs, "x", ""}, {verbs, "du2", "du"},
		{verbs, strings.Repeat("build", 1000), ""},

		{flags, "no-chace", "no-cache"}, {flags, "nocache", "no-cache"}, {flags, "plat", "platform"},
		{flags, "taget", "target"}, {flags, "fil", "file"}, {flags, "out", "output"},
		{flags, "lable", "label"}, {flags, "evn", "env"}, {flags, "tyt", "tty"},
		{flags, "envfile", "env-file"}, {flags, "netwrok", "network"}, {flags, "xyz", ""},
		{flags, "cache", ""}, {flags, "rm", ""}, {flags, "it", ""}, {flags, "ssh", ""},
		{flags, "dns", ""}, {flags, "init", ""},
	} {
		if got := Near(tt.word, tt.options); got != tt.want {
			t.Errorf("Near(%q) = %q, want %q", tt.word, got, tt.want)
		}
	}
	for _, tt := range []struct{ word, want string }{{"BIULD", "build"}, {"Run", ""},
		{"RNU", "run"}, {"", ""}} {
		if got := NearFold(tt.word, verbs); got != tt.want {
			t.Errorf("NearFold(%q) = %q, want %q", tt.word, got, tt.want)
		}
	}
}

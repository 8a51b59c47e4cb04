package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// sharedFlags are flags of several verbs with one definition. A script of one verb is enough.
var sharedFlags = []string{"root", "driver", "authfile", "creds", "cert-dir", "tls-verify",
	"progress", "quiet"}

// TestEachFlagHasScript checks that a script of testdata uses each flag.
func TestEachFlagHasScript(t *testing.T) {
	all := verbs()
	used := map[string]bool{}
	for _, line := range scriptCommands(t) {
		v, rest, err := findVerb(all, line)
		if err != nil {
			continue
		}
		fs := newFlagSet(v)
		v.flags(fs)
		for _, word := range rest {
			for _, name := range flagsIn(fs, word) {
				used[v.name+" "+name], used[name] = true, true
			}
		}
	}
	for _, v := range all {
		forEachFlag(v, func(f *pflag.Flag) {
			shared := slices.Contains(sharedFlags, f.Name) && used[f.Name]
			if !shared && !used[v.name+" "+f.Name] && f.Name != "help" {
				t.Errorf("no script has %s --%s", v.name, f.Name)
			}
		})
	}
}

// scriptCommands returns the words of the command lines of layerbuild in all scripts.
func scriptCommands(t *testing.T) (list [][]string) {
	t.Helper()
	names, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	command := regexp.MustCompile(`(?m)\blayerbuild (.*)$`)
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range command.FindAllStringSubmatch(string(data), -1) {
			words := strings.NewReplacer("'", " ", `"`, " ").Replace(m[1])
			list = append(list, strings.Fields(words))
		}
	}
	return list
}

// flagsIn returns the names of the flags that a word of a command line sets.
func flagsIn(fs *pflag.FlagSet, word string) (names []string) {
	name, _, _ := strings.Cut(word, "=")
	switch {
	case strings.HasPrefix(name, "--"):
		if fs.Lookup(name[2:]) != nil {
			names = append(names, name[2:])
		}
	case strings.HasPrefix(name, "-"):
		for _, c := range name[1:] {
			f := fs.ShorthandLookup(string(c))
			if c >= 0x80 || f == nil {
				return names
			}
			names = append(names, f.Name)
			if f.NoOptDefVal == "" {
				return names // the rest is its value
			}
		}
	}
	return names
}

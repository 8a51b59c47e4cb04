package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// documents are the files that belong to the program.
type documents struct {
	man         []namedText          // layerbuild.1 and others
	completions map[string]namedText // by the name of the shell
	readme      string
	changes     string
	license     string // of layerbuild; "": the source has none
	licenses    string // of everything that is linked into the program
}

// namedText is a file.
type namedText struct{ name, text string }

// shells are the shells that have completions, with the names of their files.
var shells = [...]namedText{
	{name: "layerbuild", text: "bash"}, {name: "_layerbuild", text: "zsh"},
	{name: "layerbuild.fish", text: "fish"},
}

// documents collects the documents. The program that runs here writes man pages and completions.
func (d *distribution) documents(host program) (documents, error) {
	docs := documents{completions: map[string]namedText{}}
	dir := filepath.Join(d.work, "man")
	cmd := d.command("", host.path, "gen-docs", "man", dir)
	cmd.Env = append(cmd.Env, "SOURCE_DATE_EPOCH="+strconv.FormatInt(host.time.Unix(), 10))
	if err := quietly(cmd); err != nil {
		return docs, err
	}
	pages, err := os.ReadDir(dir)
	if err != nil {
		return docs, err
	}
	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join(dir, page.Name()))
		if err != nil {
			return docs, err
		}
		docs.man = append(docs.man, namedText{page.Name(), string(text)})
	}
	for _, shell := range shells {
		out, err := d.command("", host.path, "gen-docs", "completion", shell.text).Output()
		if err != nil {
			return docs, fmt.Errorf("write the completion for %s: %w", shell.text, err)
		}
		docs.completions[shell.text] = namedText{shell.name, string(out)}
	}
	for _, f := range []struct {
		name string
		to   *string
	}{{"README.md", &docs.readme}, {"CHANGELOG.md", &docs.changes}, {"LICENSE", &docs.license}} {
		text, err := os.ReadFile(filepath.Join(d.root, f.name))
		if err != nil && !(f.name == "LICENSE" && errors.Is(err, os.ErrNotExist)) {
			return docs, err
		}
		*f.to = string(text)
	}
	return docs, nil
}

// licenseFile matches the names of files that a copy of a program must come with.
var licenseFile = regexp.MustCompile(
	`(?i)^(licen[cs]e|copying|copyright|notice|unlicense|patents)([-._].*)?$`)

// linked has the fields that are used of the output of go list about a package of the program.
type linked struct {
	Dir      string
	Standard bool
	Module   *struct {
		Path, Version, Dir string
		Main               bool
	}
}

// licenses returns the licenses of Go's library and of all modules of the program, each text once.
func (d *distribution) licenses(arch string) (string, error) {
	args := append([]string{"list", "-deps", "-json=Dir,Standard,Module"}, d.tags()...)
	out, err := d.command(arch, d.goCommand, append(args, "./cmd/layerbuild")...).Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w", err)
	}
	l := licenseList{owners: map[string][]string{}}
	goroot, err := d.output(d.goCommand, "env", "GOROOT")
	if err != nil {
		return "", err
	}
	if err := l.add("the Go standard library, "+d.toolchain, goroot, goroot); err != nil {
		return "", err
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p linked
		if err := dec.Decode(&p); err == io.EOF {
			return l.String(), nil
		} else if err != nil {
			return "", err
		}
		if p.Standard || p.Module == nil || p.Module.Main {
			continue
		}
		if err := l.add(p.Module.Path+" "+p.Module.Version, p.Dir, p.Module.Dir); err != nil {
			return "", err
		}
	}
}

// tags returns the flag -tags of the flags for go build.
func (s *source) tags() []string {
	if i := slices.Index(s.flags, "-tags"); i >= 0 && i+1 < len(s.flags) {
		return s.flags[i : i+2]
	}
	return nil
}

// licenseList has the texts of licenses, and what each is for.
type licenseList struct {
	texts  []string
	owners map[string][]string
}

// add adds the licenses of a package: those in its directory and in those above, up to that of its
// module.
func (l *licenseList) add(owner, dir, top string) error {
	found := false
	for {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !licenseFile.MatchString(e.Name()) || !e.Type().IsRegular() ||
				path.Ext(e.Name()) == ".go" {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return err
			}
			l.put(owner, strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n")))
			found = true
		}
		if dir == top {
			break
		}
		dir = filepath.Dir(dir)
	}
	if !found {
		return fmt.Errorf("%s has no license", owner)
	}
	return nil
}

func (l *licenseList) put(owner, text string) {
	if l.owners[text] == nil {
		l.texts = append(l.texts, text)
	}
	if !slices.Contains(l.owners[text], owner) {
		l.owners[text] = append(l.owners[text], owner)
	}
}

// String returns the list, in the order of the owners.
func (l *licenseList) String() string {
	var parts []string
	for _, text := range l.texts {
		owners := l.owners[text]
		slices.Sort(owners)
		parts = append(parts, strings.Join(owners, "\n")+"\n\n"+text+"\n")
	}
	slices.Sort(parts)
	return strings.Join(parts, "\n"+strings.Repeat("-", 72)+"\n\n")
}

// copyright returns the text about the licenses of a package.
func (docs documents) copyright() string {
	own := "The source of layerbuild has no file LICENSE.\n"
	if docs.license != "" {
		own = docs.license
	}
	return "layerbuild\n" + homePage + "\n\n" + own + "\n" + strings.Repeat("=", 72) +
		"\nThe program contains the following software.\n\n" + docs.licenses
}

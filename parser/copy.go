package parser

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	bkparser "github.com/moby/buildkit/frontend/dockerfile/parser"
	digest "github.com/opencontainers/go-digest"
)

func (w *walker) copy(c *instructions.CopyCommand, step *Step) error {
	a := &Copy{From: ContextInput{}, Chown: c.Chown, Chmod: c.Chmod, Link: c.Link,
		Parents: c.Parents, Exclude: c.ExcludePatterns}
	if c.From != "" {
		var err error
		if a.From, err = w.plan.copySource(c.From); err != nil {
			return err
		}
		if err := w.mayUse(a.From, c.From); err != nil {
			return err
		}
	}
	if err := w.transfer(a, c.SourcesAndDest, c.Location(), step); err != nil {
		return err
	}
	w.checkCopySize(c, a)
	return nil
}

func (w *walker) add(c *instructions.AddCommand, step *Step) error {
	a := &Copy{Add: true, From: ContextInput{}, Chown: c.Chown, Chmod: c.Chmod, Link: c.Link,
		Exclude: c.ExcludePatterns,
		Unpack:  c.Unpack, Checksum: c.Checksum}
	keep := c.KeepGitDir
	for _, src := range c.SourcePaths {
		g, err := parseGit(src)
		if err != nil {
			return err
		}
		if g == nil {
			continue
		}
		if g.KeepGitDir != nil {
			if keep != nil && *keep != *g.KeepGitDir {
				return errors.New("inconsistent keep-git-dir configuration")
			}
			keep = g.KeepGitDir
		}
		if g.Commit != "" {
			if a.Checksum != "" && a.Checksum != g.Commit {
				return fmt.Errorf("checksum mismatch %q != %q", a.Checksum, g.Commit)
			}
			if len(c.SourcePaths) == 1 {
				a.Checksum = g.Commit
			}
		}
	}
	a.KeepGitDir = keep != nil && *keep
	if err := checkChecksum(c); err != nil {
		return err
	}
	if err := w.transfer(a, c.SourcesAndDest, c.Location(), step); err != nil {
		return err
	}
	w.checkCopySize(c, a)
	return nil
}

// checkChecksum returns an error if there is a checksum and not exactly one download.
func checkChecksum(c *instructions.AddCommand) error {
	if c.Checksum == "" {
		return nil
	}
	if len(c.SourcePaths) != 1 {
		return errors.New("checksum can't be specified for multiple sources")
	}
	switch kind, _ := SourceKind(c.SourcePaths[0]); kind {
	case HTTP:
		_, err := digest.Parse(c.Checksum)
		return err
	case Git:
		return nil
	default:
		return errors.New("checksum requires HTTP(S) or Git sources")
	}
}

// transfer holds the common parts of COPY and ADD.
func (w *walker) transfer(a *Copy, p instructions.SourcesAndDest,
	loc []bkparser.Range, step *Step) error {
	dest := p.DestPath
	if dest == "" || dest == "." {
		dest = "./"
	}
	var err error
	if a.Dest, err = resolvePath(w.state.dir, dest, w.os(), true); err != nil {
		return err
	}
	a.Dest = cleanDest(a.Dest)
	if a.Link && a.Chown != "" && ownerByName(a.Chown) {
		return fmt.Errorf("--chown=%s: user and group names can't be resolved when used with "+
			"--link, use numeric uid[:gid] instead", a.Chown)
	}
	if a.Chmod != "" {
		if err := checkChmod(a.Chmod); err != nil {
			return err
		}
	}
	var b strings.Builder
	b.WriteString("COPY")
	if a.Add {
		b.Reset()
		b.WriteString("ADD")
	}
	if a.Parents {
		b.WriteString(" --parents")
	}
	if a.Chown != "" {
		b.WriteString(" --chown=" + a.Chown)
	}
	if a.Chmod != "" {
		b.WriteString(" --chmod=" + a.Chmod)
	}
	for _, src := range p.SourcePaths {
		if err := w.checkSource(a, src, loc); err != nil {
			return err
		}
		a.Sources = append(a.Sources, toSlash(src, w.os()))
		b.WriteString(" " + src)
	}
	for _, f := range p.SourceContents {
		a.Inline = append(a.Inline, Inline{Name: f.Path, Data: []byte(f.Data)})
		b.WriteString(" <<" + f.Path)
	}
	b.WriteString(" " + p.DestPath + " # buildkit")
	step.Action = a
	step.Name = upperFirst(w.lex.display(step.Text, w.state.env))
	step.History = b.String()
	return nil
}

func (w *walker) checkSource(a *Copy, src string, loc []bkparser.Range) error {
	kind, err := SourceKind(src)
	if err != nil {
		return err
	}
	switch {
	case kind == Git && !a.Add:
		return errors.New("source can't be a git ref for COPY")
	case kind == HTTP && !a.Add:
		return errors.New("source can't be a URL for COPY")
	case kind != Local || w.plan.ignore == nil:
		return nil
	}
	if in, ok := a.From.(ContextInput); !ok || in.Name != "" {
		return nil
	}
	if p, ok := w.plan.ignore.matches(src); ok {
		cmd := "Copy"
		if a.Add {
			cmd = "Add"
		}
		w.rules.run(&linter.RuleCopyIgnoredFile, loc, linter.RuleCopyIgnoredFile.Format(cmd, p))
	}
	return nil
}

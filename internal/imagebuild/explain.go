package imagebuild

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/explain"
	"github.com/layerbuild/layerbuild/internal/state"
)

// newAccount returns the account of the build's steps.
func (b *builder) newAccount() *build.Account {
	return &build.Account{Earlier: func() explain.History {
		file, _, err := b.accountFile()
		if err != nil {
			return explain.History{}
		}
		return explain.Read(file, b.opts.Name)
	}}
}

// accountFile returns the file of the account of the Dockerfile, and the context as it is shown.
// Builds of one Dockerfile and one context have one account, whatever they are named and whatever
// their arguments are.
func (b *builder) accountFile() (path, context string, err error) {
	dir, err := b.all.state.Path(state.Explained)
	if err != nil {
		return "", "", err
	}
	src := &b.opts.Source
	context = cmp.Or(src.Context, ".")
	identity, shown := context, b.file.context.Name
	if abs := absolute(context); abs != context {
		identity, shown = abs, abs
	}
	file := src.Dockerfile
	if src.Inline != "" {
		file = "inline of " + b.opts.Name
	}
	h := sha256.New()
	for _, s := range []string{identity, file} {
		h.Write([]byte(s + "\x00"))
	}
	return filepath.Join(dir, hex.EncodeToString(h.Sum(nil)[:16])), shown, nil
}

// absolute returns the absolute path of a context on this machine, and other contexts as they are.
func absolute(context string) string {
	if _, err := os.Stat(context); err != nil {
		return context
	}
	abs, err := filepath.Abs(context)
	if err != nil {
		return context
	}
	return abs
}

// saveAccounts writes what the steps of all builds were made from, for explanations in later
// builds, and what happened to them. Nothing but explanations is lost if that fails, such as on a
// full disk.
func (a *batch) saveAccounts() {
	command := fmt.Sprint(os.Getpid(), " ", a.began.UnixNano())
	for _, b := range a.running() {
		file, context, err := b.accountFile()
		if err != nil {
			return
		}
		name := ""
		if names := b.opts.Image.Names; len(names) > 0 {
			name = names[0]
		}
		_ = explain.Write(a.state.Cache.Temp(), file, b.account.Ran(), &explain.Build{
			Time: time.Now().UTC(), Command: command, Target: b.opts.Name, Name: name,
			File: b.file.name, Context: context, Steps: b.account.Outcomes()})
	}
}

// LastBuilds returns the builds of the last command that are recorded.
func LastBuilds(s *state.State) ([]*explain.Build, error) {
	dir, err := s.Path(state.Explained)
	if err != nil {
		return nil, err
	}
	return explain.Latest(dir), nil
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/layerbuild/layerbuild/internal/bake"
	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/parser"
)

// bakeFileVariable lists the files of bake if there is no --file, separated by colons or by the
// value of bakeSeparatorVariable.
const (
	bakeFileVariable      = "BUILDX_BAKE_FILE"
	bakeSeparatorVariable = "BUILDX_BAKE_PATH_SEPARATOR"
)

// readFiles reads the files of bake: first those of the remote place, and then those of this
// machine.
func (f *bakeFlags) readFiles(ctx context.Context, e *env) ([]bake.File, error) {
	names := f.files
	if len(names) == 0 && e.getenv(bakeFileVariable) != "" {
		separator := e.getenv(bakeSeparatorVariable)
		if separator == "" {
			separator = ":"
		}
		for name := range strings.SplitSeq(e.getenv(bakeFileVariable), separator) {
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, name)
			}
		}
	}
	given := len(names) > 0
	if !given {
		names = bake.DefaultFiles[:]
	}
	local := names
	var files []bake.File
	if f.remote.address != "" {
		var inside []string
		local = nil
		for _, name := range names {
			if strings.HasPrefix(name, "cwd://") {
				local = append(local, name)
			} else {
				inside = append(inside, name)
			}
		}
		var err error
		if files, err = f.remote.read(ctx, inside, !given); err != nil {
			return nil, err
		}
	}
	for _, name := range local {
		name = strings.TrimPrefix(name, "cwd://")
		data, err := f.readLocal(e, name, given)
		if !given && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, badValue("file", name, plainError(err))
		}
		files = append(files, bake.File{Name: name, Data: data})
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("there is no file with targets; give one with -f FILE, or write "+
			"one of %s", strings.Join(bake.DefaultFiles[:], ", "))
	}
	return files, nil
}

// readLocal reads a file of bake. One that the user has not named may be a link: it is read only if
// it is in the working directory, or the command line permits it.
func (f *bakeFlags) readLocal(e *env, name string, named bool) ([]byte, error) {
	if !named {
		if err := f.checkRead(e, name); err != nil {
			return nil, err
		}
	}
	return readBakeFile(e, name, named)
}

// readBakeFile reads a file, or standard input for -. It reads one byte more than a file may have,
// so that package bake can report it. named is set if the user has named the file, which then may
// be a pipe.
func readBakeFile(e *env, name string, named bool) ([]byte, error) {
	in := io.Reader(e.stdin)
	if name != "-" {
		open := hostfile.OpenRegular
		if named {
			open = os.Open
		}
		file, err := open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	return io.ReadAll(io.LimitReader(in, bake.MaxSize+1))
}

// config parses the files.
func (f *bakeFlags) config(ctx context.Context, e *env) (*bake.Config, error) {
	files, err := f.readFiles(ctx, e)
	if err != nil {
		return nil, usageError{err}
	}
	o := bake.Options{
		NoEnv:     boolOf(e.getenv(noVariables)),
		LookupEnv: os.LookupEnv, Vars: map[string]string{}, Home: e.getenv("HOME"),
		Builtins: map[string]string{
			"BAKE_CMD_CONTEXT":    f.remote.directory,
			"BAKE_LOCAL_PLATFORM": parser.FormatPlatform(parser.HostPlatform()),
		},
		ReadFile: func(name string) ([]byte, error) {
			if f.remote.files != nil && !f.remote.isFile() {
				return f.remote.readFile(name)
			}
			if err := f.checkRead(e, name); err != nil {
				return nil, err
			}
			if name == "-" {
				name = "./-" // not standard input
			}
			data, err := readBakeFile(e, name, false)
			return data, plainError(err)
		},
	}
	for _, v := range f.vars {
		name, value, _ := strings.Cut(v, "=")
		o.Vars[name] = value
	}
	o.DotEnv, err = f.readLocal(e, ".env", false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf(".env: %w", plainError(err))
	}
	c, err := bake.Parse(files, o)
	if err != nil {
		return nil, explainBake(e, files, err)
	}
	for _, w := range c.Warnings {
		fmt.Fprintln(e.text(e.stderr), "layerbuild: warning:", ui.Visible(w))
	}
	return c, nil
}

// explainBake prints an error of a file with its lines.
func explainBake(e *env, files []bake.File, err error) error {
	at, ok := errors.AsType[*bake.Error](err)
	if !ok {
		return err
	}
	fail := ui.Failure{File: at.File, Start: at.Start, End: at.End, Err: at.Err}
	for _, f := range files {
		if f.Name == at.File {
			fail.Source = f.Data
		}
	}
	if fail.Source == nil || at.Start == 0 {
		return err
	}
	_ = fail.Print(e.text(e.stderr), ui.PrintOptions{Color: ui.Color(e.stderr, e.getenv),
		Colors: e.getenv("BUILDKIT_COLORS")})
	return exitError{exitFailed}
}

// resolve returns the targets with the given names, changed as the flags say.
func (f *bakeFlags) resolve(ctx context.Context, e *env, names []string) (*bake.Definition,
	error) {
	c, err := f.config(ctx, e)
	if err != nil {
		return nil, err
	}
	if err := c.CheckTargets(); err != nil {
		return nil, err
	}
	var sets []bake.Override
	for _, s := range slices.Concat(f.sets, f.shortSets()) {
		o, ok, err := c.ParseOverride(s, os.LookupEnv)
		if err != nil {
			return nil, usageError{badValue("set", s, err)}
		}
		if ok {
			sets = append(sets, o)
		}
	}
	if len(names) == 0 {
		names = []string{"default"}
	}
	def, err := c.Resolve(names, sets)
	if err != nil {
		return nil, err
	}
	// As in buildx, the variable sets the build argument of all targets.
	if epoch := e.getenv(parser.EpochArg); epoch != "" {
		for _, t := range def.Targets {
			if _, ok := t.Args[parser.EpochArg]; !ok {
				if t.Args == nil {
					t.Args = map[string]*string{}
				}
				t.Args[parser.EpochArg] = &epoch
			}
		}
	}
	return def, nil
}

// shortSets returns the values of --set for which other flags stand.
func (f *bakeFlags) shortSets() []string {
	var list []string
	add := func(given bool, s string) {
		if given {
			list = append(list, "*."+s)
		}
	}
	add(f.push, "push=true")
	add(f.load, "load=true")
	add(f.noCache != "", "no-cache="+string(f.noCache))
	add(f.pull != "", "pull="+string(f.pull))
	add(f.sbom != "", "attest="+bake.Attestation("sbom", string(f.sbom)))
	add(f.provenance != "", "attest="+bake.Attestation("provenance", string(f.provenance)))
	add(f.call.action != "build", "call="+f.call.action)
	return list
}

// printTargets prints the targets for --print.
func (f *bakeFlags) printTargets(ctx context.Context, e *env, names []string) error {
	def, err := f.resolve(ctx, e, names)
	if err != nil {
		return err
	}
	data, err := def.JSON()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.json(e.stdout), "%s\n", data)
	return err
}

// parseList parses the value of --list: what is listed, and whether it is printed as JSON.
func parseList(s string) (kind string, asJSON bool, err error) {
	if s == "" {
		return "", false, nil
	}
	for field := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			key, value = "type", key
		}
		switch {
		case key == "type" && (value == "targets" || value == "variables"):
			kind = value
		case key == "format" && (value == "json" || value == "table"):
			asJSON = value == "json"
		default:
			return "", false, errors.New(
				"targets or variables is expected, and an optional suffix ,format=json")
		}
	}
	if kind == "" {
		return "", false, errors.New("targets or variables is expected")
	}
	return kind, asJSON, nil
}

// printList prints targets or variables for --list.
func (f *bakeFlags) printList(ctx context.Context, e *env, kind string, asJSON bool) error {
	c, err := f.config(ctx, e)
	if err != nil {
		return err
	}
	var b strings.Builder
	var all any
	if kind == "targets" {
		list := c.List()
		all = list
		b.WriteString("TARGET\tDESCRIPTION\n")
		for _, l := range list {
			fmt.Fprintf(&b, "%s\t%s\n", l.Name, ui.Visible(l.Description))
		}
	} else {
		all = c.Variables
		b.WriteString("VARIABLE\tTYPE\tVALUE\tDESCRIPTION\n")
		for _, v := range c.Variables {
			value := "<null>"
			if v.Value != nil {
				value = *v.Value
			}
			fmt.Fprintf(&b, "%s\t%s\t%s\t%s\n", v.Name, v.Type, ui.Visible(value),
				ui.Visible(v.Description))
		}
	}
	if asJSON {
		data, err := indentJSON(all)
		if err == nil {
			_, err = e.json(e.stdout).Write(data)
		}
		return err
	}
	tw := tabwriter.NewWriter(e.text(e.stdout), 1, 8, 1, '\t', 0)
	_, err = io.WriteString(tw, b.String())
	return errors.Join(err, tw.Flush())
}

// indentJSON returns a value as JSON with indentation and a newline.
func indentJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(v)
	return b.Bytes(), err
}

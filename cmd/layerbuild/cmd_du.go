package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/spf13/pflag"
)

// duFlags are the flags of the du verb.
type duFlags struct {
	state   stateFlags
	verbose bool
	filters []string
	format  string
	keep    map[string][]string // the values of the filters, by key
}

func duVerb() verb {
	return verb{
		name: "du", summary: "show what the state directory holds",
		notes: `The kinds are image (blobs of images with a name), blob (other blobs: of images without a name, of base images and of the
cache), snapshot (unpacked layers and results of steps), mount (the directories of RUN --mount=type=cache) and records (results of steps
and answers of registries). Sizes are those on the disk; layers that several images share count once. The last lines are
what 'layerbuild prune' would remove.

The filters are kind=KIND (or type=KIND), id=PREFIX and image=NAME. Filters of one key are alternatives; filters of different keys must
all match.`,
		examples: []example{
			{"layerbuild du", "show the sizes by kind"},
			{"layerbuild du --verbose --filter kind=snapshot",
				"list the snapshots, the largest first"},
			{"layerbuild du --format json", "list everything as JSON"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f duFlags
			f.state.define(fs)
			fs.BoolVarP(&f.verbose, "verbose", "v", false, "list each part, the largest first")
			fs.VarP((*givenList)(&f.filters), "filter", "f",
				"`KEY=VALUE` count only parts that match")
			defineFormat(fs, &f.format)
			return f.prepare
		},
	}
}

func (f *duFlags) prepare(e *env, args []string) (runFunc, error) {
	f.keep = map[string][]string{}
	for _, filter := range f.filters {
		key, value, ok := strings.Cut(filter, "=")
		if key == "type" {
			key = "kind"
		}
		switch {
		case !ok || value == "" || key != "kind" && key != "id" && key != "image":
			return nil, badValue("filter", filter, errors.New(
				"kind=KIND, id=PREFIX or image=NAME is expected"))
		case key == "kind" && !slices.Contains(state.Parts(), value):
			return nil, badValue("filter", filter, fmt.Errorf("%s is expected",
				orList(state.Parts())))
		}
		f.keep[key] = append(f.keep[key], value)
	}
	if err := errors.Join(noArgs(args), f.state.resolve(e)); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return f.run(ctx, e) }, nil
}

// matches reports whether a part matches the filters.
func (f *duFlags) matches(p state.Part) bool {
	for key, values := range f.keep {
		if !slices.ContainsFunc(values, func(value string) bool {
			switch key {
			case "kind":
				return p.Kind == value
			case "id":
				return strings.HasPrefix(p.ID, value) || strings.HasPrefix(p.ID, "sha256:"+value)
			}
			return slices.ContainsFunc(p.Images, func(name string) bool {
				return listed{Name: name}.is(value)
			})
		}) {
			return false
		}
	}
	return true
}

// duReport is the output of `layerbuild du --format json`.
type duReport struct {
	Kinds []duKind     `json:"kinds"`
	Total int64        `json:"total"`
	Parts []state.Part `json:"parts,omitempty"` // with --verbose
}

// duKind is the number and the size of the parts of one kind.
type duKind struct {
	Kind  string `json:"kind"`
	Count int    `json:"count"`
	Size  int64  `json:"size"`
}

func (f *duFlags) run(ctx context.Context, e *env) error {
	s, _, err := f.state.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	parts, err := s.DiskUsage(ctx)
	if err != nil {
		return err
	}
	parts = slices.DeleteFunc(parts, func(p state.Part) bool { return !f.matches(p) })
	report := duReport{}
	for _, kind := range state.Parts() {
		k := duKind{Kind: kind}
		for _, p := range parts {
			if p.Kind == kind {
				k.Count++
				k.Size += p.Size
			}
		}
		if k.Count > 0 || len(f.keep) == 0 {
			report.Kinds = append(report.Kinds, k)
		}
		report.Total += k.Size
	}
	if f.verbose {
		report.Parts = parts
	}
	if f.format == "json" {
		return printJSON(e.stdout, report)
	}
	if err := printUsage(e.stdout, report); err != nil || len(f.keep) > 0 {
		return err
	}
	return printReclaimable(ctx, e.stdout, s)
}

// printUsage prints the kinds, after the parts if the report has them.
func printUsage(w io.Writer, r duReport) error {
	if err := printParts(w, r.Parts); err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "KIND\tCOUNT\tSIZE")
	for _, k := range r.Kinds {
		fmt.Fprintf(tw, "%s\t%d\t%s\n", k.Kind, k.Count, sizeText(k.Size))
	}
	fmt.Fprintf(tw, "total\t\t%s\n", sizeText(r.Total))
	return tw.Flush()
}

// printParts prints a table of parts, if there are any, and an empty line.
func printParts(w io.Writer, parts []state.Part) error {
	if len(parts) == 0 {
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "KIND\tID\tSIZE\tLAST USED\tIMAGES")
	for _, p := range parts {
		var names []string
		for _, name := range p.Images {
			names = append(names, familiar(name))
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", p.Kind, ui.Visible(p.ID), sizeText(p.Size),
			age(p.LastUsed), cmp.Or(ui.Visible(strings.Join(names, ",")), "-"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

// printReclaimable prints what prune would remove.
func printReclaimable(ctx context.Context, w io.Writer, s *state.State) error {
	for _, prune := range []struct {
		line string
		o    state.PruneOptions
	}{{"layerbuild prune", state.PruneOptions{DryRun: true}},
		{"layerbuild prune --all", state.PruneOptions{DryRun: true, All: true}}} {
		done, err := s.Prune(ctx, prune.o)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s would remove %s\n", prune.line,
			sizeText(done.BlobBytes+done.SnapshotBytes+done.MountBytes)); err != nil {
			return err
		}
	}
	return nil
}

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
	"time"

	"github.com/layerbuild/layerbuild/internal/gotemplate"
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
	others  otherValues

	template *gotemplate.Template  // of format, if it is one
	table    bool                  // the template is that of a table
	keep     func(state.Part) bool // of filters; nil for none
}

func duVerb() verb {
	return verb{
		name: "du", summary: "show what the state directory holds",
		notes: `The kinds are image (blobs of images with a name), blob (other blobs: of images without a name, of base images and of the
cache), snapshot (unpacked layers and results of steps), mount (the directories of RUN --mount=type=cache) and records (results of steps
and answers of registries). Sizes are those on the disk; layers that several images share count once. The last lines are
what 'layerbuild prune' would remove.

The filters are kind=KIND, type=TYPE, id=PREFIX, image=NAME, until=TIME (parts that were unused for TIME, such as 72h), and
mutable=true|false, which is true for cache mounts. The types are those of BuildKit, regular (snapshots, other blobs and records) and
exec.cachemount. Filters of one key are alternatives; kind!=KIND and the like exclude parts, and kind~=REGEXP, type~=REGEXP, id~=REGEXP and
image~=REGEXP take a regular expression. Filters of different keys must all match.

A template of --format is executed for each part, and has the fields of docker: .ID .Parents .CreatedAt .Mutable .Reclaimable .Shared .Size
.Description .UsageCount .LastUsedAt .Type; and .Kind .Images. .Reclaimable is what 'layerbuild prune --all' removes. After "table " it makes
a table with headings. --format json is one JSON document with layerbuild's fields; '{{json .}}' makes a line with docker's fields for each
part.`,
		examples: []example{
			{"layerbuild du", "show the sizes by kind"},
			{"layerbuild du --verbose --filter kind=snapshot",
				"list the snapshots, the largest first"},
			{"layerbuild du --filter until=72h", "show what was unused for three days"},
			{"layerbuild du --verbose --format json", "list everything as JSON"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f duFlags
			f.define(fs)
			return f.prepare
		},
		withOthers: func(fs *pflag.FlagSet) prepareFunc {
			var f duFlags
			f.define(fs)
			f.others.define(fs, cacheOthers[:])
			return f.prepare
		},
	}
}

func (f *duFlags) define(fs *pflag.FlagSet) {
	f.state.define(fs)
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "list each part, the largest first")
	fs.VarP((*givenList)(&f.filters), "filter", "f",
		"`KEY=VALUE` count only parts that match")
	f.format = "text"
	fs.Var((*given)(&f.format), "format", "`text|json|TEMPLATE` output format")
}

func (f *duFlags) prepare(e *env, args []string) (runFunc, error) {
	var filters []partFilter
	for _, filter := range f.filters {
		k, err := parsePartFilter(filter, time.Now())
		if err != nil {
			return nil, badValue("filter", filter, err)
		}
		filters = append(filters, k)
	}
	f.keep = matchesParts(filters)
	var err error
	if f.template, f.table, err = parseFormat(f.format, "text", "table", "json"); err != nil {
		return nil, err
	}
	if err := errors.Join(noArgs(args), f.state.resolve(e)); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return f.run(ctx, e) }, nil
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
	parts = slices.DeleteFunc(parts,
		func(p state.Part) bool { return f.keep != nil && !f.keep(p) })
	if f.template != nil {
		lines := make([]partLine, len(parts))
		for i, p := range parts {
			lines[i] = lineOf(p)
		}
		return printTemplate(e.text(e.stdout), f.template, f.table, lines, partHeadings())
	}
	report := duReport{}
	for _, kind := range state.Parts() {
		k := duKind{Kind: kind}
		for _, p := range parts {
			if p.Kind == kind {
				k.Count++
				k.Size += p.Size
			}
		}
		if k.Count > 0 || f.keep == nil {
			report.Kinds = append(report.Kinds, k)
		}
		report.Total += k.Size
	}
	if f.verbose {
		report.Parts = parts
	}
	if f.format == "json" {
		return printJSON(e.json(e.stdout), report)
	}
	if err := printUsage(e.text(e.stdout), report); err != nil || f.keep != nil {
		return err
	}
	return printReclaimable(ctx, e.text(e.stdout), s)
}

// partLine has the fields of docker buildx du for a template.
type partLine struct {
	ID, CreatedAt, Size, Description, UsageCount, LastUsedAt, Type string
	Parents                                                        []string
	Mutable, Reclaimable, Shared                                   bool
	Kind                                                           string
	Images                                                         []string
}

// partHeadings returns the headings of a table, by field.
func partHeadings() map[string]string {
	return map[string]string{"ID": "ID", "CreatedAt": "CREATED AT", "Size": "SIZE",
		"Description": "DESCRIPTION", "UsageCount": "USAGE COUNT", "LastUsedAt": "LAST USED AT",
		"Type": "TYPE", "Parents": "PARENTS", "Mutable": "MUTABLE", "Reclaimable": "RECLAIMABLE",
		"Shared": "SHARED", "Kind": "KIND", "Images": "IMAGES"}
}

// lineOf returns the fields of a part for a template. The number of uses is not recorded.
func lineOf(p state.Part) partLine {
	l := partLine{ID: p.ID, Size: sizeText(p.Size), UsageCount: "N/A", LastUsedAt: age(p.LastUsed),
		Type: typeOf(p), Parents: []string{}, Mutable: isMutable(p), Reclaimable: p.Reclaimable,
		Kind: p.Kind, Images: []string{}}
	if !p.Created.IsZero() {
		l.CreatedAt = p.Created.Local().Format(time.RFC3339)
	}
	if p.Parent != "" {
		l.Parents = []string{p.Parent}
	}
	for _, name := range p.Images {
		l.Images = append(l.Images, familiar(name))
	}
	l.Shared = p.Kind == state.PartImage
	return l
}

// typeOf returns BuildKit's type of a part, and image for the blobs of images with a name: BuildKit
// has no type for them.
func typeOf(p state.Part) string {
	for name, kinds := range partTypes {
		if slices.Contains(kinds, p.Kind) {
			return name
		}
	}
	return p.Kind
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

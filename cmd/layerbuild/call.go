package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/parser"
)

// resultFormats are the formats of the results of --check and --call.
var resultFormats = []string{"text", "json", "sarif"}

// call is the value of --call: an action and options, as ACTION,format=json,ignorestatus=true.
type call struct {
	action, format string
	// ignoreStatus is true if findings of a check do not change the exit status.
	ignoreStatus bool
}

func (c *call) Set(s string) error {
	action, options, more := strings.Cut(s, ",")
	parsed := call{action: action}
	switch action {
	case "build", "check", "outline", "targets", describeCall:
	case "lint":
		parsed.action = "check"
	default:
		return errors.New("build, check, outline or targets is expected, and an optional suffix " +
			",format=json")
	}
	for more {
		var option string
		option, options, more = strings.Cut(options, ",")
		name, value, _ := strings.Cut(option, "=")
		var err error
		switch name {
		case "format":
			if parsed.format = value; !slices.Contains(resultFormats, value) {
				err = fmt.Errorf("the format is %s", orList(resultFormats))
			}
		case "ignorestatus":
			if parsed.ignoreStatus, err = strconv.ParseBool(value); err != nil {
				err = errors.New("ignorestatus is true or false")
			}
		default:
			err = errors.New("an option is format=json, format=sarif or ignorestatus=true")
		}
		if err != nil {
			return err
		}
	}
	if parsed.format == "sarif" && parsed.action != "check" {
		return errors.New("only check has the format sarif")
	}
	*c = parsed
	return nil
}

func (c *call) Type() string   { return "string" }
func (c *call) String() string { return c.action }

// describeCall is the action that lists the actions which BuildKit's frontend calls subrequests.
const describeCall = "subrequests.describe"

var errNoDescribe = errors.New("it is the same for all targets; give layerbuild build --call " +
	describeCall)

// subrequest is an element of the output of --call subrequests.describe,format=json.
type subrequest struct {
	Name        string       `json:"name"`
	Version     string       `json:"version"`
	Type        string       `json:"type"`
	Description string       `json:"description"`
	Opts        []namedValue `json:"opts"`
	Inputs      []namedValue `json:"inputs"`
	Metadata    []namedValue `json:"metadata"`
	Refs        []namedValue `json:"refs"`
}

type namedValue struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

// subrequests are those that BuildKit's frontend lists, in its order. It does not list that of
// check, either.
var subrequests = [...]subrequest{
	{Name: "frontend.outline", Description: "List all parameters current build target supports",
		Opts: []namedValue{{"target", "Target build stage"}}},
	{Name: "frontend.targets", Description: "List all targets current build supports",
		Opts: []namedValue{}},
	{Name: "frontend.subrequests.describe", Description: "List available subrequest types"},
}

// reportSubrequests prints the subrequests.
func (f *buildFlags) reportSubrequests(e *env) error {
	var b strings.Builder
	b.WriteString("NAME\tVERSION\tDESCRIPTION\n")
	list := slices.Clone(subrequests[:])
	for i := range list {
		r := &list[i]
		r.Version, r.Type = "1.0.0", "rpc"
		r.Metadata = []namedValue{{Name: "result.json"}, {Name: "result.txt"}}
		b.WriteString(strings.TrimPrefix(r.Name, "frontend.") + "\t" + r.Version + "\t" +
			r.Description + "\n")
	}
	if f.resultFormat() == "json" {
		return printJSON(e.json(e.stdout), list)
	}
	return printTable(e.text(e.stdout), 1, b.String(), "")
}

// The types below have the fields of those that BuildKit prints as JSON; TestCallAsBuildKit
// compares them.

// sourceFile is a file to which locations refer.
type sourceFile struct {
	Filename string `json:"filename,omitempty"`
	Data     []byte `json:"data,omitempty"`
	Language string `json:"language,omitempty"`
}

// location is a place in the source with an index.
type location struct {
	Source int         `json:"sourceIndex,omitempty"`
	Ranges []lineRange `json:"ranges,omitempty"`
}

// lineRange is a line. BuildKit, too, has a range for each line of an instruction, and no columns.
type lineRange struct {
	Start linePosition `json:"start"`
	End   linePosition `json:"end"`
}

type linePosition struct {
	Line int `json:"line,omitempty"`
}

// locationOf returns the location of lines in the only source.
func locationOf(r parser.Range) *location {
	l := &location{}
	for line := r.Start; line > 0 && line <= max(r.Start, r.End); line++ {
		l.Ranges = append(l.Ranges, lineRange{linePosition{line}, linePosition{line}})
	}
	return l
}

// targetList is the output of --call targets,format=json.
type targetList struct {
	Targets []target `json:"targets"`
	Sources [][]byte `json:"sources"`
}

type target struct {
	Name        string    `json:"name,omitempty"`
	Default     bool      `json:"default,omitempty"`
	Description string    `json:"description,omitempty"`
	Base        string    `json:"base,omitempty"`
	Platform    string    `json:"platform,omitempty"`
	Location    *location `json:"location,omitempty"`
}

// newTargetList returns the stages of a Dockerfile in their printed form.
func newTargetList(res *imagebuild.Result) targetList {
	list := targetList{Targets: []target{}, Sources: [][]byte{res.Text}}
	for _, t := range res.Targets {
		list.Targets = append(list.Targets, target{t.Name, t.Default, t.Description, t.Base,
			t.Platform, locationOf(t.Range)})
	}
	return list
}

// reportTargets prints the stages that --target can name.
func (f *buildFlags) reportTargets(e *env, res *imagebuild.Result) error {
	if f.resultFormat() == "json" {
		return printJSON(e.json(e.stdout), newTargetList(res))
	}
	var b strings.Builder
	b.WriteString("TARGET\tDESCRIPTION\n")
	for _, t := range res.Targets {
		name := t.Name
		if t.Default {
			name = strings.TrimSpace(name + " (default)")
		}
		b.WriteString(ui.Visible(name) + "\t" + ui.Visible(t.Description) + "\n")
	}
	return printTable(e.text(e.stdout), 1, b.String(), "")
}

// outline is the output of --call outline,format=json.
type outline struct {
	Name        string         `json:"name,omitempty"`
	Description string         `json:"description,omitempty"`
	Args        []outlineArg   `json:"args,omitempty"`
	Secrets     []outlineMount `json:"secrets,omitempty"`
	SSH         []outlineMount `json:"ssh,omitempty"`
	Cache       []outlineCache `json:"cache,omitempty"`
	Sources     [][]byte       `json:"sources,omitempty"`
}

type outlineArg struct {
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	Value       string    `json:"value,omitempty"`
	Location    *location `json:"location,omitempty"`
}

// outlineMount is a secret or an SSH agent.
type outlineMount struct {
	Name     string    `json:"name"`
	Required bool      `json:"required,omitempty"`
	Location *location `json:"location,omitempty"`
}

// outlineCache is a cache mount. BuildKit has the type, but does not fill it.
type outlineCache struct {
	ID       string    `json:"ID"`
	Location *location `json:"location,omitempty"`
}

// reportOutline prints what can be set for the target.
func (f *buildFlags) reportOutline(e *env, res *imagebuild.Result) error {
	if f.resultFormat() == "json" {
		return printJSON(e.json(e.stdout), newOutline(res))
	}
	return printOutline(e.text(e.stdout), &res.Outline)
}

// newOutline returns the outline of the target in its printed form.
func newOutline(res *imagebuild.Result) outline {
	in := &res.Outline
	o := outline{Name: in.Name, Description: in.Description, Sources: [][]byte{res.Text},
		Args: make([]outlineArg, len(in.Args)), Cache: make([]outlineCache, len(in.Caches)),
		Secrets: outlineMounts(in.Secrets), SSH: outlineMounts(in.SSH)}
	for i := range in.Args {
		p := &in.Args[i]
		o.Args[i] = outlineArg{p.Name, p.Description, p.Value, locationOf(p.Range)}
	}
	for i := range in.Caches {
		o.Cache[i] = outlineCache{in.Caches[i].Name, locationOf(in.Caches[i].Range)}
	}
	return o
}

func outlineMounts(list []parser.Parameter) []outlineMount {
	out := make([]outlineMount, len(list))
	for i := range list {
		out[i] = outlineMount{list[i].Name, list[i].Required, locationOf(list[i].Range)}
	}
	return out
}

// printOutline prints an outline as buildx does: tables with an empty line after each.
func printOutline(w io.Writer, o *parser.Outline) error {
	about := "TARGET:\t" + ui.Visible(cmp.Or(o.Name, "(default)")) + "\n"
	if o.Description != "" {
		about += "DESCRIPTION:\t" + ui.Visible(o.Description) + "\n"
	}
	if o.Name == "" && o.Description == "" {
		about = ""
	}
	return errors.Join(
		printTable(w, 1, about, "\n"),
		printParameters(w, "BUILD ARG\tVALUE\tDESCRIPTION\n", o.Args),
		printParameters(w, "SECRET\tREQUIRED\n", o.Secrets),
		printParameters(w, "SSH\tREQUIRED\n", o.SSH))
}

// printParameters prints a table of an outline, if it has lines below its heading.
func printParameters(w io.Writer, heading string, list []parser.Parameter) error {
	if len(list) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString(heading)
	for i := range list {
		p := &list[i]
		b.WriteString(ui.Visible(p.Name) + "\t")
		switch {
		case strings.HasPrefix(heading, "BUILD"):
			b.WriteString(ui.Visible(p.Value) + "\t" + ui.Visible(p.Description))
		case p.Required:
			b.WriteString("true")
		}
		b.WriteByte('\n')
	}
	return printTable(w, 3, b.String(), "\n")
}

// printTable prints lines with cells that tabs separate as a table, with a number of spaces between
// its columns, and the text after it. It prints nothing if there are no lines.
func printTable(w io.Writer, spaces int, lines, after string) error {
	if lines == "" {
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 0, spaces, ' ', 0)
	_, err := io.WriteString(tw, lines)
	err = errors.Join(err, tw.Flush())
	_, afterErr := io.WriteString(w, after)
	return errors.Join(err, afterErr)
}

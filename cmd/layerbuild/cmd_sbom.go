package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageanalysis"
	"github.com/layerbuild/layerbuild/internal/sbom"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/spf13/pflag"
)

func sbomVerb() verb {
	return verb{
		name: "sbom", args: "IMAGE|LAYOUT|ARCHIVE", takesPaths: true,
		summary: "list the packages in an image and what brought each",
		notes: "The list has the packages of dpkg, apk and rpm, of Node, Python, Ruby and Java, " +
			"and the modules of Go and Rust executables. Each names the layer in which it first " +
			"appears and, for an image that was built here, the lines of the Dockerfile.\n\n" +
			"The time in a document is that of the image, or $" + parser.EpochArg + ". The same " +
			"image gives the same bytes.",
		examples: []example{
			{"layerbuild sbom app", "print a table"},
			{"layerbuild sbom --format spdx -o app.spdx.json app", "write a document in SPDX 2.3"},
			{"layerbuild sbom --format cyclonedx app.tar",
				"print the packages of an archive in CycloneDX 1.6"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f sbomFlags
			f.state.define(fs)
			fs.Var(newChoice(&f.format, "table", "table", "spdx", "cyclonedx"), "format",
				"a table, or a document in JSON")
			fs.VarP((*given)(&f.out), "output", "o", "`FILE` write the list to a file")
			fs.Var((*given)(&f.platform), "platform", platformUsage)
			return f.prepare
		},
	}
}

type sbomFlags struct {
	state                 stateFlags
	format, out, platform string
}

func (f *sbomFlags) prepare(e *env, args []string) (runFunc, error) {
	want, err := platform(e, f.platform)
	created, epochErr := epochOf(e)
	if err := errors.Join(oneImage(args), err, epochErr, checkFile("output", f.out),
		f.state.resolve(e)); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		return f.state.with(ctx, func(s *state.State, im *images) error {
			img, err := im.find(ctx, args[0], want)
			if err != nil {
				return err
			}
			d, err := imageanalysis.SBOM(ctx, s, im.resolver, img, imageanalysis.SBOMOptions{
				Name: documentName(img, args[0]), Created: created, Tool: toolVersion()})
			if err != nil {
				return err
			}
			return f.write(e, d)
		})
	}, nil
}

// epochOf returns the time in $SOURCE_DATE_EPOCH, or nil if it is not set.
func epochOf(e *env) (*time.Time, error) {
	s := e.getenv(parser.EpochArg)
	if s == "" {
		return nil, nil
	}
	epoch, err := parser.ParseEpoch(s)
	if err != nil || epoch == nil {
		return nil, err
	}
	at := time.Unix(*epoch, 0)
	return &at, nil
}

// documentName returns the name of an image for a document. An image of a layout or an archive may
// have none there, or only a tag; its name is then the user's word.
func documentName(img *image.Image, word string) string {
	if img.Origin == image.FromLayout {
		return word
	}
	return img.Name
}

func (f *sbomFlags) write(e *env, d *sbom.Document) error {
	for _, w := range d.Warnings {
		fmt.Fprintf(e.text(e.stderr), "layerbuild: warning: %s\n", ui.Visible(w))
	}
	write := func(w io.Writer) error { return printPackages(w, d) }
	out := e.text
	switch f.format {
	case "spdx":
		write, out = d.SPDX, e.json
	case "cyclonedx":
		write, out = d.CycloneDX, e.json
	}
	if f.out == "" || f.out == "-" {
		return write(out(e.stdout))
	}
	return atomicfile.Write(f.out, 0o644, write)
}

// printPackages prints the table: a package a line.
func printPackages(w io.Writer, d *sbom.Document) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "NAME\tVERSION\tTYPE\tLAYER\tLINE\tBROUGHT BY")
	for i := range d.Packages {
		p := &d.Packages[i]
		origin := d.Image.Layers[p.Layer()].Origin
		line := "-"
		if origin.Line > 0 {
			line = strconv.Itoa(origin.Line)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%s\t%s\n", tableCell(p.Name), tableCell(p.Version), p.Type,
			p.Layer()+1, line, tableCell(shortened(origin.Instruction, 60)))
	}
	return tw.Flush()
}

// tableCell returns a text for a cell of a table.
func tableCell(s string) string {
	if s == "" {
		return "-"
	}
	return ui.Visible(s)
}

// shortened returns the first characters of a text.
func shortened(s string, n int) string {
	if runes := []rune(s); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return s
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/pflag"
)

// These are set by the linker (-X main.version=…) where the go command cannot read them from
// version control: in a source archive, for example. They have precedence over what it read.
var (
	version string // v1.2.3
	commit  string // the hash of the commit
	date    string // the time of the commit, in the form of RFC 3339
)

// develVersion is the version of a program that was built without version control.
const develVersion = "devel"

func versionVerb() verb {
	return verb{
		name: "version", stateless: true,
		summary: "print the version, its commit and the time of the commit",
		notes: "A part that is not known is omitted. A program that was built outside of a git " +
			"repository has the version " + develVersion + ".",
		examples: []example{
			{"layerbuild version", "print the version"},
			{"layerbuild version --format json", "print it for programs, with the whole commit"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var format string
			defineFormat(fs, &format)
			return func(e *env, args []string) (runFunc, error) {
				return func(context.Context) error {
					r := thisRelease()
					if format == "json" {
						return printJSON(e.json(e.stdout), r)
					}
					return r.print(e.text(e.stdout))
				}, noArgs(args)
			}
		},
	}
}

// release identifies a build of the program. All of it follows from the source and the toolchain:
// building the same commit again gives the same values.
type release struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Date     string `json:"date,omitempty"`     // of the commit
	Modified bool   `json:"modified,omitempty"` // the source differed from the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// thisRelease returns the release that is running.
func thisRelease() release {
	info, _ := debug.ReadBuildInfo()
	return releaseOf(info, release{Version: version, Commit: commit, Date: date})
}

// toolVersion returns the version that documents name as that of their author.
func toolVersion() string { return thisRelease().Version }

// releaseOf returns a release: what the linker set, and for the rest what the go command wrote into
// the program. info may be nil.
func releaseOf(info *debug.BuildInfo, linked release) release {
	r := release{Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info != nil {
		if v := info.Main.Version; v != "(devel)" {
			r.Version = v
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				r.Commit = s.Value
			case "vcs.time":
				r.Date = s.Value
			case "vcs.modified":
				r.Modified = s.Value == "true"
			}
		}
	}
	if linked.Commit != "" && linked.Commit != r.Commit {
		r.Date, r.Modified = "", false // those of another commit
	}
	r.Version = cmp.Or(linked.Version, r.Version, develVersion)
	r.Commit = cmp.Or(linked.Commit, r.Commit)
	r.Date = cmp.Or(linked.Date, r.Date)
	return r
}

// print writes the release as one line.
func (r release) print(w io.Writer) error {
	const short = 12 // digits of a commit, as in the versions that the go command makes
	parts := []string{"layerbuild " + r.Version}
	if r.Commit != "" {
		c := "commit " + r.Commit[:min(short, len(r.Commit))]
		if r.Modified {
			c += " with changes"
		}
		parts = append(parts, c)
	}
	if r.Date != "" {
		parts = append(parts, r.Date)
	}
	_, err := fmt.Fprintln(w, strings.Join(parts, ", "))
	return err
}

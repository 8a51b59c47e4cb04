package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/layerbuild/layerbuild/internal/ns"
	"github.com/layerbuild/layerbuild/snapshot"
	"github.com/spf13/pflag"
)

func infoVerb() verb {
	return verb{
		name: "info", summary: "show the state directory, privileges and snapshot driver",
		notes: "For each snapshot driver that does not work here, the reason is printed.",
		examples: []example{
			{"layerbuild info", "show them"},
			{"layerbuild info --driver copy --root /srv/state",
				"show whether a driver works in a directory"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f stateFlags
			f.define(fs)
			var format string
			defineFormat(fs, &format)
			return func(e *env, args []string) (runFunc, error) {
				if err := errors.Join(noArgs(args), f.resolve(e)); err != nil {
					return nil, err
				}
				return func(ctx context.Context) error {
					i, err := f.info(ctx)
					if err != nil {
						return err
					}
					if format == "json" {
						return printJSON(e.json(e.stdout), i)
					}
					return i.print(e.text(e.stdout))
				}, nil
			}
		},
	}
}

// information is the output of `layerbuild info`.
type information struct {
	Version  string                 `json:"version"`
	Kernel   string                 `json:"kernel"`
	CPUs     int                    `json:"cpus"`
	Root     string                 `json:"root"`
	Driver   string                 `json:"driver"`
	Drivers  []snapshot.ProbeResult `json:"drivers"`
	Rootless bool                   `json:"rootless"`
	SingleID bool                   `json:"singleID"`
	Reasons  []string               `json:"reasons,omitempty"`
	Images   int                    `json:"images"`
	Count    int                    `json:"snapshots"`
}

func (f *stateFlags) info(ctx context.Context) (information, error) {
	i := information{Version: toolVersion(), CPUs: runtime.NumCPU()}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		i.Kernel = strings.TrimSpace(string(release))
	}
	state, _, err := f.open(ctx)
	if err != nil {
		return i, err
	}
	defer state.Close()
	where, err := ns.Current()
	if err != nil {
		return i, err
	}
	i.Root, i.Rootless, i.SingleID, i.Reasons = state.Root, where.Rootless,
		where.SingleID, where.Reasons
	i.Driver = state.Snapshots.Driver()
	i.Drivers = snapshot.Probe(filepath.Join(state.Root, "snapshots"),
		snapshot.Options{UserNS: where.Rootless})
	entries, err := state.Store.Names(ctx)
	if err != nil {
		return i, err
	}
	i.Images = len(entries)
	for _, err := range state.Snapshots.All() {
		if err == nil {
			i.Count++
		}
	}
	return i, nil
}

func (i information) print(out io.Writer) error {
	w := new(strings.Builder)
	fmt.Fprintf(w, "version:   %s (Linux %s, %d CPUs)\n", i.Version, i.Kernel, i.CPUs)
	fmt.Fprintf(w, "state:     %s (%d images, %d snapshots)\n", i.Root, i.Images, i.Count)
	who := "root"
	switch {
	case i.SingleID:
		who = "rootless, with a single id: files cannot have other owners than root"
	case i.Rootless:
		who = "rootless, with a range of ids"
	}
	fmt.Fprintf(w, "privilege: %s\n", who)
	for _, r := range i.Reasons {
		fmt.Fprintf(w, "           - %s\n", r)
	}
	fmt.Fprintf(w, "driver:    %s\n", i.Driver)
	for _, d := range i.Drivers {
		switch {
		case d.Name == i.Driver:
			fmt.Fprintf(w, "           * %s: in use\n", d.Name)
		case d.OK:
			fmt.Fprintf(w, "           - %s: works\n", d.Name)
		default:
			fmt.Fprintf(w, "           - %s: %s\n", d.Name, d.Reason)
		}
	}
	_, err := io.WriteString(out, w.String())
	return err
}

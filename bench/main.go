package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// options are the options of the command line.
type options struct {
	layerbuild string
	rootfs     string // archive of Debian's root file system, for the case that installs a package
	peers      string
	buildkitd  string
	buildctl   string
	cases      string
	runs       int
	quick      bool
	curves     bool
	list       bool
	dir        string
	fs         string
	size       string
	output     string
	keep       bool
}

func main() {
	if len(os.Args) > 1 {
		if child, ok := children[os.Args[1]]; ok {
			exit(child(context.Background(), os.Args[2:]))
		}
	}
	var o options
	flag.StringVar(&o.layerbuild, "layerbuild", "bin/layerbuild", "`path` of the program")
	flag.StringVar(&o.rootfs, "rootfs", "examples/debian-base/rootfs.tar.zst",
		"`path` of a Debian root file system, as make rootfs makes it")
	flag.StringVar(&o.peers, "peers", strings.Join(peerNames, ","), "tools to measure")
	flag.StringVar(&o.cases, "cases", "", "only cases whose name matches this `regexp`")
	flag.IntVar(&o.runs, "runs", 5, "how often each is measured")
	flag.BoolVar(&o.quick, "quick", false, "tiny sizes, to test that everything works")
	flag.BoolVar(&o.curves, "curves", true, "measure how time and memory grow with the size, too")
	flag.BoolVar(&o.list, "list", false, "list the cases and do nothing")
	flag.StringVar(&o.fs, "fs", "",
		"where state and contexts are: `ext4` on a loop device, tmpfs, or none for $BENCH_DIR as "+
			"it is (default ext4 for root); each of a list is measured")
	flag.StringVar(&o.size, "size", "40G", "largest size of that file system")
	flag.BoolVar(&o.keep, "keep", false,
		"keep the results of cases that are not measured now in the file of -o")
	flag.StringVar(&o.output, "o", "",
		"`file` to put the results into, between its markers; - or nothing prints them")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(),
			"usage: bench [flags]\n       bench check [flags]\n       bench simulate [flags]\n"+
				"$BENCH_DIR is the directory for everything that is made, by default "+
				"/var/tmp.\n$BUILDKITD and $BUILDCTL are the programs of the peer buildkit.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if o.dir = os.Getenv("BENCH_DIR"); o.dir == "" {
		o.dir = "/var/tmp"
	}
	o.buildkitd, o.buildctl = os.Getenv("BUILDKITD"), os.Getenv("BUILDCTL")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run measures the works that the options select. Results are written after each case, so that an
// interrupted run is not lost.
func run(ctx context.Context, o options) (err error) {
	match, err := regexp.Compile(o.cases)
	if err != nil {
		return fmt.Errorf("-cases: %w", err)
	}
	var chosen []work
	for _, w := range allWork() {
		if match.MatchString(w.name) && (o.curves || !w.curve) {
			chosen = append(chosen, w)
		}
	}
	if o.list {
		for _, w := range chosen {
			fmt.Printf("%-16s %s\n", w.name, w.title)
		}
		return nil
	}
	if len(chosen) == 0 || o.runs < 1 {
		return errors.New("nothing to measure")
	}
	if o.layerbuild, err = filepath.Abs(o.layerbuild); err != nil {
		return err
	}
	if _, err := os.Stat(o.layerbuild); err != nil {
		return fmt.Errorf("the program to measure: %w", err)
	}
	for fs := range strings.SplitSeq(o.fs, ",") {
		if !slices.Contains(fsKinds, fs) && o.fs != "" {
			return fmt.Errorf("-fs %s: not one of %s", fs, strings.Join(fsKinds, ", "))
		}
	}
	r := &report{quick: o.quick}
	if o.keep {
		_, text, _, err := cut(o.output)
		if err != nil {
			return err
		}
		r.kept = readKept(text)
	}
	for fs := range strings.SplitSeq(o.fs, ",") {
		if err := measureOn(ctx, o, fs, chosen, r); err != nil {
			return err
		}
	}
	if o.output == "" || o.output == "-" {
		fmt.Print(r.markdown())
	}
	return nil
}

// measureOn measures the works on a file system and adds their results to a report.
func measureOn(ctx context.Context, o options, fs string, chosen []work, r *report) (err error) {
	l, err := newLab(ctx, o, fs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	r.add(l.machine(ctx))
	r.measured = l.measured()
	for _, w := range chosen {
		result, err := l.measure(ctx, w)
		if err != nil {
			return err
		}
		if strings.Contains(o.fs, ",") {
			result.fs = fs
		}
		r.results = append(r.results, result)
		if o.output != "" && o.output != "-" {
			if err := splice(o.output, r.markdown()); err != nil {
				return err
			}
		}
	}
	return nil
}

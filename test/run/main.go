package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/test/run/report"
)

type options struct {
	as      string
	skips   string
	strict  bool
	jobs    int
	timeout time.Duration
	env     []string
	bins    string
	tree    string
}

func main() {
	var o options
	flag.StringVar(&o.as, "as", "",
		"run the tests as this user: root through sudo, another user through runuser")
	flag.StringVar(&o.skips, "skips", "", "a file that lists the skips that are expected, and why")
	flag.BoolVar(&o.strict, "strict", false, "fail if a skip is not listed")
	flag.IntVar(&o.jobs, "p", 2, "how many packages are tested at once")
	flag.DurationVar(&o.timeout, "timeout", 20*time.Minute, "how long one package may take")
	flag.Func("env", "set a variable in the tests' environment",
		func(s string) error { o.env = append(o.env, s); return nil })
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	o.bins, o.tree = flag.Arg(0), flag.Arg(1)
	ok, err := run(o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// run tests all packages, prints a line for each and the summary, and reports whether all have
// passed.
func run(o options, out io.Writer) (bool, error) {
	var expected []report.Skip
	if o.skips != "" {
		data, err := os.ReadFile(o.skips)
		if err != nil {
			return false, err
		}
		if expected, err = report.ParseSkips(data); err != nil {
			return false, fmt.Errorf("%s: %w", o.skips, err)
		}
	}
	bins, err := filepath.Glob(filepath.Join(o.bins, "*.test"))
	if err != nil {
		return false, err
	}
	if len(bins) == 0 {
		return false, fmt.Errorf("%s holds no test binary", o.bins)
	}
	who, err := name(o.as)
	if err != nil {
		return false, err
	}

	var mu sync.Mutex
	total := report.Summary{User: who}
	work := make(chan string)
	var workers sync.WaitGroup
	for range o.jobs {
		workers.Go(func() {
			for bin := range work {
				p, err := test(o, bin)
				if err != nil {
					p.Broken(err)
				}
				mu.Lock()
				p.Print(out)
				total.Add(p)
				mu.Unlock()
			}
		})
	}
	for _, bin := range bins {
		work <- bin
	}
	close(work)
	workers.Wait()
	return total.Print(out, expected, o.strict), nil
}

// name returns the name of the user who runs the tests.
func name(as string) (string, error) {
	if as != "" {
		return as, nil
	}
	u, err := user.Current()
	if err != nil {
		return "", err
	}
	return u.Username, nil
}

// test runs one test binary. An error is returned when the binary cannot be started or ends without
// a result.
func test(o options, bin string) (*report.Package, error) {
	dir := strings.ReplaceAll(strings.TrimSuffix(filepath.Base(bin), ".test"), "%", "/")
	p := report.NewPackage(dir)
	args := append(become(o.as), "env")
	args = append(args, o.env...)
	args = append(args, bin, "-test.v=test2json", "-test.timeout="+o.timeout.String())
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = filepath.Join(o.tree, dir)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	// A test may leave a process that keeps the pipe open. Wait no longer than this.
	cmd.WaitDelay = 10 * time.Second
	start := time.Now()
	err := cmd.Run()
	p.Wall = time.Since(start)
	if s := cmd.ProcessState; s != nil {
		p.CPU = s.UserTime() + s.SystemTime()
	}
	p.Parse(log.Bytes())
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && p.Failed > 0 {
		return p, nil // the output of the failed tests has more information
	}
	return p, err
}

// become returns the words before a command that make it run as another user.
func become(as string) []string {
	switch {
	case as == "":
		return nil
	case os.Getuid() != 0:
		return []string{"sudo", "-u", as, "--"}
	case as == "root":
		return nil
	default:
		return []string{"runuser", "-u", as, "--", "env", "-i"}
	}
}

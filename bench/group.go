package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A group holds all processes of a tool: a daemon, its helpers and the containers that it starts.
// It is a control group, which counts the CPU time of all its processes. Without control groups,
// the kernel reports the times when a command ends.
type group struct {
	dir  string // directory of the group in the hierarchy; containers get groups of their own in it
	main string // the group inside dir in which commands are started; "" without control groups
	home string // the group of this process
	v2   bool

	mu   sync.Mutex
	used time.Duration // without control groups: CPU time of the commands that have ended
	live []int         // without control groups: pids of running commands
}

// A hierarchy is a mounted file system of control groups.
type hierarchy struct {
	dir         string
	root        string // the group at the top of the mount: not / in some containers
	v2          bool
	controllers []string // controllers of version 1, among other options of the mount
}

func hierarchies() []hierarchy {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var all []hierarchy
	seen := map[string]bool{} // by device and root: a hierarchy can be mounted at several places
	for line := range strings.Lines(string(raw)) {
		mount, super, ok := strings.Cut(strings.TrimSpace(line), " - ")
		left, right := strings.Fields(mount), strings.Fields(super)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		place := left[2] + " " + left[3]
		if seen[place] {
			continue
		}
		seen[place] = true
		switch right[0] {
		case "cgroup":
			all = append(all, hierarchy{dir: left[4], root: left[3],
				controllers: strings.Split(right[2], ",")})
		case "cgroup2":
			all = append(all, hierarchy{dir: left[4], root: left[3], v2: true})
		}
	}
	return all
}

// accounting returns the hierarchy that counts CPU time: cpuacct of version 1 if there is one, or
// version 2.
func accounting() (found hierarchy) {
	for _, h := range hierarchies() {
		if slices.Contains(h.controllers, "cpuacct") {
			return h
		}
		if h.v2 && found.dir == "" {
			found = h
		}
	}
	return found
}

// home returns the group of this process.
func (h hierarchy) home() string {
	raw, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return h.dir
	}
	for line := range strings.Lines(string(raw)) {
		// "2:cpuacct:/path", or "0::/path" for version 2
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && (h.v2 && f[0] == "0" ||
			!h.v2 && slices.Contains(strings.Split(f[1], ","), "cpuacct")) {
			return filepath.Join(h.dir, strings.TrimPrefix(f[2], strings.TrimSuffix(h.root, "/")))
		}
	}
	return h.dir
}

// groupTop returns the name of the group that contains all groups of this run.
func groupTop() string { return fmt.Sprintf("layerbuild-bench-%d", os.Getpid()) }

// sweepGroups removes the group of all groups, and the groups that container tools made in the
// other hierarchies.
func sweepGroups() {
	for _, h := range hierarchies() {
		removeGroups(filepath.Join(h.dir, groupTop()))
	}
}

// newGroup makes a group; close removes it. The group is at the top of the hierarchy, because
// version 2 allows no processes in a group that contains other groups.
func newGroup(name string) *group { return accounting().group(name) }

func (top hierarchy) group(name string) *group {
	if top.dir == "" {
		return &group{}
	}
	g := &group{dir: filepath.Join(top.dir, groupTop(), name), home: top.home(), v2: top.v2}
	main := filepath.Join(g.dir, "main")
	if err := os.MkdirAll(main, 0o755); err != nil {
		return &group{} // not root
	}
	g.main = main
	// the directory exists, but no process may enter the group
	if err := g.run(context.Background(), exec.Command("true")); err != nil {
		g.close()
		return &group{}
	}
	return g
}

// parent returns the group in the form of the flag --cgroup-parent of container tools.
func (g *group) parent() string {
	return "/" + filepath.Join(groupTop(), filepath.Base(g.dir))
}

// how describes in words how CPU time is measured.
func (g *group) how() string {
	if g.main == "" {
		return "the commands' own accounts (rusage): no control group can be made here"
	}
	if g.v2 {
		return "control groups, version 2 (cpu.stat)"
	}
	return "control groups, version 1 (cpuacct.usage)"
}

// start starts a command in the group.
func (g *group) start(cmd *exec.Cmd) error {
	if g.main == "" {
		return cmd.Start()
	}
	if g.v2 {
		f, err := os.Open(g.main)
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
		return cmd.Start()
	}
	// A child starts in the group of the thread that starts it. So no shell, which would be
	// measured too, is needed to enter the group.
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := os.WriteFile(filepath.Join(g.main, "tasks"), []byte("0"), 0o644); err != nil {
			started <- err
			return
		}
		err := cmd.Start()
		// If the thread cannot move back, it ends with this goroutine.
		if os.WriteFile(filepath.Join(g.home, "tasks"), []byte("0"), 0o644) == nil {
			runtime.UnlockOSThread()
		}
		started <- err
	}()
	return <-started
}

// run runs a command in the group.
func (g *group) run(ctx context.Context, cmd *exec.Cmd) error {
	if err := g.start(cmd); err != nil {
		return err
	}
	g.mu.Lock()
	g.live = append(g.live, cmd.Process.Pid)
	g.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { cmd.Process.Signal(syscall.SIGTERM) })
	err := cmd.Wait()
	stop()
	g.mu.Lock()
	g.live = slices.DeleteFunc(g.live, func(pid int) bool { return pid == cmd.Process.Pid })
	g.used += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	g.mu.Unlock()
	return errors.Join(err, ctx.Err())
}

// cpu returns the CPU time that the processes of the group have used so far, user and system.
func (g *group) cpu() (time.Duration, error) {
	if g.main == "" {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.used, nil
	}
	if !g.v2 {
		raw, err := os.ReadFile(filepath.Join(g.dir, "cpuacct.usage"))
		if err != nil {
			return 0, err
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
		return time.Duration(ns), err
	}
	raw, err := os.ReadFile(filepath.Join(g.dir, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if text, ok := strings.CutPrefix(line, "usage_usec "); ok {
			us, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			return time.Duration(us) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("%s/cpu.stat has no usage_usec", g.dir)
}

// pids lists the group's processes.
func (g *group) pids() []int {
	if g.main == "" {
		g.mu.Lock()
		all := slices.Clone(g.live)
		g.mu.Unlock()
		for i := 0; i < len(all); i++ { // grows in the loop: children of children
			all = append(all, childrenOf(all[i])...)
		}
		return all
	}
	var all []int
	filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		raw, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		all = append(all, numbers(raw)...)
		return nil
	})
	// A thread of this process is in the group while it starts a command.
	return slices.DeleteFunc(all, func(pid int) bool { return pid == os.Getpid() })
}

func childrenOf(pid int) []int {
	var all []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		raw, _ := os.ReadFile(list)
		all = append(all, numbers(raw)...)
	}
	return all
}

func numbers(raw []byte) []int {
	var all []int
	for f := range strings.FieldsSeq(string(raw)) {
		if n, err := strconv.Atoi(f); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// memory returns the sum of the processes' resident memory. The group's own counter would contain
// the page cache too, which is charged to the group that reads a file first.
func (g *group) memory() int64 {
	var pages int64
	for _, pid := range g.pids() {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			continue // has ended
		}
		if f := numbers(raw); len(f) > 1 {
			pages += int64(f[1])
		}
	}
	return pages * int64(os.Getpagesize())
}

// sampleEvery is the time between samples of memory: short enough for builds of a few hundredths of
// a second. For a daemon with its containers sampling takes 2% of a core.
const sampleEvery = 10 * time.Millisecond

// watch samples memory until the returned function is called, which returns the largest sum.
func (g *group) watch() (peak func() int64) {
	stop, done := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		var most int64
		for {
			select {
			case <-stop:
				done <- most
				return
			case <-tick.C:
				most = max(most, g.memory())
			}
		}
	}()
	return func() int64 { close(stop); return <-done }
}

// close kills the processes that still run in the group, and removes it.
func (g *group) close() error {
	if g.main == "" {
		return nil
	}
	for _, pid := range g.pids() {
		if p, err := os.FindProcess(pid); err == nil {
			p.Kill()
		}
	}
	return removeGroups(g.dir)
}

// removeGroups removes a group and all groups in it. The files of a group cannot be removed. A
// group is busy for a moment after its last process has ended.
func removeGroups(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroups(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for range 100 {
		if err = os.Remove(dir); err == nil || !errors.Is(err, syscall.EBUSY) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

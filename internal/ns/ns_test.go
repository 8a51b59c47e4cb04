package ns

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// helperVar makes the test program behave like a program that enters its namespaces.
const helperVar = "LAYERBUILD_NS_TEST"

func TestMain(m *testing.M) {
	if what := os.Getenv(helperVar); what != "" {
		helper(what)
	}
	os.Exit(m.Run())
}

type report struct {
	Info
	PID, PPID, UID int
	CapEff, CapAmb string
	MountErr       string
	Chown          string
	Private        bool
}

func helper(what string) {
	if err := Enter(Options{Mounts: what == "mounts"}); err != nil {
		fmt.Fprintln(os.Stderr, "enter:", err)
		os.Exit(99)
	}
	switch what {
	case "report", "mounts":
		json.NewEncoder(os.Stdout).Encode(makeReport())
	case "exit":
		os.Exit(7)
	case "die":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "signal":
		c := make(chan os.Signal, 1)
		signal.Notify(c, unix.SIGTERM)
		fmt.Println(os.Getpid())
		<-c
		os.Exit(42)
	case "hang":
		fmt.Println(os.Getpid())
		select {}
	}
	os.Exit(0)
}

func makeReport() report {
	in, err := Current()
	r := report{Info: in, PID: os.Getpid(), PPID: os.Getppid(), UID: os.Getuid()}
	if err != nil {
		r.MountErr = err.Error()
		return r
	}
	r.CapEff, r.CapAmb = capabilities()
	dir, err := os.MkdirTemp("", "ns")
	if err == nil {
		defer os.Remove(dir)
		err = unix.Mount("tmpfs", dir, "tmpfs", 0, "")
	}
	if err == nil {
		f := filepath.Join(dir, "f")
		os.WriteFile(f, nil, 0o644)
		if err := os.Chown(f, 1234, 1234); err != nil {
			r.Chown = err.Error()
		}
		err = unix.Unmount(dir, 0)
	}
	if err != nil {
		r.MountErr = err.Error()
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	r.Private = !strings.Contains(string(mounts), " shared:")
	return r
}

// capabilities returns the effective and the ambient capabilities of all threads, or the difference
// between two threads. A new thread inherits the capabilities of the thread that creates it, so
// capabilities first creates threads in several ways.
func capabilities() (effective, ambient string) {
	var started, stop sync.WaitGroup
	stop.Add(1)
	for range 20 {
		started.Add(1)
		go func() {
			runtime.LockOSThread()
			started.Done()
			stop.Wait()
		}()
	}
	started.Wait()
	defer stop.Done()
	threads, _ := filepath.Glob("/proc/self/task/*/status")
	for _, name := range threads {
		status, _ := os.ReadFile(name)
		for line := range strings.Lines(string(status)) {
			for key, all := range map[string]*string{"CapEff:": &effective, "CapAmb:": &ambient} {
				v, ok := strings.CutPrefix(line, key)
				if v = strings.TrimSpace(v); ok && *all == "" {
					*all = v
				} else if ok && *all != v {
					*all += " and " + v
				}
			}
		}
	}
	return effective, ambient
}

// asUser returns a command that runs this test program as a user.
func asUser(t *testing.T, u *user.User, what string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append([]string{helperVar + "=" + what, "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"TMPDIR=/tmp"}, env...)
	cmd.Stderr = os.Stderr
	if u == nil {
		return cmd
	}
	// The test's binary is in a directory that other users cannot enter.
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	bin, err := os.MkdirTemp("", "ns-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(bin) })
	if err := os.Chmod(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd.Path = filepath.Join(bin, "ns.test")
	if err := os.WriteFile(cmd.Path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid),
		Gid: uint32(gid)}}
	return cmd
}

// testUser makes a user for the duration of a test, with or without a range of ids.
func testUser(t *testing.T, ranges bool) *user.User {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making a user takes root")
	}
	for _, tool := range []string{"useradd", "userdel", "newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	if err := exec.Command("unshare", "-U", "true").Run(); err != nil {
		t.Skipf("no user namespaces here: %v", err)
	}
	name := fmt.Sprintf("lbns%d", os.Getpid())
	args := []string{"--no-create-home", "--home-dir", "/nonexistent", "-K", "SUB_UID_COUNT=65536",
		"-K", "SUB_GID_COUNT=65536", name}
	if !ranges {
		args[4], args[6] = "SUB_UID_COUNT=0", "SUB_GID_COUNT=0"
	}
	if out, err := exec.Command("useradd", args...).CombinedOutput(); err != nil {
		t.Skipf("useradd: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("userdel", name).CombinedOutput(); err != nil {
			t.Errorf("userdel: %v: %s", err, out)
		}
	})
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func runReport(t *testing.T, cmd *exec.Cmd) report {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return r
}

func TestEnterWithRange(t *testing.T) {
	u := testUser(t, true)
	r := runReport(t, asUser(t, u, "report"))
	if !r.Rootless || r.SingleID || !r.Entered || r.UID != 0 || r.MountErr != "" ||
		r.Chown != "" || !r.Private {
		t.Errorf("got %+v", r)
	}
	if strconv.Itoa(r.HostUID) != u.Uid || len(r.UIDs) != 2 || r.UIDs[1].Count != 65536 ||
		len(r.Reasons) != 0 {
		t.Errorf("got ids %+v", r.Info)
	}
	if !strings.HasSuffix(r.CapEff, "ffffffff") || strings.Trim(r.CapAmb, "0") != "" {
		t.Errorf("capabilities: effective %s, ambient %s", r.CapEff, r.CapAmb)
	}
}

func TestEnterWithoutRange(t *testing.T) {
	u := testUser(t, false)
	r := runReport(t, asUser(t, u, "report"))
	if !r.Rootless || !r.SingleID || r.UID != 0 || r.MountErr != "" {
		t.Errorf("got %+v", r)
	}
	if !strings.Contains(r.Chown, "invalid argument") {
		t.Errorf("chown to an id that is not there: got %q", r.Chown)
	}
	if len(r.Reasons) != 1 || !strings.Contains(r.Reasons[0],
		"no range of ids for user "+u.Username) {
		t.Errorf("reasons: got %q", r.Reasons)
	}
}

func TestEnterWithoutNewuidmap(t *testing.T) {
	u := testUser(t, true)
	r := runReport(t, asUser(t, u, "report", "PATH=/nonexistent"))
	if !r.SingleID || len(r.Reasons) != 1 ||
		!strings.Contains(r.Reasons[0], "newuidmap is not installed") {
		t.Errorf("got %+v", r)
	}
}

func TestEnterWithBrokenNewuidmap(t *testing.T) {
	u := testUser(t, true)
	dir, err := os.MkdirTemp("", "ns-test")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Chmod(dir, 0o755)
	for _, tool := range []string{"newuidmap", "newgidmap"} {
		if err := os.WriteFile(filepath.Join(dir, tool),
			[]byte("#!/bin/sh\necho not today >&2\nexit 1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r := runReport(t, asUser(t, u, "report", "PATH="+dir))
	if !r.SingleID || len(r.Reasons) != 1 || !strings.Contains(r.Reasons[0], "not today") {
		t.Errorf("got %+v", r)
	}
}

func TestEnterAsRoot(t *testing.T) {
	if os.Getuid() != 0 || !admin() || !mayMount() {
		t.Skip("needs root who may mount")
	}
	r := runReport(t, asUser(t, nil, "report"))
	if r.Entered || r.MountErr != "" {
		t.Errorf("root needs no namespace, got %+v", r)
	}
	r = runReport(t, asUser(t, nil, "mounts"))
	if !r.Entered || !r.Private || r.MountErr != "" || r.PPID != os.Getpid() {
		t.Errorf("with Mounts: got %+v, want a private namespace in the same process", r)
	}
}

// Under `unshare -r` the user is root and cannot mount.
func TestEnterInUserNamespaceWithoutMounts(t *testing.T) {
	cmd := asUser(t, nil, "report")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("no user namespaces here: %v", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	again := asUser(t, nil, "report")
	again.SysProcAttr = cmd.SysProcAttr
	r := runReport(t, again)
	if !r.Entered || !r.Rootless || !r.SingleID || r.MountErr != "" || !r.Private {
		t.Errorf("got %+v", r)
	}
}

// In a pod, root often does not have CAP_SYS_ADMIN.
func TestEnterAsRootWithoutAdmin(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("setpriv is not installed")
	}
	cmd := asUser(t, nil, "report")
	cmd.Args = []string{setpriv, "--bounding-set=-sys_admin", "/proc/self/exe"}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path, cmd.Args[2] = setpriv, exe
	r := runReport(t, cmd)
	if !r.Entered || !r.Rootless || r.SingleID || r.MountErr != "" || r.Chown != "" {
		t.Errorf("got %+v", r)
	}
	if want, _ := Current(); !cmp.Equal(want.UIDs, r.UIDs) {
		t.Errorf("ids: got %v, want %v", r.UIDs, want.UIDs)
	}
}

func TestExitStatus(t *testing.T) {
	u := testUser(t, true)
	for what, want := range map[string]int{"exit": 7, "die": 128 + 9} {
		err := asUser(t, u, what).Run()
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || exit.ExitCode() != want {
			t.Errorf("%s: got %v, want exit status %d", what, err, want)
		}
	}
}

// startPiped starts a helper and returns it with the pid that the second process printed.
func startPiped(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestSignalsAreHandedOn(t *testing.T) {
	u := testUser(t, true)
	cmd := asUser(t, u, "signal")
	startPiped(t, cmd)
	cmd.Process.Signal(unix.SIGTERM)
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 42 {
		t.Errorf("got %v, want exit status 42", err)
	}
}

func TestParentDeathKillsChild(t *testing.T) {
	u := testUser(t, true)
	cmd := asUser(t, u, "hang")
	pid := startPiped(t, cmd)
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd.Process.Kill()
	cmd.Wait()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 5000)
	if err != nil || n != 1 {
		t.Errorf("the second process outlived the first: %d, %v", n, err)
		unix.Kill(pid, unix.SIGKILL)
	}
}

func TestParseSubIDs(t *testing.T) {
	const file = `# a comment
alice:100000:65536
bob:200000:65536
1000:300000:10
alice:bad:1
alice:4294967290:100
alice:400000:0
:1:1
`
	tests := []struct {
		name string
		uid  int
		want []Range
	}{
		{"alice", 1000, []Range{{1, 100000, 65536}, {65537, 300000, 10}}},
		{"bob", 1, []Range{{1, 200000, 65536}}},
		{"", 1000, []Range{{1, 300000, 10}}},
		{"nobody", 5, nil},
	}
	for _, tt := range tests {
		if got := parseSubIDs(strings.NewReader(file), tt.name, tt.uid); !cmp.Equal(got, tt.want) {
			t.Errorf("parseSubIDs(%q, %d) = %v, want %v", tt.name, tt.uid, got, tt.want)
		}
	}
}

func TestParseMap(t *testing.T) {
	got, err := parseMap(strings.NewReader(
		"         0       1000          1\n         1     100000      65536\n"))
	if err != nil || !cmp.Equal(got, []Range{{0, 1000, 1}, {1, 100000, 65536}}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"0 1", "a b c", "0 0 4294967296"} {
		if _, err := parseMap(strings.NewReader(bad)); err == nil {
			t.Errorf("parseMap(%q): no error", bad)
		}
	}
}

func BenchmarkEnter(b *testing.B) {
	what := "report"
	if os.Getuid() == 0 {
		what = "mounts"
	}
	start := time.Now()
	var cpu time.Duration
	for b.Loop() {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{helperVar + "=" + what, "PATH=" + os.Getenv("PATH"), "TMPDIR=/tmp"}
		if err := cmd.Run(); err != nil {
			b.Skip(err)
		}
		cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(time.Since(start).Microseconds())/float64(b.N), "µs/op")
}

package executor

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/mount"
)

func TestOutput(t *testing.T) {
	im := newBusybox(t)
	if got := im.mustRun(shell("echo hello; echo to stderr >&2")); got != "hello\nto stderr\n" {
		t.Errorf("got %q", got)
	}
	var so, se bytes.Buffer
	if _, err := Run(t.Context(), im.spec(shell("echo a; echo b >&2")), &so, &se); err != nil ||
		so.String() != "a\n" || se.String() != "b\n" {
		t.Errorf("got %q, %q, %v", &so, &se, err)
	}
	if _, err := Run(t.Context(), im.spec(shell("echo a")), nil, nil); err != nil {
		t.Errorf("nobody listens: %v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestOutputThatCantBeWritten(t *testing.T) {
	im := newBusybox(t)
	_, err := Run(t.Context(),
		im.spec(shell("i=0; while [ $i -lt 3000 ]; do echo 012345678901234567890123456789012345678901234567890123456789; i=$((i+1)); done; touch /done")), failingWriter{}, nil)
	if err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(im.path("done")); err != nil {
		t.Errorf("the command did not come to its end: %v", err)
	}
}

// A process that was started by another part of the program, or by another program, may have a copy
// of a descriptor for a short time. The kernel does not execute the file meanwhile.
func TestProgramIsOpenForWriting(t *testing.T) {
	for _, tty := range []bool{false, true} {
		im := newBusybox(t)
		f, err := os.OpenFile(im.path("bin/busybox"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		time.AfterFunc(300*time.Millisecond, func() { f.Close() })
		p := shell("echo hello")
		p.TTY = tty
		if got := strings.ReplaceAll(im.mustRun(p), "\r", ""); got != "hello\n" {
			t.Errorf("terminal %v: got %q", tty, got)
		}
	}
}

func TestExitStatus(t *testing.T) {
	im := newBusybox(t)
	im.write("text", "no program", 0o644)
	im.write("script", "#!/no/such/interpreter\n", 0o755)
	im.write("garbage", "\x01\x02\x03\x04", 0o755)
	im.mkdir("etc")
	tests := []struct {
		p    *Process
		want ExitError
	}{
		{shell("exit 3"), ExitError{Code: 3}},
		{shell("kill -9 $$"), ExitError{Code: 137, Signal: 9}},
		{shell("kill -TERM $$"), ExitError{Code: 143, Signal: 15}},
		{shell("nosuchcommand 2>/dev/null"), ExitError{Code: 127}},
		{&Process{Args: []string{"foo"}, Env: []string{path1}},
			ExitError{Code: 127, Reason: `exec: "foo": executable file not found in $PATH`}},
		{&Process{Args: []string{"foo"}}, ExitError{Code: 127,
			Reason: `exec: "foo": executable file not found in $PATH`}},
		{&Process{Args: []string{"/nope"}}, ExitError{Code: 127,
			Reason: `exec: "/nope": no such file in the image`}},
		{&Process{Args: []string{"/script"}},
			ExitError{Code: 127, Reason: `exec: "/script": its interpreter "/no/such/interpreter" is not in the image`}},
		{&Process{Args: []string{"/text"}}, ExitError{Code: 126,
			Reason: `exec: "/text": permission denied`}},
		{&Process{Args: []string{"text"}, Env: []string{"PATH=/"}},
			ExitError{Code: 126, Reason: `exec: "text": permission denied`}},
		{&Process{Args: []string{"/garbage"}},
			ExitError{Code: 126, Reason: `exec: "/garbage": exec format error (a program for another platform, or a script without #!)`}},
		{&Process{Args: []string{"/etc"}}, ExitError{Code: 126,
			Reason: `exec: "/etc": permission denied`}},
		{&Process{}, ExitError{Code: 127, Reason: `exec: no command`}},
	}
	for _, tt := range tests {
		out, err := im.run(tt.p)
		got, ok := errors.AsType[*ExitError](err)
		if !ok || !cmp.Equal(*got, tt.want) {
			t.Errorf("%q: got %v (%+v) %q, want %+v", tt.p.Args, err, got, out, tt.want)
		}
	}
}

func TestNoShell(t *testing.T) {
	im := newImage(t)
	_, err := im.run(shell("true"))
	if err == nil || err.Error() != `exec: "/bin/sh": no such file in the image` {
		t.Errorf("got %v", err)
	}
}

// status returns a command's /proc/self/status.
func status(t *testing.T, im *image, p *Process) map[string]string {
	t.Helper()
	p.Args = []string{"cat", "/proc/self/status"}
	p.Env = append(p.Env, path1)
	m := map[string]string{}
	for line := range strings.Lines(im.mustRun(p)) {
		k, v, _ := strings.Cut(line, ":")
		m[k] = strings.TrimSpace(v)
	}
	return m
}

// bounding returns the capabilities that this process and its children can have.
func bounding(t *testing.T) uint64 {
	t.Helper()
	var caps uint64
	for c := range uintptr(64) {
		if r, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err == nil && r == 1 {
			caps |= 1 << c
		}
	}
	return caps
}

func TestCapabilities(t *testing.T) {
	im := newBusybox(t)
	want := fmt.Sprintf("%016x", bounding(t)&0xa80425fb)
	const none = "0000000000000000"
	s := status(t, im, &Process{})
	for name, want := range map[string]string{"CapBnd": want, "CapPrm": want, "CapEff": want,
		"CapInh": none, "CapAmb": none, "NoNewPrivs": "0", "Seccomp": "2",
		"SigBlk": none, "SigIgn": none} {
		if s[name] != want {
			t.Errorf("%s: got %s, want %s", name, s[name], want)
		}
	}
	if !singleID {
		s = status(t, im, &Process{User: "1234:1234"})
		for name, want := range map[string]string{"CapBnd": want, "CapPrm": none, "CapEff": none,
			"CapInh": none, "CapAmb": none, "Uid": "1234\t1234\t1234\t1234",
			"Gid": "1234\t1234\t1234\t1234", "Groups": "1234"} {
			if s[name] != want {
				t.Errorf("user 1234: %s: got %q, want %q", name, s[name], want)
			}
		}
	}
	for _, tt := range []struct {
		add, drop []string
		want      uint64
	}{
		{nil, []string{"all"}, 0},
		{[]string{"NET_ADMIN"}, nil, 0xa80425fb | 1<<unix.CAP_NET_ADMIN},
		{[]string{"cap_sys_admin"}, []string{"CHOWN"}, 0xa80425fa | 1<<unix.CAP_SYS_ADMIN},
		{[]string{"KILL"}, []string{"ALL"}, 1 << unix.CAP_KILL},
		{[]string{"ALL"}, []string{"SYS_ADMIN", "MKNOD"},
			AllCapabilities &^ (1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_MKNOD)},
	} {
		set, err := Capabilities(tt.add, tt.drop)
		if err != nil {
			t.Fatal(err)
		}
		s = status(t, im, &Process{Caps: &set})
		want := fmt.Sprintf("%016x", bounding(t)&tt.want)
		for _, name := range []string{"CapBnd", "CapPrm", "CapEff"} {
			if s[name] != want || s["Seccomp"] != "2" {
				t.Errorf("add %q, drop %q: %s: got %s, want %s", tt.add, tt.drop, name, s[name],
					want)
			}
		}
	}
	s = status(t, im, &Process{Insecure: true})
	for name, want := range map[string]string{"CapBnd": fmt.Sprintf("%016x", bounding(t)),
		"Seccomp": "0"} {
		if s[name] != want {
			t.Errorf("insecure: %s: got %s, want %s", name, s[name], want)
		}
	}
}

func TestSetuidWorks(t *testing.T) {
	im := newBusybox(t)
	if singleID {
		t.Skip("there is one id only")
	}
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if exe, err := elf.NewFile(bytes.NewReader(data)); err != nil || exe.Section(".interp") != nil {
		t.Skip("the test's program is not static (CGO_ENABLED=0 makes it so)")
	}
	im.write("ids", string(data), 0o755|os.ModeSetuid)
	if got := im.mustRun(&Process{Args: []string{"/ids", "ids"}, User: "1000"}); got != "1000 0\n" {
		t.Errorf("a setuid program's user and effective user: got %s", got)
	}
}

func TestEnvironmentAndDescriptors(t *testing.T) {
	im := newBusybox(t)
	t.Setenv("HOST_SECRET", "x")
	leak, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	if _, err := unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0); err != nil { // let it be inherited
		t.Fatal(err)
	}
	if got := im.mustRun(&Process{Args: []string{"env"},
		Env: []string{"A=1", path1, "A=2"}}); got != "A=1\n"+path1+"\nA=2\nHOME=/\n" {
		t.Errorf("environment: got %q", got)
	}
	got := im.mustRun(shell(
		`cd /proc/self/fd; for f in *; do if test -e $f; then readlink $f; fi; done`))
	want := regexp.MustCompile(`^/dev/null\npipe:\[\d+\]\npipe:\[\d+\]\n(/proc/\d+/fd\n)?$`)
	if !want.MatchString(got) {
		t.Errorf("descriptors: got %q", got)
	}
	got = im.mustRun(shell("cat; wc -c; umask; pwd; hostname; " +
		"cat /proc/self/sessionid >/dev/null; ps | wc -l"))
	if !strings.HasPrefix(got, "0\n0022\n/\nbuildkitsandbox\n") {
		t.Errorf("got %q", got)
	}
}

func TestHome(t *testing.T) {
	im := newBusybox(t)
	im.mkdir("etc")
	im.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n", 0o644)
	if got := im.mustRun(shell("echo $HOME")); got != "/root\n" {
		t.Errorf("got %q", got)
	}
	p := shell("echo $HOME")
	p.Env = append(p.Env, "HOME=/elsewhere")
	if got := im.mustRun(p); got != "/elsewhere\n" {
		t.Errorf("got %q", got)
	}
}

func TestUser(t *testing.T) {
	im := newBusybox(t)
	if singleID {
		t.Skip("there is one id only")
	}
	im.mkdir("etc")
	im.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:2000::/home/app:\n",
		0o644)
	im.write("etc/group", "root:x:0:\nstaff:x:50:other,app\nwheel:x:10:app\napp:x:2000:\n", 0o644)
	tests := []struct{ user, want, home string }{
		{"", "0:0:0", "/root"},
		{"app", "1000:2000:2000,50,10", "/home/app"},
		{"1000", "1000:2000:2000,50,10", "/home/app"},
		{"app:staff", "1000:50:50", "/home/app"},
		{"1000:7", "1000:7:7", "/home/app"},
		{"3000", "3000:0:0", "/"},
		{"app:", "1000:2000:2000,50,10", "/home/app"},
	}
	for _, tt := range tests {
		p := shell(`grep -E "^(Uid|Gid|Groups):" /proc/self/status; echo $HOME`)
		p.User = tt.user
		f := strings.Fields(im.mustRun(p))
		i := slices.Index(f, "Gid:")
		k := slices.Index(f, "Groups:")
		groups := slices.Clone(f[k+1 : len(f)-1])
		got := f[1] + ":" + f[i+1] + ":" + strings.Join(groups, ",")
		sortGroups := func(s string) string {
			a := strings.Split(s, ":")
			g := strings.Split(a[2], ",")
			slices.Sort(g)
			return a[0] + ":" + a[1] + ":" + strings.Join(g, ",")
		}
		if sortGroups(got) != sortGroups(tt.want) || f[len(f)-1] != tt.home {
			t.Errorf("user %q: got %s home %s, want %s %s", tt.user, got,
				f[len(f)-1], tt.want, tt.home)
		}
	}
	for user, want := range map[string]string{
		"nobody":      "unable to find user nobody: no matching entries in passwd file",
		"app:nogroup": "unable to find group nogroup: no matching entries in group file",
		"99999999999": "user and group numbers must be in the range 0 to 2147483647, not 99999999999",
		"-1":          "user and group numbers must be in the range 0 to 2147483647, not -1",
	} {
		p := shell("true")
		p.User = user
		if _, err := im.run(p); err == nil || err.Error() != want {
			t.Errorf("user %q: got %v, want %s", user, err, want)
		}
	}
}

func TestUserThatIsNotMapped(t *testing.T) {
	im := newBusybox(t)
	if !userNS {
		t.Skip("all ids are there")
	}
	p := shell("true")
	p.User = "2000000000"
	if _, err := im.run(p); err == nil || !strings.Contains(err.Error(),
		"there is no such id in this user namespace") {
		t.Errorf("got %v", err)
	}
}

// A command can open a stdout that is a pipe by its name, as any user.
func TestOpenStdout(t *testing.T) {
	im := newBusybox(t)
	p := shell("echo x > /dev/stdout; echo y > /dev/stderr; echo z > /proc/self/fd/1")
	if !singleID {
		p.User = "1000"
	}
	if got := im.mustRun(p); got != "x\ny\nz\n" {
		t.Errorf("got %q", got)
	}
}

func TestWorkingDirectory(t *testing.T) {
	im := newBusybox(t)
	im.mkdir("real/dir")
	im.link("/real/dir", "link")
	im.link("/bin/busybox", "file")
	for dir, want := range map[string]string{"/link": "/real/dir", "/new/sub": "/new/sub",
		"real": "/real", "/../../..": "/"} {
		p := shell("pwd -P")
		p.Dir = dir
		if got := im.mustRun(p); got != want+"\n" {
			t.Errorf("dir %s: got %q", dir, got)
		}
	}
	p := shell("true")
	p.Dir = "/file/x"
	if _, err := im.run(p); err == nil ||
		err.Error() != "enter the working directory /file/x: not a directory" {
		t.Errorf("got %v", err)
	}
	if singleID {
		return
	}
	p = shell("stat -c %u:%g:%a . ..")
	p.Dir, p.User = "/made/for", "5:6"
	if got := im.mustRun(p); got != "5:6:755\n5:6:755\n" {
		t.Errorf("a new working directory: got %q", got)
	}
}

func TestDevices(t *testing.T) {
	im := newBusybox(t)
	got := im.mustRun(shell(`for d in null zero full random urandom tty; do stat -c "%n %F %a %t,%T" /dev/$d; done
		echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x > /dev/full
		for l in fd stdin stdout stderr ptmx core; do echo $l $(readlink /dev/$l); done
		test -c /dev/ptmx && echo ptmx; test -d /dev/mqueue && echo mqueue; touch /dev/shm/x && stat -c %a /dev/shm
		df -k /dev/shm | grep -o " 65536  "`))
	for _, want := range []string{"/dev/null character special file 666 1,3",
		"/dev/tty character special file 666 5,0", "4\n4\n",
		"No space left", "fd /proc/self/fd\n", "stdout /proc/self/fd/1\n", "ptmx pts/ptmx\n",
		"core /proc/kcore\n", "\nptmx\nmqueue\n1777\n 65536  \n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	p := shell(`df -k /dev/shm | grep -c " 1024  "`)
	p.ShmSize = 1 << 20
	if got := im.mustRun(p); got != "1\n" {
		t.Errorf("shm size: got %q", got)
	}
}

// A step that changes its device nodes does not change the machine's.
func TestDevicesAreNotTheMachines(t *testing.T) {
	im := newBusybox(t)
	var before, after unix.Stat_t
	if err := unix.Stat("/dev/null", &before); err != nil {
		t.Fatal(err)
	}
	im.run(shell("chmod 0 /dev/null; chmod 0 /proc/keys; touch -d @1 /dev/null; rm /dev/null"))
	if err := unix.Stat("/dev/null", &after); err != nil || after.Mode != before.Mode ||
		after.Mtim.Sec == 1 {
		t.Errorf("/dev/null: %o became %o, %v", before.Mode, after.Mode, err)
	}
}

func TestKernelInterfaces(t *testing.T) {
	im := newBusybox(t)
	// Masked files are empty and read-only files cannot be written. In insecure mode they can.
	out := im.mustRun(shell(`
		wc -c < /proc/keys; ls /proc/acpi /sys/firmware 2>&1; 
		(echo 1 > /proc/sys/kernel/hostname) 2>&1; (echo x > /proc/sysrq-trigger) 2>&1
		mkdir /sys/x 2>&1; mount -t tmpfs none /bin 2>&1; umount /proc 2>&1; unshare -U true 2>&1; dmesg 2>&1 | head -n 1
		mount -o remount,rw /sys 2>&1; mknod /tmpdev b 254 0; head -c1 /tmpdev 2>&1; mknod /dev/d b 254 0; head -c1 /dev/d 2>&1; hostname other 2>&1; true`))
	for _, want := range []string{"0\n", "can't create /proc/sys/kernel/hostname: Read-only",
		"can't create /proc/sysrq-trigger: ", "head: /tmpdev: ", "head: /dev/d: ",
		"mount: permission denied", "umount: can't unmount /proc: Operation not permitted",
		"unshare(0x10000000): Operation not permitted", "klogctl: Operation not permitted",
		"hostname: sethostname: Operation not permitted"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	p := shell("mount -t tmpfs none /mnt && touch /mnt/x && echo mounted; grep ' /sys ' /proc/mounts; grep -c ' /proc/' /proc/mounts")
	im.mkdir("mnt")
	p.Insecure = true
	out, err := im.run(p)
	if !strings.Contains(out, "mounted\n") || !userNS && !strings.Contains(out, " /sys sysfs rw") {
		t.Errorf("insecure: got %v\n%s", err, out)
	}
}

// An insecure step has the devices that BuildKit's insecure steps have. Other steps, and those in a
// user namespace, do not.
func TestInsecureDevices(t *testing.T) {
	im := newBusybox(t)
	p := shell(`for d in c/kmsg c/cuse c/fuse c/kvm c/net/tun c/loop-control b/loop0 b/loop7; do
		test -${d%%/*} /dev/${d#*/} && echo $d; done; true`)
	if out := im.mustRun(p); out != "" {
		t.Errorf("a step has the devices %q", out)
	}
	p.Insecure = true
	want := "c/kmsg\nc/cuse\nc/fuse\nc/kvm\nc/net/tun\nc/loop-control\nb/loop0\nb/loop7\n"
	if userNS || bounding(t)&(1<<unix.CAP_MKNOD) == 0 {
		want = ""
	}
	if out := im.mustRun(p); out != want {
		t.Errorf("an insecure step has the devices %q, want %q", out, want)
	}
}

func TestHostsAndResolvConf(t *testing.T) {
	im := newBusybox(t)
	im.mkdir("etc")
	im.write("etc/hosts", "the image's own\n", 0o600)
	p := shell(
		"cat /etc/hosts; cat /etc/resolv.conf >/resolv; (echo x > /etc/hosts) 2>&1; rm /etc/hosts 2>&1")
	p.Hostname, p.ExtraHosts = "me", []Host{{"db", "10.0.0.1"}}
	out, _ := im.run(p)
	want := "127.0.0.1\tlocalhost me\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb\n"
	if !strings.HasPrefix(out, want) || !strings.Contains(out, "Read-only file system") ||
		!strings.Contains(out, "busy") {
		t.Errorf("got %q", out)
	}
	host, _ := os.ReadFile("/etc/resolv.conf")
	if got, _ := os.ReadFile(im.path("resolv")); !bytes.Equal(got, host) {
		t.Errorf("resolv.conf: got %q, want %q", got, host)
	}
	if got, _ := os.ReadFile(im.path("etc/hosts")); string(got) != "the image's own\n" {
		t.Errorf("the image's own hosts file is now %q", got)
	}
}

func TestNetworkNone(t *testing.T) {
	im := newBusybox(t)
	p := shell("ip link | grep -c '^[0-9]'; ip addr show lo | grep -o 'inet 127.0.0.1/8'; cat /etc/resolv.conf | wc -l >/dev/null")
	p.Network = "none"
	if got := im.mustRun(p); got != "1\ninet 127.0.0.1/8\n" {
		t.Errorf("got %q", got)
	}
}

func TestUlimits(t *testing.T) {
	im := newBusybox(t)
	p := shell("ulimit -n; ulimit -Hn; ulimit -c")
	p.Ulimits = []Ulimit{{"nofile", 100, 200}, {"core", 0, 0}}
	if got := im.mustRun(p); got != "100\n200\n0\n" {
		t.Errorf("got %q", got)
	}
	p.Ulimits = []Ulimit{{"nofiles", 1, 1}}
	if _, err := im.run(p); err == nil || err.Error() != `unknown limit "nofiles"` {
		t.Errorf("got %v", err)
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
}

// snapshotTree returns everything about a tree that a layer can contain.
func snapshotTree(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.Walk(dir, func(name string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		all = append(all, fmt.Sprintf("%s %s %d:%d %d %d", strings.TrimPrefix(name, dir), fi.Mode(),
			st.Uid, st.Gid, fi.Size()*boolInt(!fi.IsDir()), st.Mtim.Nano()))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func boolInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func TestMountPointsLeaveNoTrace(t *testing.T) {
	im := newBusybox(t)
	im.mkdir("etc")
	im.link("/run/systemd/resolve/stub-resolv.conf", "etc/resolv.conf")
	old := time.Unix(1000000000, 123456789)
	for _, name := range []string{"etc", "bin", ""} {
		if err := os.Chtimes(im.path(name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	before := snapshotTree(t, im.dir)
	p := shell("test -s /run/secrets/key && touch /root/.cache/x/y && test -s /etc/hosts")
	p.Mounts = []Mount{
		{Target: "/run/secrets/key", Source: Data{Data: []byte("k")}, ReadOnly: true},
		{Target: "/root/.cache/x", Source: Tmpfs{}},
		{Target: "/a/b/c", Source: Tmpfs{}},
	}
	im.mustRun(p)
	if diff := cmp.Diff(before, snapshotTree(t, im.dir)); diff != "" {
		t.Errorf("the tree has changed (-before +after):\n%s", diff)
	}
	// The tree is also unchanged if the command fails, and if it cannot be started.
	for _, script := range []string{"exit 1", "kill -9 $$"} {
		im.run(shell(script))
		if diff := cmp.Diff(before, snapshotTree(t, im.dir)); diff != "" {
			t.Errorf("%s: the tree has changed (-before +after):\n%s", script, diff)
		}
	}
	im.mustRun(shell("touch -d @1 /etc/new; touch -d @77 /etc; echo resolv > /run/other; mkdir -p /dev/x; sleep 1000 & true"))
	var got []string
	for _, line := range snapshotTree(t, im.dir) {
		if !slices.Contains(before, line) {
			got = append(got, strings.Fields(line)[0])
		}
	}
	if want := []string{"/etc", "/etc/new", "/run", "/run/other"}; !cmp.Equal(got, want) &&
		!cmp.Equal(got, append([]string{"-rwx"}, want...)) {
		// The root directory's time has changed because of /run, as expected.
		if !slices.Contains(got, "/run/other") ||
			slices.ContainsFunc(got, func(s string) bool {
				return strings.Contains(s, "hosts") || strings.Contains(s, "/dev")
			}) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	if fi, err := os.Stat(im.path("etc")); err != nil || fi.ModTime().Unix() != 77 {
		t.Errorf("the time that the command gave to /etc: got %v, %v", fi.ModTime(), err)
	}
}

func TestMounts(t *testing.T) {
	im := newBusybox(t)
	im.mkdir("work")
	im.write("conf", "old", 0o644)
	host := t.TempDir()
	os.WriteFile(filepath.Join(host, "data"), []byte("from the host"), 0o644)
	os.Symlink("/etc/passwd", filepath.Join(host, "evil"))
	os.MkdirAll(filepath.Join(host, "sub/dir"), 0o755)
	bind := func(dir string) []mount.Mount {
		return []mount.Mount{{Type: "bind", Source: dir, Options: []string{"rbind"}}}
	}
	p := shell(`cat /wd/m/data; touch /wd/m/new; (touch /ro/x) 2>&1; cat /conf; cat /one; stat -c %a:%u:%g /secret; cat /secret; df -k /tmpf | grep -c " 64  "; stat -c %a /tmpf; ls /deep /nested; cat /wd/relative`)
	p.Dir = "/wd"
	p.Mounts = []Mount{
		{Target: "/nested/inner/x", Source: Tmpfs{}}, // listed before the mount that contains it
		{Target: "/nested", Source: Tmpfs{}},
		{Target: "/wd/m", Source: Bind{Source: host}},
		{Target: "/ro", Source: Bind{Source: host}, ReadOnly: true},
		{Target: "/conf", Source: Bind{Source: filepath.Join(host, "data")}},
		{Target: "/one", Source: Tree{Mounts: bind(host), Path: "data"}, ReadOnly: true},
		{Target: "/deep", Source: Tree{Mounts: bind(host), Path: "made/here", Make: true}},
		{Target: "relative", Source: Data{Data: []byte("rel\n"), Mode: 0o444}},
		{Target: "/secret", Source: Data{Data: []byte("hush\n"), Mode: 0o640}},
		{Target: "/tmpf", Source: Tmpfs{Size: 64 << 10, Mode: 0o700}},
	}
	got := im.mustRun(p)
	want := "from the host" + "touch: /ro/x: Read-only file system\n" +
		"from the hostfrom the host" + "640:0:0\nhush\n1\n700\n/deep:\n\n/nested:\ninner\nrel\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := os.Stat(filepath.Join(host, "new")); err != nil {
		t.Errorf("what was written to a writable mount: %v", err)
	}
	if fi, err := os.Stat(filepath.Join(host, "made/here")); err != nil || !fi.IsDir() {
		t.Errorf("the part that was to be made: %v", err)
	}
	for _, tt := range []struct {
		m    Mount
		want string
	}{
		{Mount{Target: "/", Source: Tmpfs{}}, "cannot mount at /"},
		{Mount{Target: "/wd/..", Source: Tmpfs{}}, "cannot mount at /"},
		{Mount{Target: "/x", Source: Tree{Mounts: bind(host), Path: "nope"}},
			"mount at /x: /nope: not found"},
		{Mount{Target: "/x", Source: Tree{Mounts: bind(host), Path: "evil"}},
			"mount at /x: /evil: not found"},
		{Mount{Target: "/x", Source: Tree{Mounts: bind(host), Path: "../../../../etc/passwd"}},
			"mount at /x: /etc/passwd: not found"},
		{Mount{Target: "/bin/sh/x", Source: Tmpfs{}}, "mount at /bin/sh/x: not a directory"},
		{Mount{Target: "/conf", Source: Tmpfs{}}, "mount at /conf: not a directory"},
		{Mount{Target: "/bin", Source: Data{}}, "mount at /bin: is a directory"},
	} {
		p := shell("true")
		p.Mounts = []Mount{tt.m}
		if _, err := im.run(p); err == nil || err.Error() != tt.want {
			t.Errorf("mount at %s: got %v, want %s", tt.m.Target, err, tt.want)
		}
	}
}

func TestReadOnlyRoot(t *testing.T) {
	im := newBusybox(t)
	p := shell("(touch /x) 2>&1; touch /dev/shm/x && echo shm")
	p.ReadOnlyRoot = true
	if got := im.mustRun(p); got != "touch: /x: Read-only file system\nshm\n" {
		t.Errorf("got %q", got)
	}
}

func TestStdin(t *testing.T) {
	im := newBusybox(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.WriteString("typed")
	w.Close()
	p := shell("cat")
	p.Stdin = r
	if got := im.mustRun(p); got != "typed" {
		t.Errorf("got %q", got)
	}
}

func TestTerminal(t *testing.T) {
	im := newBusybox(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := shell("tty; test -t 0 && test -t 2 && echo terminal; head -n 1; exit 5")
	p.TTY, p.Stdin = true, r
	w.WriteString("typed\n")
	out, err := im.run(p)
	w.Close()
	if exit, ok := errors.AsType[*ExitError](err); !ok || exit.Code != 5 {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(out, "/dev/pts/0\r\n") || !strings.Contains(out, "terminal\r\n") ||
		!strings.Contains(out, "typed\r\n") {
		t.Errorf("got %q", out)
	}
	p = shell("true")
	p.TTY, p.User = true, "nobody"
	if _, err := im.run(p); err == nil || !strings.Contains(err.Error(),
		"unable to find user nobody") {
		t.Errorf("an error before there is a terminal: got %v", err)
	}
}

// Signals that a command sends to process 1 do nothing to it.
func TestInit(t *testing.T) {
	im := newBusybox(t)
	out := im.mustRun(shell(`for s in TERM INT HUP QUIT USR1 USR2 PIPE ALRM KILL STOP TSTP; do kill -$s 1; done
		(sleep 0 & exec sleep 0.05) & wait; kill -0 1 && echo alive; trap 'echo term' TERM; kill -TERM -1; sleep 0; echo end`))
	if !strings.HasPrefix(out, "alive\n") || !strings.HasSuffix(out, "end\n") {
		t.Errorf("got %q", out)
	}
}

// Orphans are reaped, and processes that outlive the command are killed, even if they hold the
// output open.
func TestBackgroundProcesses(t *testing.T) {
	im := newBusybox(t)
	start := time.Now()
	out := im.mustRun(shell(`i=0; while [ $i -lt 20 ]; do (true &); i=$((i+1)); done; sleep 0.1; ps | grep -c "Z"; (sleep 1000 &) ; sleep 1000 & echo done`))
	if !strings.HasSuffix(out, "done\n") || strings.Contains(out, "[true]") {
		t.Errorf("got %q", out)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("the step took %v", d)
	}
}

// children returns the child processes of this process.
func children(t *testing.T) []string {
	t.Helper()
	out, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", unix.Gettid()))
	if err != nil {
		t.Skip("this kernel does not list children")
	}
	return strings.Fields(string(out))
}

func TestCancel(t *testing.T) {
	im := newBusybox(t)
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	go func() {
		pr.Read(make([]byte, 1))
		cancel()
	}()
	start := time.Now()
	_, err = Run(ctx, im.spec(shell("trap '' TERM INT HUP; sleep 1000 & echo x; sleep 1000")), pw,
		nil)
	pw.Close()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("the end took %v", d)
	}
	if _, err := Run(ctx, im.spec(shell("true")), nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// killVar is a variable that makes the test program run a step that waits, so that a test can kill
// the program while the step runs.
const killVar = "LAYERBUILD_EXECUTOR_TEST_KILL"

func init() {
	if dir := os.Getenv(killVar); dir != "" && len(os.Args) > 1 {
		s := &Spec{Root: []mount.Mount{{Type: "bind", Source: dir, Options: []string{"rbind"}}},
			Action: shell("echo started; sleep 1000"), UserNS: userNS, SingleID: singleID}
		Run(context.Background(), s, os.Stdout, os.Stderr)
		os.Exit(1)
	}
}

func TestKillLeavesNothing(t *testing.T) {
	im := newBusybox(t)
	im.mkdir("stub-free")
	cmd := exec.Command("/proc/self/exe", "step")
	cmd.Env = []string{killVar + "=" + im.dir}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	var fds []unix.PollFd
	for _, pid := range childrenOf(t, cmd.Process.Pid) {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	cmd.Process.Kill()
	cmd.Wait()
	for i := range fds {
		if n, err := unix.Poll(fds[i:i+1], 10000); n != 1 {
			t.Errorf("the step outlived the program: %v", err)
			unix.PidfdSendSignal(int(fds[i].Fd), unix.SIGKILL, nil, 0)
		}
	}
	if now, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(now), im.dir) {
		t.Errorf("mounts were left behind: %s", now)
	}
}

func childrenOf(t *testing.T, parent int) []int {
	t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	if len(pids) == 0 {
		t.Fatal("the program has no child")
	}
	return pids
}

func TestHostNameError(t *testing.T) {
	for err, want := range map[error]bool{unix.EPERM: true, unix.EINVAL: false} {
		got := hostNameError(err)
		if !errors.Is(got, err) || strings.Contains(got.Error(), "seccomp profile") != want {
			t.Errorf("hostNameError(%v) = %v; has a remedy: want %t", err, got, want)
		}
	}
}

package executor

import (
	_ "embed"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCapabilityNames(t *testing.T) {
	for name, n := range map[string]int{"CHOWN": unix.CAP_CHOWN, "NET_ADMIN": unix.CAP_NET_ADMIN,
		"SYS_PTRACE": unix.CAP_SYS_PTRACE, "SYS_ADMIN": unix.CAP_SYS_ADMIN,
		"SYS_TIME": unix.CAP_SYS_TIME, "MKNOD": unix.CAP_MKNOD, "SETFCAP": unix.CAP_SETFCAP,
		"SYSLOG": unix.CAP_SYSLOG, "BPF": unix.CAP_BPF,
		"CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE} {
		for _, name := range []string{name, "CAP_" + name, strings.ToLower("cap_" + name)} {
			if got, err := capabilities([]string{name}); err != nil || got != 1<<n {
				t.Errorf("%s: got %x, %v, want bit %d", name, got, err, n)
			}
		}
	}
	if len(capabilityNames) != unix.CAP_LAST_CAP+1 {
		t.Errorf("%d names, and capabilities up to %d", len(capabilityNames), unix.CAP_LAST_CAP)
	}
	for _, name := range []string{"", "CAP_", "CAP_CAP_CHOWN", "nonsense", "CHOWN,KILL"} {
		for _, lists := range [][2][]string{{{name}, nil}, {nil, {name}}} {
			if _, err := Capabilities(lists[0], lists[1]); err == nil {
				t.Errorf("no error for %q", name)
			}
		}
	}
}

// TestMissingCapability gives a command capabilities of which this process lacks one.
func TestMissingCapability(t *testing.T) {
	has := func(n int) bool { return n != unix.CAP_SYS_TIME && n != unix.CAP_MKNOD }
	for _, tt := range []struct {
		add  []string
		want string // in the error
	}{
		{[]string{"NET_ADMIN", "SYS_TIME"}, "SYS_TIME"},
		{[]string{"NET_ADMIN"}, ""},
		{[]string{"MKNOD"}, ""}, // a default one, which may be missing
		{[]string{"ALL"}, ""},
	} {
		set, err := Capabilities(tt.add, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = (&Process{Caps: &set}).checkCaps(has)
		if (err == nil) != (tt.want == "") ||
			err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got the error %v, want one with %q", tt.add, err, tt.want)
		}
	}
}

// TestSeccompWithCapabilities checks which calls further capabilities allow.
func TestSeccompWithCapabilities(t *testing.T) {
	for _, tt := range []struct {
		cap           string
		allowed, kept []uint32
	}{
		{"SYS_ADMIN", []uint32{unix.SYS_MOUNT, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_FSOPEN,
			unix.SYS_BPF, callClone3, unix.SYS_CLONE},
			[]uint32{unix.SYS_INIT_MODULE, unix.SYS_KEYCTL, unix.SYS_PIVOT_ROOT}},
		{"SYS_MODULE", []uint32{unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE},
			[]uint32{unix.SYS_MOUNT, unix.SYS_KEXEC_LOAD}},
		{"SYS_TIME", []uint32{unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME},
			[]uint32{unix.SYS_SYSLOG}},
		{"NET_ADMIN", []uint32{unix.SYS_SOCKET}, []uint32{unix.SYS_MOUNT, unix.SYS_BPF}},
		{"ALL", []uint32{unix.SYS_MOUNT, unix.SYS_REBOOT, unix.SYS_PERF_EVENT_OPEN},
			[]uint32{unix.SYS_KEXEC_LOAD, unix.SYS_IO_URING_SETUP, unix.SYS_KEYCTL}},
	} {
		set, err := Capabilities([]string{tt.cap}, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := seccompFilter(native, compat, uint64(set))
		for _, nr := range tt.allowed {
			if got, _ := simulate(t, p, native.arch, nr, unix.CLONE_NEWNS); got != retAllow {
				t.Errorf("%s: call %d is not allowed", tt.cap, nr)
			}
		}
		for _, nr := range tt.kept {
			if got, _ := simulate(t, p, native.arch, nr, 0); got != retPerm {
				t.Errorf("%s: call %d is allowed", tt.cap, nr)
			}
		}
	}
}

//go:embed seccomp_calls.go
var callTables string

// TestCapabilitiesOfCalls checks that a call has the same capabilities in the tables of all
// architectures. The names of the calls are in comments.
func TestCapabilitiesOfCalls(t *testing.T) {
	line := regexp.MustCompile(`(?m)^\t+\{\d+, (.*)\},\s+// (\w+)$`)
	caps, found := map[string]string{}, line.FindAllStringSubmatch(callTables, -1)
	for _, m := range found {
		if have, ok := caps[m[2]]; ok && have != m[1] {
			t.Errorf("%s has %s and %s", m[2], have, m[1])
		}
		caps[m[2]] = m[1]
	}
	all := len(deniedNew)
	for _, pair := range abis {
		all += len(pair[0].calls.denied) + len(pair[1].calls.denied)
	}
	if len(found) != all {
		t.Errorf("%d lines have a name, and the tables have %d calls", len(found), all)
	}
}

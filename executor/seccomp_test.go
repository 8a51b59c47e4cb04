package executor

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// simulate interprets a filter as the kernel does, and counts the instructions.
func simulate(t *testing.T, p program, arch, nr uint32, arg0 uint64) (result uint32, steps int) {
	t.Helper()
	var data [64]byte
	binary.LittleEndian.PutUint32(data[offNr:], nr)
	binary.LittleEndian.PutUint32(data[offArch:], arch)
	binary.LittleEndian.PutUint64(data[offArg0:], arg0)
	var a uint32
	for pc := 0; ; pc++ {
		if pc >= len(p) {
			t.Fatalf("the filter runs over its end for call %d", nr)
		}
		i := p[pc]
		steps++
		cond := false
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = binary.LittleEndian.Uint32(data[i.K:])
			continue
		case unix.BPF_RET | unix.BPF_K:
			return i.K, steps
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			cond = a == i.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			cond = a >= i.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			cond = a&i.K != 0
		default:
			t.Fatalf("unexpected instruction %+v", i)
		}
		if cond {
			pc += int(i.Jt)
		} else {
			pc += int(i.Jf)
		}
	}
}

var abis = map[string][2]abi{
	"amd64": {{arch: 0xc000003e, calls: &callsAMD64, x32: true},
		{arch: 0x40000003, calls: &calls386}},
	"arm64": {{arch: 0xc00000b7, calls: &callsARM64}, {arch: 0x40000028, calls: &callsARM}},
}

// The filter returns the verdict of the tables for every number.
func TestSeccompFilter(t *testing.T) {
	for name, pair := range abis {
		p := seccompFilter(pair[0], pair[1], defaultCaps)
		if len(p) > 4096 {
			t.Errorf("%s: %d instructions", name, len(p))
		}
		most := 0
		for _, a := range pair {
			denied := map[uint32]bool{}
			for _, d := range slices.Concat(a.calls.denied, deniedNew) {
				if denied[d.nr] {
					t.Errorf("%s: %d is listed twice", name, d.nr)
				}
				denied[d.nr] = true
			}
			for nr := range uint32(600) {
				want := uint32(retAllow)
				if denied[nr] {
					want = retPerm
				}
				switch nr {
				case callClone3:
					want = retNoSys
				case a.calls.clone, a.calls.personality, a.calls.socket:
					continue
				}
				got, steps := simulate(t, p, a.arch, nr, 0)
				if got != want {
					t.Errorf("%s: call %d: got %x, want %x", name, nr, got, want)
				}
				most = max(most, steps)
			}
			args := []struct {
				nr   uint32
				arg  uint64
				want uint32
			}{
				{a.calls.clone, unix.CLONE_VM | unix.CLONE_THREAD, retAllow},
				{a.calls.clone, uint64(unix.SIGCHLD), retAllow},
				{a.calls.clone, unix.CLONE_NEWUSER, retPerm},
				{a.calls.clone, unix.CLONE_NEWNS, retPerm},
				{a.calls.clone, unix.CLONE_NEWNET | unix.CLONE_VM, retPerm},
				{a.calls.clone, unix.CLONE_NEWCGROUP, retPerm},
				{a.calls.personality, 0, retAllow}, {a.calls.personality, 8, retAllow},
				{a.calls.personality, 0xffffffff, retAllow},
				{a.calls.personality, 0x0040000, retPerm},
				{a.calls.socket, unix.AF_INET, retAllow}, {a.calls.socket, unix.AF_UNIX, retAllow},
				{a.calls.socket, unix.AF_VSOCK, retPerm},
			}
			for _, tt := range args {
				if got, _ := simulate(t, p, a.arch, tt.nr, tt.arg); got != tt.want {
					t.Errorf("%s: call %d with %#x: got %x, want %x", name, tt.nr,
						tt.arg, got, tt.want)
				}
			}
		}
		if most > 20 {
			t.Errorf("%s: a call takes %d instructions", name, most)
		}
		if got, _ := simulate(t, p, 0x12345678, 0, 0); got != retNoSys {
			t.Errorf("%s: another architecture: got %x", name, got)
		}
		if got, _ := simulate(t, p, pair[0].arch, 0x40000000|1, 0); name == "amd64" &&
			got != retNoSys {
			t.Errorf("x32: got %x", got)
		}
	}
}

// The tables agree with those of this architecture's kernel headers.
func TestSeccompNumbers(t *testing.T) {
	for _, nr := range []uint32{unix.SYS_BPF, unix.SYS_KEYCTL, unix.SYS_MOUNT, unix.SYS_SETNS,
		unix.SYS_UNSHARE, unix.SYS_PERF_EVENT_OPEN, unix.SYS_OPEN_BY_HANDLE_AT,
		unix.SYS_IO_URING_SETUP, unix.SYS_USERFAULTFD, unix.SYS_KEXEC_LOAD, unix.SYS_FINIT_MODULE,
		unix.SYS_FSOPEN, unix.SYS_PIVOT_ROOT} {
		if got, _ := simulate(t, seccompFilter(native, compat, defaultCaps), native.arch,
			nr, 0); got != retPerm {
			t.Errorf("call %d is allowed", nr)
		}
	}
	for _, nr := range []uint32{unix.SYS_READ, unix.SYS_EXECVE, unix.SYS_PTRACE, unix.SYS_SETUID,
		unix.SYS_CHROOT, unix.SYS_MKNODAT, unix.SYS_MEMFD_CREATE, unix.SYS_CLOSE_RANGE,
		unix.SYS_OPENAT2, unix.SYS_SECCOMP, unix.SYS_NAME_TO_HANDLE_AT} {
		if got, _ := simulate(t, seccompFilter(native, compat, defaultCaps), native.arch, nr,
			0); got != retAllow {
			t.Errorf("call %d is not allowed", nr)
		}
	}
	if native.calls.clone != unix.SYS_CLONE || callClone3 != unix.SYS_CLONE3 ||
		native.calls.personality != unix.SYS_PERSONALITY || native.calls.socket != unix.SYS_SOCKET {
		t.Errorf("got %+v", native.calls)
	}
}

// The kernel accepts the filter, and it is in effect in a step.
func TestSeccompInStep(t *testing.T) {
	im := newBusybox(t)
	got := im.mustRun(shell("unshare -m true 2>&1; grep Seccomp: /proc/self/status"))
	if !strings.Contains(got, "Operation not permitted") || !strings.Contains(got, "2") {
		t.Errorf("got %s", got)
	}
}

func BenchmarkSeccompFilter(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		seccompFilter(native, compat, defaultCaps)
	}
}

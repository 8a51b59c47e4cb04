package executor

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Sets of one capability (capabilities(7)) that allow system calls which Docker's profile denies.
const (
	capDacReadSearch uint64 = 1 << unix.CAP_DAC_READ_SEARCH
	capSysModule     uint64 = 1 << unix.CAP_SYS_MODULE
	capSysRawio      uint64 = 1 << unix.CAP_SYS_RAWIO
	capSysPtrace     uint64 = 1 << unix.CAP_SYS_PTRACE
	capSysPacct      uint64 = 1 << unix.CAP_SYS_PACCT
	capSysAdmin      uint64 = 1 << unix.CAP_SYS_ADMIN
	capSysBoot       uint64 = 1 << unix.CAP_SYS_BOOT
	capSysNice       uint64 = 1 << unix.CAP_SYS_NICE
	capSysTime       uint64 = 1 << unix.CAP_SYS_TIME
	capSysTTYConfig  uint64 = 1 << unix.CAP_SYS_TTY_CONFIG
	capSyslog        uint64 = 1 << unix.CAP_SYSLOG
	capPerfmon       uint64 = 1 << unix.CAP_PERFMON
	capBPF           uint64 = 1 << unix.CAP_BPF
)

// defaultCaps are the capabilities that Docker gives to a container: 00000000a80425fb.
const defaultCaps uint64 = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE |
	1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID |
	1<<unix.CAP_KILL | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETPCAP |
	1<<unix.CAP_NET_BIND_SERVICE |
	1<<unix.CAP_NET_RAW | 1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_MKNOD |
	1<<unix.CAP_AUDIT_WRITE | 1<<unix.CAP_SETFCAP

// AllCapabilities is the set of all capabilities.
const AllCapabilities = ^uint64(0)

// capabilityNames are the names of capabilities, by their numbers, without CAP_.
var capabilityNames = [...]string{"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID",
	"KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST",
	"NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
	"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
	"SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE",
	"MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE"}

// CapabilitySet is the set of a command's capabilities, as the bits of capabilities(7).
type CapabilitySet uint64

// Capabilities returns Docker's default set of capabilities with those of add and without those of
// drop. As in Docker, ALL is a name too, and a capability that is both added and dropped is in the
// set, unless ALL is added.
func Capabilities(add, drop []string) (CapabilitySet, error) {
	added, err := capabilities(add)
	if err != nil {
		return 0, err
	}
	dropped, err := capabilities(drop)
	if err != nil {
		return 0, err
	}
	if added == AllCapabilities && dropped != AllCapabilities {
		return CapabilitySet(added &^ dropped), nil
	}
	return CapabilitySet(defaultCaps&^dropped | added), nil
}

// capabilities returns the set of the capabilities with some names.
func capabilities(names []string) (set uint64, err error) {
	for _, name := range names {
		upper := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		n := slices.Index(capabilityNames[:], upper)
		switch {
		case upper == "ALL":
			set = AllCapabilities
		case n < 0:
			return 0, fmt.Errorf("there is no capability %q", name)
		default:
			set |= 1 << n
		}
	}
	return set, nil
}

// caps returns the capabilities of the command.
func (p *Process) caps() uint64 {
	switch {
	case p.Insecure:
		return AllCapabilities
	case p.Caps != nil:
		return uint64(*p.Caps)
	}
	return defaultCaps
}

// addsCaps reports whether the command has more than the default capabilities.
func (p *Process) addsCaps() bool { return p.caps()&^defaultCaps != 0 }

// traces reports whether the command is limited, but can trace processes with more rights
// (ptrace(2)).
func (p *Process) traces() bool { return !p.Insecure && p.caps()&capSysPtrace != 0 }

// checkCaps returns an error if the command was given a capability by name that this process does
// not have, and so cannot pass on. Of ALL, a command gets those that this process has. has reports
// whether this process has a capability.
func (p *Process) checkCaps(has func(n int) bool) error {
	if p.Caps == nil || uint64(*p.Caps)>>(len(capabilityNames)) != 0 {
		return nil
	}
	for n, name := range capabilityNames {
		if uint64(*p.Caps)&^defaultCaps&(1<<n) != 0 && !has(n) {
			return fmt.Errorf("a command cannot get the capability %s, which layerbuild does not "+
				"have here", name)
		}
	}
	return nil
}

// hasCap reports whether a capability is in the bounding set of this thread.
func hasCap(n int) bool {
	has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
	return err == nil && has == 1
}

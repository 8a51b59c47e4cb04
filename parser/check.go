package parser

import (
	"fmt"
	"strconv"
	"strings"
)

// symbolicMode matches the symbolic modes of chmod(1): u=rwX,go-w and so on.
var symbolicMode = pattern(`^[ugoa]*([-+=]([rwxXst]*|[ugo]))+(,[ugoa]*([-+=]([rwxXst]*|[ugo]))+)*$`)

// checkChmod returns an error for a --chmod that is neither octal up to 07777 nor symbolic.
func checkChmod(s string) error {
	n, err := strconv.ParseUint(s, 8, 32)
	if err == nil && n <= 0o7777 {
		return nil
	}
	if err != nil && symbolicMode().MatchString(s) {
		return nil
	}
	return fmt.Errorf(
		"invalid chmod parameter: '%v'. it should be octal string and between 0 and 07777", s)
}

// ownerByName reports whether a --chown names a user or a group whose number is known only from
// the image's own files; root is 0 in all images.
func ownerByName(chown string) bool {
	for _, part := range strings.SplitN(chown, ":", 2) {
		if part == "" || part == "root" {
			continue
		}
		if _, err := strconv.ParseInt(part, 10, 32); err != nil {
			return true
		}
	}
	return false
}

// signalNames are the names that STOPSIGNAL accepts, with or without SIG in front.
const signalNames = " ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR " +
	"QUIT SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ " +
	"RTMIN RTMAX "

var realtimeSignal = pattern(`^RTMIN\+([1-9]|1[0-5])$|^RTMAX-([1-9]|1[0-4])$`)

// checkSignal returns an error for a name that is not a signal on Linux.
func checkSignal(s string) error {
	if n, err := strconv.Atoi(s); err == nil {
		if n == 0 {
			return fmt.Errorf("invalid signal: %s", s)
		}
		return nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	known := name != "" && !strings.Contains(name, " ") &&
		strings.Contains(signalNames, " "+name+" ")
	if !known && !realtimeSignal().MatchString(name) {
		return fmt.Errorf("invalid signal: %s", s)
	}
	return nil
}

package executor

import (
	"errors"
	"runtime"
	"strings"
	"testing"
)

// elfHead returns the beginning of a program for a machine (e_machine of elf(5)).
func elfHead(machine uint16, big bool) string {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[18], b[19] = 2, byte(machine), byte(machine>>8)
	if big {
		b[5], b[18], b[19] = 2, byte(machine>>8), byte(machine)
	}
	return string(b)
}

func TestForeign(t *testing.T) {
	im := newImage(t)
	for _, tt := range []struct{ name, data, want string }{
		{"arm", elfHead(40, false), "arm"},
		{"arm64", elfHead(183, false), "arm64"},
		{"amd64", elfHead(62, false), "amd64"},
		{"s390x", elfHead(22, true), "s390x"},
		{"unknown", elfHead(9999, false), ""},
		{"short", "\x7fELF", ""},
		{"script", "#!/bin/sh\n# a script that is long enough\n", ""},
	} {
		im.write(tt.name, tt.data, 0o755)
		want := tt.want
		if want == runtime.GOARCH || want == "arm" && runtime.GOARCH == "arm64" {
			want = ""
		}
		if got := foreign(im.path(tt.name)); got != want {
			t.Errorf("%s: foreign = %q, want %q", tt.name, got, want)
		}
	}
	if got := foreign(im.path("none")); got != "" {
		t.Errorf("no file: foreign = %q", got)
	}
}

func TestProgramForAnotherMachine(t *testing.T) {
	im := newBusybox(t)
	im.write("other", elfHead(8, true), 0o755) // mips: an emulator is unlikely to be registered
	_, err := im.run(&Process{Args: []string{"/other"}})
	got, ok := errors.AsType[*ExitError](err)
	if !ok || got.Code != 126 || !strings.Contains(got.Reason, "it is a program for mips") ||
		!strings.Contains(got.Reason, "binfmt_misc") {
		t.Errorf("got %v", err)
	}
}

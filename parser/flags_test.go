package parser

import "testing"

func TestRepairFlag(t *testing.T) {
	for flag, want := range map[string]string{
		"--exclude=a": "--exclude=a", "--exclude=Ã©": "--exclude=é",
		"--exclude=[Ã©-Ã¼]": "--exclude=[é-ü]",
		"--exclude=\u00ff":  "--exclude=\u00ff", "--exclude=€": "--exclude=€",
	} {
		if got := repairFlag(flag); got != want {
			t.Errorf("repairFlag(%q) = %q, want %q", flag, got, want)
		}
	}
}

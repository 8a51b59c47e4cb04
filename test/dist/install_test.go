package dist

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestInstall installs below DESTDIR and PREFIX, with a umask that would keep other users out.
func TestInstall(t *testing.T) {
	program := builtProgram(t)
	dest := t.TempDir()
	cmd := exec.Command("sh", "-c", "umask 077 && scripts/install")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "LAYERBUILD="+program, "DESTDIR="+dest, "PREFIX=/opt/lb")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got []string
	err := filepath.WalkDir(dest, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dest {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, dest)
		if want := fs.FileMode(0o755); d.IsDir() && info.Mode().Perm() != want {
			return fmt.Errorf("%s has mode %o, want %o", name, info.Mode().Perm(), want)
		}
		if !d.IsDir() {
			got = append(got, fmt.Sprintf("%o %s", info.Mode().Perm(), name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"755 /opt/lb/bin/layerbuild",
		"644 /opt/lb/share/man/man1/layerbuild.1",
		"644 /opt/lb/share/man/man1/layerbuild-build.1",
		"644 /opt/lb/share/man/man5/layerbuild.5",
		"644 /opt/lb/share/bash-completion/completions/layerbuild",
		"644 /opt/lb/share/zsh/site-functions/_layerbuild",
		"644 /opt/lb/share/fish/vendor_completions.d/layerbuild.fish",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing in %q", want, got)
		}
	}
	out, err := exec.Command(filepath.Join(dest, "opt/lb/bin/layerbuild"), "--version").Output()
	if err != nil || !strings.HasPrefix(string(out), "layerbuild ") {
		t.Errorf("the installed program prints %q, %v", out, err)
	}
}

func TestInstallNeedsAnAbsolutePrefix(t *testing.T) {
	cmd := exec.Command("scripts/install")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "PREFIX=usr", "DESTDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "PREFIX=usr: an absolute path is expected") {
		t.Errorf("err %v: %s", err, out)
	}
}

// builtProgram returns the program that LAYERBUILD names, or bin/layerbuild.
func builtProgram(t *testing.T) string {
	t.Helper()
	name := os.Getenv("LAYERBUILD")
	if name == "" {
		name = filepath.Join(root, "bin", "layerbuild")
	}
	path, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("run make first, or set LAYERBUILD")
	}
	return path
}

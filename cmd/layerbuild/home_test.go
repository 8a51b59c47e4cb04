package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWithoutHome runs the program without HOME, as cron does, for a user whose home in the user
// database has credentials. The database is a file that a mount namespace puts in the place of
// /etc/passwd.
func TestWithoutHome(t *testing.T) {
	namespace := []string{"unshare", "--mount"}
	if os.Getuid() != 0 {
		namespace = append(namespace, "--user", "--map-root-user")
	}
	dir := t.TempDir()
	users := filepath.Join(dir, "passwd")
	home := filepath.Join(dir, "home")
	// The program runs as root, or as root of a user namespace.
	if err := os.WriteFile(users, []byte("me:x:0:0::"+home+":/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(home, ".docker"), 0o755); err != nil {
		t.Fatal(err)
	}
	const config = `{"auths":{"registry.example":{"auth":"Ym9iOnBhc3N3b3Jk"}}}` // bob:password
	if err := os.WriteFile(filepath.Join(home, ".docker", "config.json"), []byte(config),
		0o600); err != nil {
		t.Fatal(err)
	}
	inside := func(script string, args ...string) (string, error) {
		cmd := exec.Command(namespace[0], append(append(namespace[1:len(namespace):len(namespace)],
			"sh", "-c", script, "sh"), args...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	const mount = `mount --bind "$1" /etc/passwd && `
	if out, err := inside(mount+"true", users); err != nil {
		t.Skipf("no mount namespaces: %v: %s", err, out)
	}
	if out, err := inside(mount+`"$2" login --get-login registry.example`, users,
		binary); err != nil || out != "bob" {
		t.Errorf("login --get-login without HOME: %q, %v, want bob", out, err)
	}
}

package lab

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// address returns a free port of the loopback address. It is below those that the kernel gives to
// connections and to servers of other tests, which could get it before the server listens on it.
func address(t testing.TB) string {
	t.Helper()
	for range 100 {
		host := fmt.Sprint("127.0.0.1:", 10_000+rand.IntN(20_000))
		if ln, err := net.Listen("tcp", host); err == nil {
			ln.Close()
			return host
		}
	}
	t.Fatal("no port is free")
	return ""
}

// serve starts a server that ends with the test, and waits until it answers at a URL.
func serve(t testing.TB, url, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", program, log.String())
		}
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get(url)
		if err == nil {
			res.Body.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not answer: %v", program, err)
		}
	}
}

// Nginx starts Debian's nginx with the configuration of docs/CACHE.md, and returns the address of a
// cache in it. The test is skipped if nginx is not installed. The directory has the files.
func Nginx(t testing.TB) (cache, dir string) {
	t.Helper()
	Need(t, "nginx")
	host := address(t)
	dir = t.TempDir()
	manual, err := os.ReadFile(filepath.Join(Top(), "docs/CACHE.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, location, _ := strings.Cut(string(manual), "    location /team/ {\n")
	location, _, ok := strings.Cut(location, "    }\n")
	if !ok {
		t.Fatal("docs/CACHE.md has no configuration of nginx")
	}
	location = strings.ReplaceAll(location, "/var/cache/layerbuild", dir)
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf("daemon off; master_process off; pid %[1]s/pid; error_log stderr;\n"+
		"events {}\nhttp {\naccess_log off;\nclient_body_temp_path %[1]s/body;\n"+
		"proxy_temp_path %[1]s/t; fastcgi_temp_path %[1]s/t; uwsgi_temp_path %[1]s/t; "+
		"scgi_temp_path %[1]s/t;\nserver {\nlisten %[2]s;\nlocation /team/ {\n%[3]s}\n}\n}\n",
		dir, host, location)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	serve(t, "http://"+host+"/", "nginx", "-c", config, "-p", dir)
	return "http://" + host + "/team", filepath.Join(dir, "team")
}

// BazelRemote starts bazel-remote, and returns the address of a cache in it. The test is skipped if
// the program is not installed: scripts/cache-servers makes it.
func BazelRemote(t testing.TB) string {
	t.Helper()
	Need(t, "bazel-remote")
	host := address(t)
	serve(t, "http://"+host+"/status", "bazel-remote", "--dir", t.TempDir(), "--max_size", "1",
		"--http_address", host, "--grpc_address", "none")
	return "http://" + host
}

// The keys of the server that S3 starts.
const (
	s3ID     = "layerbuild"
	s3Secret = "secret-of-layerbuild"
)

// S3 starts versitygw, and returns the address of a cache in it, with the variables that a client
// needs, and the directory of its buckets. The test is skipped if the program is not installed:
// scripts/cache-servers makes it.
func S3(t testing.TB) (cache string, env []string, dir string) {
	t.Helper()
	Need(t, "versitygw")
	host := address(t)
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bucket"), 0o755); err != nil {
		t.Fatal(err)
	}
	serve(t, "http://"+host+"/", "versitygw", "--quiet", "--port", host, "--access", s3ID,
		"--secret", s3Secret, "posix", dir)
	env = []string{"AWS_ACCESS_KEY_ID=" + s3ID, "AWS_SECRET_ACCESS_KEY=" + s3Secret}
	return "s3://bucket/team?endpoint=http://" + host, env, dir
}

package source

import (
	"bufio"
	"crypto/rand"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// gitServer serves the repositories in root by the git protocol. send copies the output of git
// upload-pack to a connection.
func gitServer(t *testing.T, root string, send func(conn io.Writer, out io.Reader)) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serveGit(conn, root, send)
		}
	}()
	return "git://" + listener.Addr().String()
}

func serveGit(conn net.Conn, root string, send func(conn io.Writer, out io.Reader)) {
	defer conn.Close()
	// The request is "git-upload-pack PATH\0host=HOST\0", and more with protocol version 2, which
	// this server does not know.
	in := bufio.NewReader(conn)
	request, _ := readPacket(in)
	path, _, _ := strings.Cut(strings.TrimPrefix(request, "git-upload-pack "), "\x00")
	cmd := exec.Command("git", "-c", "safe.directory=*", "upload-pack", filepath.Join(root, path))
	cmd.Stdin = in
	out, err := cmd.StdoutPipe()
	if err != nil || cmd.Start() != nil {
		return
	}
	send(conn, out)
	conn.Close()
	out.Close()
	cmd.Wait()
}

// readPacket reads a packet of the git protocol; a flush is "".
func readPacket(r io.Reader) (string, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil {
		return "", err
	}
	size, err := strconv.ParseUint(string(head), 16, 16)
	if err != nil || size < 4 {
		return "", err
	}
	body := make([]byte, size-4)
	_, err = io.ReadFull(r, body)
	return string(body), err
}

// TestGitSilence checks that git is ended when its server is silent, and only then.
func TestGitSilence(t *testing.T) {
	needGit(t)
	const limit = 1500 * time.Millisecond
	repo := newRemoteRepo(t, true)
	// A file that does not compress takes several limits at the speed of the slow server.
	content := make([]byte, 20_000)
	rand.Read(content)
	if err := os.WriteFile(filepath.Join(repo.dir, "random"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	commit := repo.commit(repo.dir, "")

	done := make(chan struct{})
	defer close(done)
	silent := func(io.Writer, io.Reader) { <-done }
	quiet := gitServer(t, repo.root, silent)
	advertisement := gitServer(t, repo.root, func(conn io.Writer, out io.Reader) {
		for {
			packet, err := readPacket(io.TeeReader(out, conn))
			if err != nil || packet == "" {
				break
			}
		}
		<-done
	})
	slow := gitServer(t, repo.root, func(conn io.Writer, out io.Reader) {
		for piece := make([]byte, 400); ; time.Sleep(100 * time.Millisecond) {
			n, err := out.Read(piece)
			if _, writeErr := conn.Write(piece[:n]); err != nil || writeErr != nil {
				return
			}
		}
	})

	// The repository over.git has a submodule on the silent server.
	over := filepath.Join(repo.root, "over.git")
	repo.make(over)
	if err := os.WriteFile(filepath.Join(over, ".gitmodules"), []byte("[submodule \"s\"]\n"+
		"\tpath = s\n\turl = "+quiet+"/r.git\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	repo.run(over, "update-index", "--add", "--cacheinfo", "160000,"+commit+",s")
	repo.run(over, "add", ".gitmodules")
	repo.run(over, "commit", "-q", "-m", "submodule")

	// This ssh keeps reading, as one whose server keeps the connection alive.
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "ssh"),
		[]byte("#!/bin/sh\ncat /dev/zero >/dev/null\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))

	for _, tt := range []struct{ name, address, err string }{
		{"silent server", quiet + "/r.git", "has sent nothing"},
		{"silent after the advertisement", advertisement + "/r.git", "has sent nothing"},
		{"silent after the connection", advertisement + "/r.git#" + commit, "has sent nothing"},
		{"slow server", slow + "/r.git", ""},
		{"silent submodule", strings.TrimSuffix(repo.URL, "r.git") + "over.git",
			"has sent nothing"},
		{"silent SSH server", "ssh://git@127.0.0.1:1/r.git", "has sent nothing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			err := fetchOnly(t, tt.address, GitOptions{TempDir: below(t.TempDir()), Silence: limit})
			took := time.Since(start)
			switch {
			case tt.err == "" && err != nil, tt.err != "" && err == nil,
				tt.err != "" && !strings.Contains(err.Error(), tt.err):
				t.Errorf("error %v after %v; want %q", err, took, tt.err)
			case tt.err == "" && took < 2*limit:
				t.Errorf("the slow server took %v, too short for a limit of %v", took, limit)
			}
			t.Logf("%v after %v", err, took)
		})
	}
}

// TestLife checks which changes are signs of life.
func TestLife(t *testing.T) {
	old := life{programs: "1 2 ", bytes: 100, ticks: 7}
	for _, tt := range []struct {
		name string
		now  life
		want bool
	}{
		{"the same", old, false},
		{"bytes", life{programs: "1 2 ", bytes: 101, ticks: 7}, true},
		{"another program", life{programs: "1 3 ", bytes: 100, ticks: 7}, true},
		{"woken up and waiting again", life{programs: "1 2 ", bytes: 100, ticks: 17}, false},
		{"calculating", life{programs: "1 2 ", bytes: 100, ticks: 7 + 101}, true},
		{"nothing known", life{unlimited: true}, true},
	} {
		if got := tt.now.newer(old, 100*time.Second); got != tt.want {
			t.Errorf("%s: newer = %v, want %v", tt.name, got, tt.want)
		}
	}
}

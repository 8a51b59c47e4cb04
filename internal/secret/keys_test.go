package secret

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// keyFiles writes a private key of each kind, and returns the names of the files.
func keyFiles(t *testing.T) []string {
	t.Helper()
	_, ed, err1 := ed25519.GenerateKey(rand.Reader)
	ec, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rs, err3 := rsa.GenerateKey(rand.Reader, 2048)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var files []string
	for name, key := range map[string]any{"ed25519": ed, "ecdsa": ec, "rsa": rs} {
		block, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(dir, name))
		if err := os.WriteFile(files[len(files)-1], pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// An agent with key files signs with each key, and refuses to change them. Agents with sockets of
// their own stay as they are.
func TestServeKeys(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	files := keyFiles(t)
	keys, err := ReadKeys(files)
	if err != nil {
		t.Fatal(err)
	}
	agents, stop, err := ServeKeys([]Agent{{ID: "a", Socket: "/a"}, {ID: "default", Keys: keys}})
	if err != nil {
		t.Fatal(err)
	}
	if agents[0].Socket != "/a" || agents[1].Socket == "" {
		t.Errorf("the sockets are %q and %q", agents[0].Socket, agents[1].Socket)
	}
	conn, err := net.Dial("unix", agents[1].Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := agent.NewClient(conn)
	list, err := client.List()
	if err != nil || len(list) != len(files) {
		t.Fatalf("%d keys, %v, want %d", len(list), err, len(files))
	}
	for _, key := range list {
		sig, err := client.Sign(key, []byte("data"))
		if err != nil {
			t.Fatalf("%s: %v", key.Type(), err)
		}
		if err := key.Verify([]byte("data"), sig); err != nil {
			t.Errorf("%s: %v", key.Type(), err)
		}
	}
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]error{
		"add": client.Add(agent.AddedKey{PrivateKey: other}), "remove": client.Remove(list[0]),
		"remove all": client.RemoveAll(), "lock": client.Lock([]byte("x")),
	} {
		if change == nil {
			t.Errorf("a client may %s keys", name)
		}
	}
	if list, err := client.List(); err != nil || len(list) != len(files) {
		t.Errorf("%d keys, %v, want %d", len(list), err, len(files))
	}
	if program, err := exec.LookPath("ssh-add"); err == nil {
		cmd := exec.Command(program, "-l")
		cmd.Env = []string{"SSH_AUTH_SOCK=" + agents[1].Socket}
		if out, err := cmd.CombinedOutput(); err != nil ||
			strings.Count(string(out), "SHA256:") != len(files) {
			t.Errorf("ssh-add -l: %v, %s", err, out)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := client.List(); err == nil {
		t.Error("a connection is open after the end")
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("%v, %v are left", left, err)
	}
}

func TestReadKeysErrors(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{"locked": pem.EncodeToMemory(block),
		"text": []byte("text"), "big": make([]byte, maxKey+1)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"locked": "the key has a passphrase",
		"text": "neither the socket of an agent nor a private key", "big": "nor a private key"} {
		_, err := ReadKeys([]string{filepath.Join(dir, name)})
		if err == nil || !strings.Contains(err.Error(), name+": ") ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if _, err := ReadKeys([]string{filepath.Join(dir, "none")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// TestSocketDir checks that sockets have names that are short enough, wherever temporary files are.
func TestSocketDir(t *testing.T) {
	for _, name := range []string{"a", strings.Repeat("a", 100)} {
		temp := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(temp, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", temp)
		dir, err := socketDir()
		if err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(temp)
		if len(dir) > maxSocketDir || err != nil || len(left) > 1 || len(left) > 0 &&
			filepath.Dir(dir) != temp {
			t.Errorf("in %s: %s, and %v is left, %v", temp, dir, left, err)
		}
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	}
}

package source

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// sshServer serves git repositories by SSH to clients with any key, and to no client without one.
type sshServer struct {
	t    *testing.T
	addr string

	mu      sync.Mutex
	offered []string // the fingerprints of the keys that clients offered
}

func newSSHServer(t *testing.T) *sshServer {
	s := &sshServer{t: t}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.offered = append(s.offered, ssh.FingerprintSHA256(key))
			return nil, nil
		},
	}
	config.AddHostKey(signer)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	s.addr = listener.Addr().String()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.serve(conn, config)
		}
	}()
	return s
}

func (s *sshServer) serve(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		go func() {
			defer channel.Close()
			for r := range requests {
				if r.Type != "exec" {
					r.Reply(r.Type == "env", nil)
					continue
				}
				r.Reply(true, nil)
				var command struct{ Text string }
				ssh.Unmarshal(r.Payload, &command)
				cmd := exec.Command("/bin/sh", "-c", command.Text)
				cmd.Env = append(os.Environ(), "GIT_CONFIG_COUNT=1",
					"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
				cmd.Stdin, cmd.Stdout, cmd.Stderr = channel, channel, channel.Stderr()
				status := byte(0)
				if cmd.Run() != nil {
					status = 1
				}
				channel.SendRequest("exit-status", false, []byte{0, 0, 0, status})
				return
			}
		}()
	}
}

// keys returns the fingerprints that were offered since the last call, each once.
func (s *sshServer) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.offered)
	keys := slices.Compact(s.offered)
	s.offered = nil
	return keys
}

// newAgent serves an agent with one key, and returns its socket and the key's fingerprint.
func newAgent(t *testing.T) (socket, fingerprint string) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keyring := agent.NewKeyring()
	if err := keyring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	// The name of a test can make the path of its directory too long for a socket.
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
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
			go func() {
				defer conn.Close()
				agent.ServeAgent(keyring, conn)
			}()
		}
	}()
	return socket, ssh.FingerprintSHA256(signer.PublicKey())
}

// needSSH puts a program ssh into PATH that does not change the user's list of known servers.
func needSSH(t *testing.T) {
	t.Helper()
	program, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("ssh is not installed")
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nexec %s -o UserKnownHostsFile=/dev/null \"$@\"\n", program)
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// TestSSHKeys checks which keys a server of a repository, and that of its submodule, gets to see.
func TestSSHKeys(t *testing.T) {
	needSSH(t)
	repo := newRemoteRepo(t, true)
	repo.commit(repo.dir, "file f 0644 one\n")
	server, other := newSSHServer(t), newSSHServer(t)
	private := filepath.Join(repo.root, "private.git")
	repo.make(private)
	commit := repo.commit(private, "file secret 0644 s\n")
	// The repository over is reached by HTTP and by SSH, and its submodule by SSH only.
	over := filepath.Join(repo.root, "over.git")
	repo.make(over)
	module := fmt.Sprintf("[submodule \"m\"]\n\tpath = m\n\turl = ssh://git@%s%s\n",
		other.addr, private)
	if err := os.WriteFile(filepath.Join(over, ".gitmodules"), []byte(module), 0o644); err != nil {
		t.Fatal(err)
	}
	repo.run(over, "add", ".gitmodules")
	repo.run(over, "update-index", "--add", "--cacheinfo", "160000,"+commit+",m")
	repo.run(over, "commit", "-q", "-m", "x")

	userAgent, userKey := newAgent(t)
	t.Setenv("SSH_AUTH_SOCK", userAgent)
	given, givenKey := newAgent(t)
	bySSH, byHTTP := "ssh://git@"+server.addr, strings.TrimSuffix(repo.URL, "/r.git")
	for _, tt := range []struct {
		name, address, path string
		keys                SSHKeys
		// The keys that the server of the repository and that of the submodule get to see. Those of
		// files in the user's home directory, if there are any, are not listed.
		want, submodule []string
		err             string // "": the files are fetched
	}{
		{"Dockerfile", bySSH, "r.git", SSHKeys{}, nil, nil, "only with --ssh default"},
		{"Dockerfile with --ssh", bySSH, "r.git", SSHKeys{Agent: given}, []string{givenKey}, nil, ""},
		{"user", bySSH, "r.git", SSHKeys{User: true}, []string{userKey}, nil, ""},
		{"user with --ssh", bySSH, "r.git", SSHKeys{Agent: given, User: true},
			[]string{givenKey}, nil, ""},
		{"submodule", byHTTP, "over.git", SSHKeys{}, nil, nil, "only with --ssh default"},
		{"submodule of the user's HTTP repository", byHTTP, "over.git", SSHKeys{User: true}, nil, nil,
			"Permission denied"},
		{"submodule with --ssh", byHTTP, "over.git", SSHKeys{Agent: given}, nil,
			[]string{givenKey}, ""},
		{"submodule of the user's SSH repository", bySSH, "over.git", SSHKeys{User: true},
			[]string{userKey}, []string{userKey}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address := tt.address + "/" + tt.path
			if tt.address == bySSH {
				address = tt.address + filepath.Join(repo.root, tt.path)
			}
			err := fetchOnly(t, address, GitOptions{TempDir: below(t.TempDir()), SSH: tt.keys})
			if tt.err == "" && err != nil ||
				tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v; want %q", err, tt.err)
			}
			for _, seen := range []struct {
				server *sshServer
				want   []string
			}{{server, tt.want}, {other, tt.submodule}} {
				got := slices.DeleteFunc(seen.server.keys(), func(key string) bool {
					return tt.keys.User && key != userKey && key != givenKey
				})
				if !slices.Equal(got, seen.want) {
					t.Errorf("a server was offered the keys %q; want %q", got, seen.want)
				}
			}
		})
	}
}

// fetchOnly fetches a repository and removes the files.
func fetchOnly(t *testing.T, address string, o GitOptions) error {
	repo, err := Git(t.Context(), address, o)
	if err != nil {
		return err
	}
	files, err := repo.Fetch(t.Context())
	if err != nil {
		return err
	}
	return files.Close()
}

// TestSSHOptions checks the files that ssh uses.
func TestSSHOptions(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("ssh is not installed")
	}
	t.Setenv("SSH_AUTH_SOCK", "/user.sock")
	const (
		noFile = "identityfile none\n"
		noKeys = "pubkeyauthentication false\n"
		noNote = "userknownhostsfile /dev/null "
	)
	for _, tt := range []struct {
		address   string
		keys      SSHKeys
		want, not []string // lines of ssh -G
		agent     string
	}{
		{"git@h:r.git", SSHKeys{}, []string{noFile, noKeys, noNote}, nil, ""},
		{"git@h:r.git", SSHKeys{Agent: "/a"}, []string{noFile, noNote}, []string{noKeys}, "/a"},
		{"git@h:r.git", SSHKeys{User: true}, nil, []string{noFile, noKeys, noNote}, "/user.sock"},
		{"ssh://h/r.git", SSHKeys{User: true}, nil, []string{noFile, noKeys, noNote}, "/user.sock"},
		{"git@h:r.git", SSHKeys{Agent: "/a", User: true}, nil, []string{noFile, noKeys, noNote}, "/a"},
		{"https://h/r.git", SSHKeys{User: true}, []string{noFile, noKeys, noNote}, nil, ""},
		{"git://h/r.git", SSHKeys{User: true}, []string{noFile, noKeys, noNote}, nil, ""},
		{"https://h/r.git", SSHKeys{Agent: "/a", User: true}, []string{noFile, noNote},
			[]string{noKeys}, "/a"},
	} {
		env := (&git{o: GitOptions{SSH: tt.keys}, remote: tt.address}).environ(t.Context())
		var command, agent string
		for _, kv := range env {
			if v, ok := strings.CutPrefix(kv, "GIT_SSH_COMMAND="); ok {
				command = v
			}
			if v, ok := strings.CutPrefix(kv, "SSH_AUTH_SOCK="); ok {
				agent = v
			}
		}
		if agent != tt.agent {
			t.Errorf("%s, %+v: the agent is %q, want %q", tt.address, tt.keys, agent, tt.agent)
		}
		out, err := exec.Command("/bin/sh", "-c", command+" -G h").CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
		// Without these, ssh waits for a silent server after this program was killed.
		for _, line := range append(tt.want, "connecttimeout 100\n", "serveraliveinterval 20\n",
			"serveralivecountmax 5\n") {
			if !strings.Contains(string(out), line) {
				t.Errorf("%s, %+v: the options lack %q", tt.address, tt.keys, line)
			}
		}
		for _, line := range tt.not {
			if strings.Contains(string(out), line) {
				t.Errorf("%s, %+v: the options have %q", tt.address, tt.keys, line)
			}
		}
	}
}

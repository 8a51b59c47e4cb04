package secret

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Keys are private ssh keys, which ServeKeys makes available as an agent.
type Keys struct{ keyring agent.ExtendedAgent }

// maxKey is more than any key file has.
const maxKey = 100 << 10

// ReadKeys reads the private keys in files, in all formats of OpenSSH. A key with a passphrase is
// an error.
func ReadKeys(files []string) (*Keys, error) {
	keyring := agent.NewKeyring().(agent.ExtendedAgent)
	for _, name := range files {
		key, err := readKey(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := keyring.Add(agent.AddedKey{PrivateKey: key, Comment: name}); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return &Keys{keyring}, nil
}

func readKey(name string) (any, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParseRawPrivateKey(data)
	if _, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
		return nil, errors.New("the key has a passphrase; start an agent, use ssh-add, and give " +
			"--ssh default")
	}
	if err != nil {
		return nil, errors.New("it is neither the socket of an agent nor a private key")
	}
	return key, nil
}

// ServeKeys makes a socket for each agent that has keys, and answers there as an agent until close
// is called. It returns the agents with their sockets.
func ServeKeys(agents []Agent) (_ []Agent, close func() error, err error) {
	nothing := func() error { return nil }
	if !slices.ContainsFunc(agents, func(a Agent) bool { return a.Keys != nil }) {
		return agents, nothing, nil
	}
	dir, err := socketDir()
	if err != nil {
		return nil, nothing, err
	}
	var servers []*keyServer
	close = func() error {
		for _, s := range servers {
			s.close()
		}
		return os.RemoveAll(dir)
	}
	list := slices.Clone(agents)
	for i := range list {
		if list[i].Keys == nil {
			continue
		}
		list[i].Socket = filepath.Join(dir, strconv.Itoa(i))
		l, err := net.Listen("unix", list[i].Socket)
		if err != nil {
			return nil, nothing, errors.Join(err, close())
		}
		s := &keyServer{listener: l, agent: fixed{list[i].Keys.keyring}, conns: map[net.Conn]bool{}}
		s.running.Go(s.accept)
		servers = append(servers, s)
	}
	return list, close, nil
}

// maxSocketDir is the length of the longest directory for sockets. The name of a socket has at most
// 107 bytes (unix(7)).
const maxSocketDir = 100

// socketDir makes a directory for sockets: in that for temporary files or, if its name is too long,
// in /tmp. git and ssh connect to the sockets, so they need a name that is valid in any process.
func socketDir() (string, error) {
	const pattern = "layerbuild-ssh-*"
	dir, err := os.MkdirTemp("", pattern)
	if err != nil || len(dir) <= maxSocketDir {
		return dir, err
	}
	if err := os.Remove(dir); err != nil {
		return "", err
	}
	return os.MkdirTemp("/tmp", pattern)
}

// keyServer answers as an agent.
type keyServer struct {
	listener net.Listener
	agent    agent.Agent
	running  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // nil: closed
}

func (s *keyServer) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.conns == nil {
			c.Close()
		} else {
			s.conns[c] = true
			s.running.Go(func() { s.serve(c) })
		}
		s.mu.Unlock()
	}
}

func (s *keyServer) serve(c net.Conn) {
	_ = agent.ServeAgent(s.agent, c) // the client has closed the connection, or sent nonsense
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	c.Close()
}

// close ends all connections and waits for them.
func (s *keyServer) close() {
	s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.running.Wait()
}

// fixed is an agent whose keys do not change: a command of one step must not remove the keys of
// another, or lock them.
type fixed struct{ agent.ExtendedAgent }

var errFixed = errors.New("the keys of this agent cannot be changed")

func (fixed) Add(agent.AddedKey) error   { return errFixed }
func (fixed) Remove(ssh.PublicKey) error { return errFixed }
func (fixed) RemoveAll() error           { return errFixed }
func (fixed) Lock([]byte) error          { return errFixed }
func (fixed) Unlock([]byte) error        { return errFixed }

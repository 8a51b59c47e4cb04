package secret

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/layerbuild/layerbuild/internal/source"
)

// MaxSize is the largest number of bytes that a secret may have, as in BuildKit.
const MaxSize = 500 << 10

// Secret is a value of --secret: the content of a file or of a variable of the environment.
type Secret struct {
	ID   string
	File string // "": Env names a variable
	Env  string
}

// Agent is an ssh agent of --ssh.
type Agent struct {
	ID     string
	Socket string
}

// Store has the secrets and agents of a build. The zero value has none.
type Store struct {
	Secrets []Secret
	Agents  []Agent
	// Warn is called if a credential cannot be read; nil: no warning is given.
	Warn func(message string)

	mu     sync.Mutex
	values map[int]*value // by the index in Secrets
}

// value is a secret that is read once.
type value struct {
	once sync.Once
	data []byte
	err  error
}

// Read returns the value of a secret, and reports whether there is a secret with that ID. The value
// is read once: a pipe can be read only once, and all commands of a build must get the same value.
func (s *Store) Read(ctx context.Context, id string) (data []byte, ok bool, err error) {
	i := slices.IndexFunc(s.Secrets, func(s Secret) bool { return s.ID == id })
	if i < 0 {
		return nil, false, nil
	}
	s.mu.Lock()
	v := s.values[i]
	if v == nil {
		v = &value{}
		if s.values == nil {
			s.values = map[int]*value{}
		}
		s.values[i] = v
	}
	s.mu.Unlock()
	v.once.Do(func() { v.data, v.err = s.Secrets[i].read(ctx) })
	return v.data, true, v.err
}

func (s Secret) read(ctx context.Context) ([]byte, error) {
	if s.File == "" {
		value, ok := os.LookupEnv(s.Env)
		if !ok {
			return nil, fmt.Errorf("secret %s: there is no variable %s in the environment", s.ID,
				s.Env)
		}
		return []byte(value), nil
	}
	data, err := source.ReadHostFile(ctx, s.File, MaxSize)
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", s.ID, err)
	}
	return data, nil
}

// text returns the value of a secret without surrounding white space, "" if there is none.
func (s *Store) text(id string) string {
	data, ok, err := s.Read(context.Background(), id)
	if err != nil && s.Warn != nil {
		s.Warn(fmt.Sprintf("fetching without credentials: cannot read a secret: %v", err))
	}
	if !ok || err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// Agent returns the socket of the ssh agent with an ID, and reports whether there is one.
func (s *Store) Agent(id string) (socket string, ok bool) {
	i := slices.IndexFunc(s.Agents, func(a Agent) bool { return a.ID == id })
	if i < 0 {
		return "", false
	}
	return s.Agents[i].Socket, true
}

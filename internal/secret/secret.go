package secret

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/memo"
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
	// Keys are the keys of an agent that ServeKeys runs; nil: the agent has Socket already.
	Keys *Keys
}

// Store has the secrets and agents of a build. The zero value has none.
type Store struct {
	Secrets []Secret
	Agents  []Agent
	// Warn is called if a credential cannot be read; nil: no warning is given.
	Warn func(message string)

	values memo.Map[int, []byte] // by the index in Secrets
}

// Read returns the value of a secret, and reports whether there is a secret with that ID. The value
// is read once: a pipe can be read only once, and all commands of a build must get the same value.
func (s *Store) Read(ctx context.Context, id string) (data []byte, ok bool, err error) {
	i := slices.IndexFunc(s.Secrets, func(s Secret) bool { return s.ID == id })
	if i < 0 {
		return nil, false, nil
	}
	call, mine := s.values.Claim(i)
	if mine {
		// Not Map.Do: after a canceled read another caller would read the rest of a pipe.
		call.Finish(s.Secrets[i].read(ctx))
	}
	data, err = call.Wait(ctx)
	return data, true, err
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

// text returns the value of a secret without surrounding white space, "" if there is none or if ctx
// ends before it has been read.
func (s *Store) text(ctx context.Context, id string) string {
	data, ok, err := s.Read(ctx, id)
	if err != nil && ctx.Err() == nil && s.Warn != nil {
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

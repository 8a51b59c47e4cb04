package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/reference"
)

// credentialStore looks up credentials in the files and helpers of docker and podman.
type credentialStore struct {
	logins map[string]Login // by server; they take precedence over login
	login  Login            // takes precedence over files
	files  []*authFile

	known memo.Map[string, credential] // by host and repository, so that a helper is run once
}

// loadCredentials reads the Docker configuration, then the files of containers-auth.json(5), unless
// the options have a file or a login.
func loadCredentials(o Options) (*credentialStore, error) {
	s := &credentialStore{login: o.Login, logins: map[string]Login{}}
	for domain, login := range o.Logins {
		s.logins[serverOf(domain)] = login
	}
	if o.Login != (Login{}) {
		return s, nil
	}
	for _, f := range LoginFiles(o) {
		file, err := readAuthFile(f.Path)
		if errors.Is(err, fs.ErrPermission) && f.parts && o.AuthFile == "" {
			// belongs to another user: the variable was inherited from that user's environment
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read credentials: %w", err)
		}
		file.parts = f.parts
		s.files = append(s.files, file)
	}
	return s, nil
}

// get returns the credentials for a repository on a server; the zero value if there are none.
func (s *credentialStore) get(ctx context.Context, host, repo string) (credential, error) {
	if login := cmp.Or(s.logins[host], s.login); login != (Login{}) {
		return credential{username: login.Username, password: login.Password}, nil
	}
	keys := []string{host}
	if host == hubServer {
		keys = []string{hubKey, reference.DockerHub,
			reference.LegacyDockerHub}
	}
	return s.known.Do(ctx, host+"/"+repo, func() (credential, error) {
		return s.find(ctx, host, repo, keys)
	})
}

// find looks for credentials in all files.
func (s *credentialStore) find(ctx context.Context, host, repo string,
	keys []string) (credential, error) {
	var errs []error
	for _, file := range s.files {
		try := keys
		// podman's files may hold credentials for a part of a registry; the longest match counts
		if file.parts {
			try = nil
			for p := repo; p != ""; p = p[:max(0, strings.LastIndexByte(p, '/'))] {
				for _, k := range keys {
					try = append(try, k+"/"+p)
				}
			}
			try = append(try, keys...)
		}
		for _, k := range try {
			cred, err := file.get(ctx, k)
			if err != nil {
				errs = append(errs, err)
				break
			}
			if cred != (credential{}) {
				return cred, nil
			}
		}
	}
	if len(errs) > 0 {
		return credential{}, fmt.Errorf("credentials for %s: %w", host, errors.Join(errs...))
	}
	return credential{}, nil
}

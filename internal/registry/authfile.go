package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/subprocess"
)

// credential authenticates a user to a server. The zero value is anonymous.
type credential struct {
	username, password string
	refresh            string // a token that is exchanged for others (docker's identity token)
	access             string // a token for the registry itself
}

// basic returns the Authorization header for the user name and the password.
func (c credential) basic() string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.username+":"+c.password))
}

// authFile is a file in which docker or podman keep credentials or the names of credential helpers:
// https://docs.docker.com/reference/cli/docker/login/#credential-stores and
// containers-auth.json(5).
type authFile struct {
	path  string
	parts bool // it may have entries for parts of a server
	// by server; decoded when it is used, so that a broken entry does not affect the others
	auths   map[string]json.RawMessage
	helpers map[string]string // by server
	helper  string            // for all other servers
	// content has all fields of the file, for write
	content map[string]json.RawMessage
}

// readAuthFile reads a file. A missing or empty file has no credentials.
func readAuthFile(path string) (*authFile, error) {
	a := &authFile{path: path}
	f, err := hostfile.Open(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := json.NewDecoder(f).Decode(&a.content); err == io.EOF {
		return a, nil
	} else if err != nil {
		return nil, fmt.Errorf("%s: invalid JSON: %w", path, err)
	}
	for _, field := range []struct {
		name string
		to   any
	}{
		{"credsStore", &a.helper}, {"credHelpers", &a.helpers}, {"auths", &a.auths},
	} {
		if raw, ok := a.content[field.name]; ok {
			if err := json.Unmarshal(raw, field.to); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", path, field.name, err)
			}
		}
	}
	return a, nil
}

// get returns the credential for a server or for a part of it; the zero value if there is none.
func (a *authFile) get(ctx context.Context, server string) (credential, error) {
	helper := a.helpers[server]
	if helper == "" {
		helper = a.helper
	}
	if helper != "" {
		return askHelper(ctx, helperProgram+helper, server)
	}
	key := server
	if _, ok := a.auths[key]; !ok {
		// docker used to write https://example.com/v1/ for example.com. In podman's files
		// example.com/v1 is a part of the server.
		keys := slices.Sorted(maps.Keys(a.auths))
		i := slices.IndexFunc(keys, func(k string) bool {
			return serverOfKey(k) == server && (!a.parts || strings.Contains(k, "://"))
		})
		if i < 0 {
			return credential{}, nil
		}
		key = keys[i]
	}
	c, err := parseAuth(a.auths[key])
	if err != nil {
		return credential{}, fmt.Errorf("%s: auths: %q: %w", a.path, key, err)
	}
	return c, nil
}

// parseAuth returns the credential in an entry of auths.
func parseAuth(raw json.RawMessage) (credential, error) {
	var entry struct {
		Auth          string `json:"auth"` // base64 of username:password
		IdentityToken string `json:"identitytoken"`
		RegistryToken string `json:"registrytoken"`
		Username      string `json:"username"` // the next two are older than auth
		Password      string `json:"password"`
	}
	if err := json.Unmarshal(raw, &entry); err != nil {
		return credential{}, err
	}
	c := credential{entry.Username, entry.Password, entry.IdentityToken, entry.RegistryToken}
	if entry.Auth != "" {
		var err error
		if c.username, c.password, err = decodeAuth(entry.Auth); err != nil {
			return credential{}, fmt.Errorf("auth: %w", err)
		}
	}
	return c, nil
}

// serverOfKey returns the server of a key of auths, without the scheme and the path.
func serverOfKey(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "http://"), "https://")
	server, _, _ := strings.Cut(key, "/")
	return server
}

func decodeAuth(s string) (username, password string, err error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "", "", err
	}
	username, password, ok := strings.Cut(string(b), ":")
	if !ok {
		return "", "", errors.New("it is not the base64 of username:password")
	}
	return username, password, nil
}

// askHelper runs a credential helper for a server:
// https://github.com/docker/docker-credential-helpers#development.
func askHelper(ctx context.Context, program, server string) (credential, error) {
	cmd := subprocess.Interactive(ctx, program, "get")
	cmd.Stdin = strings.NewReader(server)
	cmd.Stderr = os.Stderr // some helpers prompt for a password there
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	err := subprocess.Run(ctx, cmd)
	out := stdout.Bytes()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		switch message := string(bytes.TrimSpace(out)); message {
		case "":
		case "credentials not found in native keychain":
			return credential{}, nil
		default:
			return credential{}, errors.New(message)
		}
	}
	if program == helperProgram+"desktop.exe" && errors.Is(err, exec.ErrNotFound) {
		return credential{}, fmt.Errorf("%w (is Docker Desktop running?)", err)
	}
	if err != nil {
		return credential{}, err
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return credential{}, err
	}
	if answer.Username == "<token>" {
		return credential{refresh: answer.Secret}, nil
	}
	return credential{username: answer.Username, password: answer.Secret}, nil
}

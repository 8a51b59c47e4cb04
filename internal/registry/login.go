package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/subprocess"
)

// Server is a registry that a user logs in to.
type Server struct {
	Domain string // "docker.io", "localhost:5000"
	// Path is a repository of the registry, or the beginning of the names of several; "" for the
	// whole registry. Only podman's files have credentials for paths.
	Path string
}

// ParseServer parses the address of a registry as users write it: "" is Docker Hub. A scheme is
// dropped, and the path after it, as docker does.
func ParseServer(s string) (Server, error) {
	rest, scheme := s, false
	for _, prefix := range []string{"https://", "http://"} {
		if after, ok := strings.CutPrefix(rest, prefix); ok {
			rest, scheme = after, true
			break
		}
	}
	rest = strings.TrimSuffix(rest, "/")
	domain, path, _ := strings.Cut(rest, "/")
	if scheme {
		path = ""
	}
	switch domain {
	case "", reference.LegacyDockerHub, hubServer:
		domain = reference.DockerHub
	}
	if rest == "" && s != "" {
		return Server{}, fmt.Errorf("%q is not a registry; HOST[:PORT] is expected", s)
	}
	check := domain
	if path != "" {
		check += "/" + path
	} else {
		check += "/x"
	}
	if err := reference.CheckRepository(check); err != nil || !reference.IsDomain(domain) {
		return Server{}, fmt.Errorf("%q is not a registry; HOST[:PORT] is expected", s)
	}
	return Server{domain, path}, nil
}

// String returns the server's name, with the path if it has one.
func (s Server) String() string {
	if s.Path == "" {
		return s.Domain
	}
	return s.Domain + "/" + s.Path
}

// keys returns the keys that files may have for the server; the first is the one to write. parts
// is true for podman's files.
func (s Server) keys(parts bool) []string {
	if s.Domain != reference.DockerHub || s.Path != "" {
		return []string{s.String()}
	}
	keys := []string{hubKey, reference.DockerHub, reference.LegacyDockerHub, hubServer}
	if parts {
		keys[0], keys[1] = keys[1], keys[0]
	}
	return keys
}

// hubKey is the key of Docker Hub in docker's configuration.
const hubKey = "https://" + reference.LegacyDockerHub + "/v1/"

// CheckLogin sends the credentials of the client to a registry. It returns an error for which
// errors.Is reports ErrDenied if the registry refuses them. A registry that asks for no
// credentials accepts all.
func (c *Client) CheckLogin(ctx context.Context, s Server) error {
	conf, err := c.config()
	if err != nil {
		return err
	}
	insecure := false
	if t := conf.find(s.String()); t != nil {
		if t.Blocked {
			return fmt.Errorf("registry %s is %w", t.Prefix, ErrBlocked)
		}
		insecure = t.Insecure
	}
	h, err := c.host(serverOf(s.Domain), insecure)
	if err != nil {
		return err
	}
	q := call{method: http.MethodGet, url: "/v2/"}
	if s.Path != "" {
		// The scope selects the credentials, and a token server may check it.
		q.scope = pullScope(s.Path)
	}
	resp, err := h.do(ctx, q)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return failure(resp)
	}
	discard(resp)
	return nil
}

// Stored returns the user name and the password that the files have for a server; the zero value
// if they have none, or a token.
func (c *Client) Stored(ctx context.Context, s Server) (Login, error) {
	creds, err := c.creds()
	if err != nil {
		return Login{}, err
	}
	cred, err := creds.get(ctx, serverOf(s.Domain), s.Path)
	return Login{cred.username, cred.password}, err
}

// LoginFile is a file in which a login is written, and from which a logout removes it.
type LoginFile struct {
	Path  string
	parts bool // it is one of podman's
}

// LoginFiles returns the files that are read for credentials, in the order of their precedence. A
// login is written to the first one.
func LoginFiles(o Options) []LoginFile {
	if o.AuthFile != "" {
		return []LoginFile{{o.AuthFile, true}}
	}
	dir := o.DockerConfig
	if dir == "" {
		dir = os.Getenv("DOCKER_CONFIG")
	}
	home, _ := os.UserHomeDir()
	if dir == "" && home != "" {
		dir = filepath.Join(home, ".docker")
	}
	var files []LoginFile
	if dir != "" {
		files = append(files, LoginFile{Path: filepath.Join(dir, "config.json")})
	}
	if f := os.Getenv("REGISTRY_AUTH_FILE"); f != "" {
		return append([]LoginFile{{f, true}}, files...) // as in podman
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		files = append(files, LoginFile{filepath.Join(d, "containers", "auth.json"), true})
	}
	if home != "" {
		files = append(files, LoginFile{filepath.Join(home, ".config", "containers", "auth.json"),
			true})
	}
	return files
}

// ErrWholeRegistry is returned for a login to a part of a registry and a file of docker's.
var ErrWholeRegistry = errors.New("docker's config.json has credentials for whole registries only")

// CheckServer returns ErrWholeRegistry if the file cannot have credentials for the server.
func (f LoginFile) CheckServer(s Server) error {
	if s.Path != "" && !f.parts {
		return ErrWholeRegistry
	}
	return nil
}

// Login writes credentials to the file, or passes them to the credential helper that the file
// names. It returns the name of the helper's program, or "".
func (f LoginFile) Login(ctx context.Context, s Server, l Login) (helper string, err error) {
	if err := f.CheckServer(s); err != nil {
		return "", err
	}
	file, err := f.read()
	if err != nil {
		return "", err
	}
	keys := s.keys(f.parts)
	entry := map[string]string{}
	if helper = file.helperOf(keys); helper != "" {
		if err := store(ctx, helper, keys[0], l); err != nil {
			return helper, err
		}
	} else {
		entry["auth"] = base64.StdEncoding.EncodeToString([]byte(l.Username + ":" + l.Password))
	}
	raw, err := json.Marshal(entry)
	if err != nil {
		return helper, err
	}
	file.removeKeys(s, keys)
	if file.auths == nil {
		file.auths = map[string]json.RawMessage{}
	}
	file.auths[keys[0]] = raw // docker writes an empty entry for a helper
	return helper, file.write()
}

// Logout removes the credentials for a server from the file, or from the credential helper that
// the file names. It reports whether there were any.
func (f LoginFile) Logout(ctx context.Context, s Server) (removed bool, err error) {
	file, err := f.read()
	if err != nil {
		return false, err
	}
	keys := s.keys(f.parts)
	if helper := file.helperOf(keys); helper != "" {
		if removed, err = erase(ctx, helper, keys); err != nil {
			return removed, err
		}
	}
	if !file.removeKeys(s, keys) {
		return removed, nil
	}
	return true, file.write()
}

// LogoutAll removes the credentials for all servers that the file has, and returns their keys.
func (f LoginFile) LogoutAll(ctx context.Context) ([]string, error) {
	file, err := f.read()
	if err != nil {
		return nil, err
	}
	keys := slices.Sorted(maps.Keys(file.auths))
	for _, key := range keys {
		if helper := file.helperOf([]string{key}); helper != "" {
			if _, err := erase(ctx, helper, []string{key}); err != nil {
				return nil, err
			}
		}
	}
	if len(keys) == 0 {
		return nil, nil
	}
	clear(file.auths)
	return keys, file.write()
}

// Has reports whether the file, or its credential helper, has credentials for a server. A file
// that cannot be read has none.
func (f LoginFile) Has(ctx context.Context, s Server) bool {
	file, err := f.read()
	if err != nil {
		return false
	}
	for _, key := range s.keys(f.parts) {
		if cred, err := file.get(ctx, key); err == nil && cred != (credential{}) {
			return true
		}
	}
	return false
}

func (f LoginFile) read() (*authFile, error) {
	a, err := readAuthFile(f.Path)
	if err != nil {
		return nil, err
	}
	a.parts = f.parts
	return a, nil
}

// helperOf returns the program of the credential helper for a server, or "".
func (a *authFile) helperOf(keys []string) string {
	for _, key := range keys {
		if h := a.helpers[key]; h != "" {
			return helperProgram + h
		}
	}
	if a.helper != "" {
		return helperProgram + a.helper
	}
	return ""
}

// helperProgram is the beginning of the names of credential helpers.
const helperProgram = "docker-credential-"

// removeKeys removes all entries for a server, in all spellings, and reports whether there were
// any.
func (a *authFile) removeKeys(s Server, keys []string) bool {
	n := len(a.auths)
	maps.DeleteFunc(a.auths, func(key string, _ json.RawMessage) bool {
		return slices.Contains(keys, key) || s.Path == "" && strings.Contains(key, "://") &&
			slices.Contains(keys, serverOfKey(key))
	})
	return len(a.auths) < n
}

// write replaces the file. Fields that this program does not know are kept.
func (a *authFile) write() error {
	if a.content == nil {
		a.content = map[string]json.RawMessage{}
	}
	auths, err := json.Marshal(a.auths)
	if err != nil {
		return err
	}
	a.content["auths"] = auths
	data, err := json.MarshalIndent(a.content, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(a.path), 0o700); err != nil {
		return err
	}
	return atomicfile.WriteFile(a.path, append(data, '\n'), 0o600)
}

// store passes credentials to a credential helper.
func store(ctx context.Context, program, server string, l Login) error {
	request, err := json.Marshal(struct{ ServerURL, Username, Secret string }{
		server, l.Username, l.Password})
	if err != nil {
		return err
	}
	_, err = callHelper(ctx, program, "store", string(request))
	return err
}

// erase removes the credentials of a server from a credential helper, and reports whether there
// were any. Not all helpers report that when they erase credentials, so that it asks them first.
func erase(ctx context.Context, program string, keys []string) (removed bool, err error) {
	for _, key := range keys {
		cred, err := askHelper(ctx, program, key)
		if err != nil {
			return removed, fmt.Errorf("%s: %w", program, err)
		}
		if cred == (credential{}) {
			continue
		}
		if _, err := callHelper(ctx, program, "erase", key); err != nil {
			return removed, err
		}
		removed = true
	}
	return removed, nil
}

// callHelper runs a credential helper, and returns its output.
func callHelper(ctx context.Context, program, action, input string) ([]byte, error) {
	cmd := subprocess.Interactive(ctx, program, action)
	cmd.Stdin = strings.NewReader(input)
	cmd.Stderr = os.Stderr // some helpers prompt for a password there
	var stdout bytes.Buffer
	cmd.Stdout = &limited{w: &stdout, left: maxHelperOutput}
	err := subprocess.Run(ctx, cmd)
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		if message := printable(stdout.String()); message != "" {
			err = errors.New(message)
		}
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w", program, action, err)
	}
	return stdout.Bytes(), err
}

// maxHelperOutput limits the output of a credential helper.
const maxHelperOutput = 1 << 20

// limited is a writer that refuses to write more than a number of bytes.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errors.New("the output is too long")
	}
	return l.w.Write(p)
}

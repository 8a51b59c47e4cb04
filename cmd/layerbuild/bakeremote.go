package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"

	"github.com/layerbuild/layerbuild/internal/bake"
	"github.com/layerbuild/layerbuild/internal/giturl"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/source"
)

// bakeRemote is the place of the files of bake if it is not this machine, as in
// docker buildx bake URL [URL] [TARGET…].
type bakeRemote struct {
	// address is a git repository, an archive, or a file with targets; "": the files are on this
	// machine.
	address string
	// directory is the value of BAKE_CMD_CONTEXT: the second address, or the working directory.
	directory string

	files *source.Context // nil until open
}

// Variables with the credentials for the repository of a bakeRemote. That for SSH has the socket of
// an agent, or files of keys, separated by commas.
const (
	bakeSSHVariable    = "BUILDX_BAKE_GIT_SSH"
	bakeTokenVariable  = "BUILDX_BAKE_GIT_AUTH_TOKEN"
	bakeHeaderVariable = "BUILDX_BAKE_GIT_AUTH_HEADER"
)

// parse takes the addresses at the beginning of the arguments and returns the other arguments.
func (r *bakeRemote) parse(args []string) ([]string, error) {
	r.directory = "cwd://"
	for _, place := range []*string{&r.address, &r.directory} {
		if len(args) == 0 || !isAddress(args[0]) {
			break
		}
		if err := source.Check(args[0], source.Options{}); err != nil {
			return nil, fmt.Errorf("%s: %w", giturl.Redact(args[0]), err)
		}
		*place, args = args[0], args[1:]
	}
	return args, nil
}

// open fetches the files.
func (r *bakeRemote) open(ctx context.Context, e *env) (err error) {
	if r.address == "" {
		return nil
	}
	keys := source.SSHKeys{User: true}
	if files := e.getenv(bakeSSHVariable); files != "" {
		agent, err := parseAgent("default="+files, e.getenv)
		if err != nil {
			return fmt.Errorf("%s: %w", bakeSSHVariable, err)
		}
		agents, stop, err := secret.ServeKeys([]secret.Agent{agent})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
		keys.Agent = agents[0].Socket
	}
	o := source.Options{Git: source.GitOptions{
		SSH: keys,
		Authorization: func(context.Context, string) string {
			token := e.getenv(bakeTokenVariable)
			if header := e.getenv(bakeHeaderVariable); header != "" || token == "" {
				return header
			}
			return "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+token))
		}}}
	r.files, err = source.Open(ctx, r.address, o)
	return err
}

// names reports whether the command line names the git repository at an address.
func (r *bakeRemote) names(address string) bool {
	u, err := giturl.Parse(address)
	if err != nil {
		return false
	}
	return slices.ContainsFunc([]string{r.address, r.directory}, func(place string) bool {
		named, err := giturl.Parse(place)
		return err == nil && named.Remote == u.Remote
	})
}

// close removes the files.
func (r *bakeRemote) close() error {
	if r.files == nil {
		return nil
	}
	return r.files.Close()
}

// isFile reports whether the address is that of a file with targets. Then the paths in it are those
// of this machine, as in buildx.
func (r *bakeRemote) isFile() bool { return r.files != nil && r.files.IsDockerfile() }

// read reads the files with names, and all that exist of them if optional is set.
func (r *bakeRemote) read(ctx context.Context, names []string, optional bool) ([]bake.File, error) {
	if r.isFile() {
		name, data, err := r.files.ReadDockerfile(ctx)
		return []bake.File{{Name: name, Data: data}}, err
	}
	var files []bake.File
	for _, name := range names {
		data, err := r.readFile(name)
		if optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, bake.File{Name: name, Data: data})
	}
	return files, nil
}

// readFile reads a file of the repository or archive.
func (r *bakeRemote) readFile(name string) ([]byte, error) {
	data, err := r.files.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%s in %s: %w", name, r.files.Name, plainError(err))
	}
	return data, nil
}

// place replaces the contexts of a target that are directories of the repository or archive by
// addresses.
func (r *bakeRemote) place(t *bake.Target) error {
	if r.files == nil || r.isFile() {
		return nil
	}
	for name, where := range t.Contexts {
		at, err := r.at(where)
		if err != nil {
			return fmt.Errorf("context %s: %w", name, err)
		}
		t.Contexts[name] = at
	}
	if t.InCwd {
		return nil
	}
	at, err := r.at(*t.Context)
	if err != nil {
		return fmt.Errorf("context: %w", err)
	}
	t.Context = &at
	return nil
}

// at returns the address of a context.
func (r *bakeRemote) at(where string) (string, error) {
	if _, linked := bake.LinkedTarget(where); linked || isAddress(where) || where == "-" {
		return where, nil
	}
	dir := path.Clean("/" + where)[1:]
	if dir == "" {
		return r.address, nil
	}
	at, err := giturl.Below(r.address, dir)
	if errors.Is(err, giturl.ErrNotGit) {
		return "", fmt.Errorf("%q: a directory of an archive cannot be a context; use a git "+
			"repository", where)
	}
	return at, err
}

// secrets returns the values of --secret with which the contexts of a target are fetched. The
// credentials are for the host of the repository only, and for targets with a context there: a
// target may have contexts and sources on other hosts.
func (r *bakeRemote) secrets(e *env, t *bake.Target) []string {
	if r.files == nil || r.isFile() {
		return nil
	}
	host := source.GitHost(r.address)
	there := func(where string) bool { return source.GitHost(where) == host }
	if host == "" || !there(*t.Context) &&
		!slices.ContainsFunc(slices.Collect(maps.Values(t.Contexts)), there) {
		return nil
	}
	var list []string
	for id, name := range map[string]string{"GIT_AUTH_TOKEN": bakeTokenVariable,
		"GIT_AUTH_HEADER": bakeHeaderVariable} {
		if e.getenv(name) != "" {
			list = append(list, "id="+id+"."+host+",env="+name)
		}
	}
	return list
}

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/secret"
)

// access parses the secrets and agents that the build may use.
func (f *buildFlags) access(o *imagebuild.Options, e *env) error {
	for _, s := range f.secrets {
		given, err := parseSecret(s, e.getenv)
		if err != nil {
			return badValue("secret", s, err)
		}
		o.Secrets = setLast(o.Secrets, given,
			func(s secret.Secret) bool { return s.ID == given.ID })
	}
	for _, s := range f.ssh {
		agent, err := parseAgent(s, e.getenv)
		if err != nil {
			return badValue("ssh", s, err)
		}
		o.SSH = setLast(o.SSH, agent, func(a secret.Agent) bool { return a.ID == agent.ID })
	}
	return nil
}

// parseAgent parses ID, ID=SOCKET or ID=KEY,KEY…, where a key is the file of a private key.
func parseAgent(s string, getenv func(string) string) (secret.Agent, error) {
	id, socket, _ := strings.Cut(s, "=")
	if id == "" {
		return secret.Agent{}, errors.New("default or ID[=SOCKET|=KEY,…] is expected")
	}
	if socket == "" {
		if socket = getenv("SSH_AUTH_SOCK"); socket == "" {
			return secret.Agent{}, fmt.Errorf("SSH_AUTH_SOCK is not set; start an agent, or give "+
				"a socket or a key file: --ssh %s=SOCKET or --ssh %s=KEY", id, id)
		}
	}
	files := strings.Split(socket, ",")
	for _, name := range files {
		info, err := os.Stat(name)
		switch {
		case err != nil:
			return secret.Agent{}, fmt.Errorf("%s: %w", name, plainError(err))
		case info.Mode()&os.ModeSocket != 0 && len(files) > 1:
			return secret.Agent{}, fmt.Errorf("%s is the socket of an agent; it is given alone",
				name)
		case info.Mode()&os.ModeSocket != 0:
			return secret.Agent{ID: id, Socket: socket}, nil
		case !info.Mode().IsRegular():
			return secret.Agent{}, fmt.Errorf(
				"%s is neither the socket of an agent nor the file of a key", name)
		}
	}
	keys, err := secret.ReadKeys(files)
	return secret.Agent{ID: id, Keys: keys}, err
}

// parseSecret parses id=ID with src=FILE or env=VAR. With neither, the id names a variable, or
// else a file.
func parseSecret(s string, getenv func(string) string) (secret.Secret, error) {
	var out secret.Secret
	kind := ""
	for _, f := range strings.Split(s, ",") {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return out, fmt.Errorf("%q is not key=value; id=ID[,src=FILE|,env=VAR] is expected", f)
		}
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "id":
			out.ID = value
		case "src", "source":
			out.File = value
		case "env":
			out.Env = value
		case "type":
			kind = value
		default:
			return out, fmt.Errorf("unknown key %q (known: id, src, env, type)", key)
		}
	}
	if out.ID == "" {
		return out, errors.New("id is missing; id=ID[,src=FILE|,env=VAR] is expected")
	}
	if kind != "" && kind != "file" && kind != "env" {
		return out, fmt.Errorf("type %q: file or env is expected", kind)
	}
	if kind == "env" && out.Env == "" {
		out.Env, out.File = cmp.Or(out.File, out.ID), ""
	}
	if out.File == "" && out.Env == "" {
		if getenv(out.ID) != "" && kind != "file" {
			out.Env = out.ID
		} else {
			out.File = out.ID
			if _, err := os.Stat(out.File); errors.Is(err, fs.ErrNotExist) {
				return out, fmt.Errorf("there is neither a file nor a variable %s; "+
					"id=ID[,src=FILE|,env=VAR] is expected", out.ID)
			}
		}
	}
	if out.File != "" {
		return out, checkSecretFile(out.File)
	}
	return out, nil
}

// checkSecretFile checks that the file of a secret can be read.
func checkSecretFile(name string) error {
	fi, err := os.Stat(name)
	switch {
	case err != nil:
		return fmt.Errorf("src: %w", plainError(err))
	case fi.IsDir():
		return errors.New("src is a directory; a file is expected")
	case fi.Size() > secret.MaxSize:
		return fmt.Errorf("the file has %d bytes; a secret has at most %d",
			fi.Size(), secret.MaxSize)
	case !fi.Mode().IsRegular():
		return nil // a pipe can be opened only once
	}
	f, err := hostfile.Open(name, os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("src: %w", plainError(err))
	}
	return f.Close()
}

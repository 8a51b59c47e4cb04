package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// loginNotes explains the files of login and logout.
const loginNotes = `The credentials are written to the file of --authfile, or else of $REGISTRY_AUTH_FILE, in podman's format. Without
both it is docker's config.json ($DOCKER_CONFIG, or ~/.docker): if it has a credential helper for the server (credHelpers, credsStore),
the helper gets them. Docker, podman, buildah and skopeo read the same files.

Without REGISTRY, the registry is Docker Hub.`

// loginFlags are the flags of the login verb.
type loginFlags struct {
	registryFlags
	username, password string
	fromStdin, get     bool
}

func loginVerb() verb {
	return verb{
		name: "login", args: "[REGISTRY]", stateless: true,
		summary: "check and store the credentials for a registry",
		notes: loginNotes + "\n\nThe registry is asked first, and nothing is written if it " +
			"refuses the credentials. Without --username, stored credentials are checked; if " +
			"there are none, the terminal is asked for them.",
		examples: []example{
			{"layerbuild login registry.example.com", "ask for a user name and a password"},
			{"layerbuild login -u me --password-stdin ghcr.io",
				"read the password from standard input"},
			{"layerbuild login --get-login ghcr.io", "print the user name that is stored"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f loginFlags
			f.define(fs)
			return f.prepare
		},
	}
}

func (f *loginFlags) define(fs *pflag.FlagSet) {
	fs.VarP((*given)(&f.username), "username", "u", "`USER` user name")
	fs.VarP((*given)(&f.password), "password", "p", "`PASSWORD` password or access token\n"+
		"Other users of the machine can read it in the list of processes. Use --password-stdin.")
	fs.BoolVar(&f.fromStdin, "password-stdin", false, "read the password from standard input")
	fs.BoolVar(&f.get, "get-login", false, "print the user name that is stored")
	defineLoginFile(fs, &f.authFile)
	f.defineCertDir(fs)
	f.defineTLSVerify(fs)
}

// defineLoginFile defines --authfile of a verb that changes the file.
func defineLoginFile(fs *pflag.FlagSet, value *given) {
	fs.Var(value, "authfile", "`FILE` file with the credentials\n"+
		"The file has the format of containers-auth.json(5). It is made if it does not exist.")
}

// loginFile returns the file for credentials that a login changes, and the others that are read.
func loginFiles(o registry.Options) (file registry.LoginFile, others []registry.LoginFile,
	err error) {
	files := registry.LoginFiles(o)
	if len(files) == 0 {
		return file, nil, errors.New("there is no place for credentials: HOME and DOCKER_CONFIG " +
			"are not set; give --authfile FILE")
	}
	if fi, err := os.Stat(files[0].Path); err == nil && fi.IsDir() {
		err := errors.New("a file with credentials is expected, not a directory")
		if o.AuthFile != "" {
			return file, nil, badValue("authfile", o.AuthFile, err)
		}
		return file, nil, fmt.Errorf("%s: %w", files[0].Path, err)
	}
	return files[0], files[1:], nil
}

// serverOfArgs returns the registry that the arguments name.
func serverOfArgs(args []string) (registry.Server, error) {
	if len(args) > 1 {
		return registry.Server{}, fmt.Errorf("one registry is expected, not %d: %s", len(args),
			strings.Join(args, " "))
	}
	name := ""
	if len(args) == 1 {
		if name = args[0]; strings.TrimSpace(name) == "" {
			return registry.Server{}, fmt.Errorf("registry: %w", errEmptyValue)
		}
	}
	return registry.ParseServer(name)
}

func (f *loginFlags) prepare(e *env, args []string) (runFunc, error) {
	server, err := serverOfArgs(args)
	if err != nil {
		return nil, err
	}
	authFile := f.authFile
	f.authFile = "" // it need not exist yet
	o, err := f.options()
	if err != nil {
		return nil, err
	}
	o.AuthFile = string(authFile)
	file, _, err := loginFiles(o)
	if err != nil {
		return nil, err
	}
	if err := file.CheckServer(server); err != nil {
		return nil, fmt.Errorf("%s: %w; give --authfile FILE", server, err)
	}
	if err := f.checkSource(e); err != nil {
		return nil, err
	}
	if f.get {
		return func(ctx context.Context) error { return getLogin(ctx, e, o, server) }, nil
	}
	return func(ctx context.Context) error { return f.login(ctx, e, o, file, server) }, nil
}

// checkSource returns an error if neither the flags nor a terminal give a user name and a password.
func (f *loginFlags) checkSource(e *env) error {
	switch {
	case f.get && (f.username != "" || f.password != "" || f.fromStdin):
		return errors.New("--get-login takes no credentials")
	case f.fromStdin && f.password != "":
		return errors.New("--password and --password-stdin: give one of them")
	case f.fromStdin && f.username == "":
		return errors.New("--password-stdin: give the user name with --username")
	case f.password != "" && f.username == "":
		return errors.New("--password: give the user name with --username")
	case strings.ContainsRune(f.username, ':'):
		// RFC 7617, section 2: the first colon ends the name.
		return badValue("username", f.username, errors.New("a user name has no colon"))
	case f.username != "" && f.password == "" && !f.fromStdin &&
		!term.IsTerminal(int(e.stdin.Fd())):
		return errors.New("there is no terminal to ask for a password; give --password-stdin")
	}
	return nil
}

// getLogin prints the user name that is stored for a server.
func getLogin(ctx context.Context, e *env, o registry.Options, server registry.Server) error {
	client := registry.New(o)
	defer client.Close()
	l, err := client.Stored(ctx, server)
	if err == nil && l.Username == "" {
		err = fmt.Errorf("not logged in to %s; 'layerbuild login %[1]s' stores credentials", server)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.stdout, l.Username)
	return err
}

func (f *loginFlags) login(ctx context.Context, e *env, o registry.Options,
	file registry.LoginFile, server registry.Server) error {
	l := registry.Login{Username: f.username, Password: f.password}
	if f.username == "" {
		known, err := f.stored(ctx, e, o, server)
		if known || err != nil {
			return err
		}
	}
	var err error
	if l, err = f.credentials(ctx, e, l, server); err != nil {
		return err
	}
	if f.password != "" {
		fmt.Fprintln(e.stderr, "layerbuild login: warning: other users can read --password in "+
			"the list of processes; use --password-stdin")
	}
	o.Login = l
	if err := check(ctx, o, server); err != nil {
		return err
	}
	helper, err := file.Login(ctx, server, l)
	if err != nil {
		return fmt.Errorf("store the credentials for %s: %w", server, err)
	}
	if helper == "" {
		fmt.Fprintf(e.stderr, "layerbuild login: the password is in %s, without encryption; "+
			"credsStore there names a credential helper\n", file.Path)
	}
	_, err = fmt.Fprintln(e.stdout, "Login Succeeded")
	return err
}

// stored checks credentials that are stored already. It reports false if there are none, or if the
// registry refuses them and others can be asked for.
func (f *loginFlags) stored(ctx context.Context, e *env, o registry.Options,
	server registry.Server) (bool, error) {
	client := registry.New(o)
	defer client.Close()
	terminal := term.IsTerminal(int(e.stdin.Fd()))
	l, err := client.Stored(ctx, server)
	switch {
	case err != nil:
		return false, err
	case l.Username == "" && !terminal:
		return false, errors.New("there is no terminal to ask for credentials; give --username " +
			"and --password-stdin")
	case l.Username == "":
		return false, nil
	}
	o.Login = l
	err = check(ctx, o, server)
	switch {
	case err == nil:
		_, err = fmt.Fprintf(e.stdout, "Login Succeeded (with the stored credentials of %s)\n",
			l.Username)
		return true, err
	case errors.Is(err, registry.ErrDenied) && terminal:
		fmt.Fprintf(e.stderr, "%s refuses the stored credentials of %s\n", server, l.Username)
		f.username = ""
		return false, nil
	}
	return false, err
}

// check asks the registry whether the credentials are valid.
func check(ctx context.Context, o registry.Options, server registry.Server) error {
	client := registry.New(o)
	defer client.Close()
	err := client.CheckLogin(ctx, server)
	if errors.Is(err, registry.ErrDenied) {
		return fmt.Errorf("%s refuses the user name or the password: %w", server, err)
	}
	if err != nil {
		return fmt.Errorf("log in to %s: %w", server, err)
	}
	return nil
}

// maxPassword limits a password. Access tokens have some kilobytes.
const maxPassword = 64 << 10

// credentials completes the credentials: it reads a password from standard input, or asks for what
// is missing.
func (f *loginFlags) credentials(ctx context.Context, e *env, l registry.Login,
	server registry.Server) (registry.Login, error) {
	switch {
	case f.fromStdin:
		data, err := io.ReadAll(io.LimitReader(e.stdin, maxPassword+1))
		if err != nil {
			return l, fmt.Errorf("--password-stdin: %w", err)
		}
		if len(data) > maxPassword {
			return l, usagef("--password-stdin: a password has at most %d bytes", maxPassword)
		}
		data = bytes.TrimSuffix(bytes.TrimSuffix(data, []byte("\n")), []byte("\r"))
		if l.Password = string(data); l.Password == "" {
			return l, usagef("--password-stdin: standard input has no password")
		}
	case l.Password == "":
		var err error
		if l.Username == "" {
			prompt := "User name for " + server.String() + ": "
			if l.Username, err = askLine(ctx, e, prompt); err != nil {
				return l, err
			}
		}
		if l.Username = strings.TrimSpace(l.Username); l.Username == "" {
			return l, errors.New("a user name is expected")
		}
		if strings.ContainsRune(l.Username, ':') {
			return l, errors.New("a user name has no colon")
		}
		if l.Password, err = askPassword(ctx, e, "Password: "); err != nil {
			return l, err
		}
		if l.Password == "" {
			return l, errors.New("a password is expected")
		}
	}
	return l, nil
}

// askLine asks for a line on the terminal.
func askLine(ctx context.Context, e *env, prompt string) (string, error) {
	fmt.Fprint(e.stderr, prompt)
	return whileWaiting(ctx, func() (string, error) {
		// Unbuffered, so that the line after it stays for askPassword.
		line, err := bufio.NewReaderSize(oneByte{e.stdin}, 16).ReadString('\n')
		if err == io.EOF {
			err = errors.New("standard input has ended")
		}
		return strings.TrimRight(line, "\r\n"), err
	})
}

// oneByte reads a byte at a time.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

// askPassword asks for a password on the terminal, which does not show it.
func askPassword(ctx context.Context, e *env, prompt string) (string, error) {
	fd := int(e.stdin.Fd())
	old, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("ask for a password: %w", err)
	}
	fmt.Fprint(e.stderr, prompt)
	defer fmt.Fprintln(e.stderr)
	// Also after an interrupt, when ReadPassword is still reading.
	defer func() { _ = term.Restore(fd, old) }()
	return whileWaiting(ctx, func() (string, error) {
		data, err := term.ReadPassword(fd)
		if err == io.EOF {
			err = errors.New("standard input has ended")
		}
		return string(data), err
	})
}

// whileWaiting calls read, and returns when ctx ends although read may still wait for the terminal.
// Nothing waits for that goroutine: it ends with the program.
func whileWaiting(ctx context.Context, read func() (string, error)) (string, error) {
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := read()
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		return r.text, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func logoutVerb() verb {
	return verb{
		name: "logout", args: "[REGISTRY]", stateless: true,
		summary: "remove the credentials for a registry", notes: loginNotes,
		examples: []example{
			{"layerbuild logout registry.example.com", "remove the credentials for a registry"},
			{"layerbuild logout --all", "remove all credentials of the file"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var authFile given
			all := fs.BoolP("all", "a", false, "remove the credentials for all registries")
			defineLoginFile(fs, &authFile)
			return func(e *env, args []string) (runFunc, error) {
				server, err := serverOfArgs(args)
				if err != nil {
					return nil, err
				}
				if *all && len(args) > 0 {
					return nil, errors.New("--all: no registry is expected")
				}
				file, others, err := loginFiles(registry.Options{AuthFile: string(authFile)})
				if err != nil {
					return nil, err
				}
				if *all {
					return func(ctx context.Context) error { return logoutAll(ctx, e, file) }, nil
				}
				return func(ctx context.Context) error {
					return logout(ctx, e, file, others, server)
				}, nil
			}
		},
	}
}

func logout(ctx context.Context, e *env, file registry.LoginFile, others []registry.LoginFile,
	server registry.Server) error {
	removed, err := file.Logout(ctx, server)
	if err != nil {
		return fmt.Errorf("log out of %s: %w", server, err)
	}
	text := "Removed the credentials for %s\n"
	if !removed {
		text = "Not logged in to %s\n"
	}
	for _, other := range others {
		if other.Has(ctx, server) {
			fmt.Fprintf(e.stderr, "layerbuild logout: warning: %s still has credentials for %s\n",
				other.Path, server)
		}
	}
	_, err = fmt.Fprintf(e.stdout, text, server)
	return err
}

func logoutAll(ctx context.Context, e *env, file registry.LoginFile) error {
	keys, err := file.LogoutAll(ctx)
	if err != nil {
		return fmt.Errorf("log out: %w", err)
	}
	for _, key := range keys {
		if _, err := fmt.Fprintf(e.stdout, "Removed the credentials for %s\n", key); err != nil {
			return err
		}
	}
	return nil
}

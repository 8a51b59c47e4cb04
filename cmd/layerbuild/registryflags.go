package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/spf13/pflag"
)

// registryFlags are podman's flags for the access to registries.
type registryFlags struct {
	authFile, certDir, creds given
	tlsVerify                bool
	// base has options that no flag sets.
	base registry.Options
}

func (f *registryFlags) define(fs *pflag.FlagSet) {
	fs.Var(&f.authFile, "authfile", "`FILE` file with the credentials for registries\n"+
		"The file has the format of containers-auth.json(5) and docker's config.json. Without "+
		"the flag, the files of docker and podman are read.")
	f.defineCertDir(fs)
	fs.Var(&f.creds, "creds", "`USER:PASSWORD` credentials for registries\n"+
		"They are sent to each registry that asks for some, and replace those in files. Other "+
		"users of the machine can read them in the list of processes.")
	f.defineTLSVerify(fs)
}

func (f *registryFlags) defineCertDir(fs *pflag.FlagSet) {
	fs.Var(&f.certDir, "cert-dir", "`DIR` certificates for registries\n"+
		"The directory holds NAME.crt for authorities, and NAME.cert with NAME.key for the "+
		"client. It replaces the directories of containers-certs.d(5).")
}

func (f *registryFlags) defineTLSVerify(fs *pflag.FlagSet) {
	fs.BoolVar(&f.tlsVerify, "tls-verify", true, "require verified TLS of registries\n"+
		"With --tls-verify=false plain http and any certificate are accepted. Registries on "+
		"loopback never need verified TLS.")
}

// options checks the flags and returns the options of a client.
func (f *registryFlags) options() (registry.Options, error) {
	o := f.base
	o.AuthFile, o.CertDir, o.Insecure = string(f.authFile), string(f.certDir), !f.tlsVerify
	if o.AuthFile != "" {
		if err := readableFile(o.AuthFile); err != nil {
			return o, badValue("authfile", o.AuthFile, err)
		}
	}
	if o.CertDir != "" {
		fi, err := os.Stat(o.CertDir)
		if err == nil && !fi.IsDir() {
			err = errors.New("a directory is expected, not a file")
		}
		if err != nil {
			return o, badValue("cert-dir", o.CertDir, plainError(err))
		}
	}
	if f.creds != "" {
		var err error
		if o.Login, err = parseCreds("creds", string(f.creds)); err != nil {
			return o, err
		}
		if f.authFile != "" {
			return o, errors.New("--creds and --authfile: give one of them")
		}
	}
	return o, nil
}

// parseCreds parses the value of a flag for credentials.
func parseCreds(flag, value string) (registry.Login, error) {
	user, password, ok := strings.Cut(value, ":")
	switch {
	case user == "": // the message must not have the password
		return registry.Login{}, fmt.Errorf("--%s: the user name is missing; USER:PASSWORD is "+
			"expected", flag)
	case !ok:
		return registry.Login{}, badValue(flag, user, errors.New(
			"the password is missing; USER:PASSWORD is expected"))
	}
	return registry.Login{Username: user, Password: password}, nil
}

// access checks the flags for registries, and sets the options of the client.
func (f *stateFlags) access(r *registryFlags) (err error) {
	f.registry, err = r.options()
	return err
}

// readableFile returns the reason why a regular file cannot be read, or nil.
func readableFile(name string) error {
	fi, err := os.Stat(name)
	switch {
	case err != nil:
		return plainError(err)
	case fi.IsDir():
		return errors.New("a file is expected, not a directory")
	case !fi.Mode().IsRegular():
		return nil // a pipe can be opened only once
	}
	f, err := hostfile.Open(name, os.O_RDONLY)
	if err != nil {
		return plainError(err)
	}
	return f.Close()
}

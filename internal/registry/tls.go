package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/layerbuild/layerbuild/internal/reference"
)

// tlsFor returns the TLS configuration for a server: certificates are verified against the
// system's authorities and those in the directories of containers-certs.d(5) and Docker, which
// may also hold a client certificate. If dir is not "", the files in it are read instead.
func tlsFor(name string, insecure bool, dir string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure}
	if dir != "" {
		if _, err := addCertificates(c, dir); err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		return c, nil
	}
	dirs := []string{"/etc/containers/certs.d", "/etc/docker/certs.d"}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append([]string{filepath.Join(home, ".config", "containers", "certs.d")}, dirs...)
	}
	if name == hubServer {
		name = reference.DockerHub
	}
	for _, d := range dirs {
		found, err := addCertificates(c, filepath.Join(d, name))
		if err != nil {
			return nil, fmt.Errorf("certificates for %s: %w", name, err)
		}
		if found {
			break
		}
	}
	return c, nil
}

// addCertificates reads *.crt (authorities) and NAME.cert with NAME.key (of the client).
func addCertificates(c *tls.Config, dir string) (found bool, err error) {
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, n := range names {
		path := filepath.Join(dir, n.Name())
		switch filepath.Ext(n.Name()) {
		case ".crt":
			if err := addAuthorities(c, path); err != nil {
				return false, err
			}
			found = true
		case ".cert":
			if err := addClient(c, path, strings.TrimSuffix(path, ".cert")+".key"); err != nil {
				return false, err
			}
			found = true
		}
	}
	return found, nil
}

// add adds the certificates to a configuration.
func (f Certificate) add(c *tls.Config) (err error) {
	if f.Authorities != "" {
		err = addAuthorities(c, f.Authorities)
	}
	if f.Client != "" && err == nil {
		err = addClient(c, f.Client, f.Key)
	}
	return err
}

// addAuthorities adds the authorities in a file to those of the system.
func addAuthorities(c *tls.Config, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if c.RootCAs == nil {
		if c.RootCAs, err = x509.SystemCertPool(); err != nil {
			c.RootCAs = x509.NewCertPool()
		}
	}
	if !c.RootCAs.AppendCertsFromPEM(data) {
		return fmt.Errorf("%s holds no certificate", path)
	}
	return nil
}

// addClient adds a certificate of the client.
func addClient(c *tls.Config, certFile, keyFile string) error {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err == nil {
		c.Certificates = append(c.Certificates, cert)
	}
	return err
}

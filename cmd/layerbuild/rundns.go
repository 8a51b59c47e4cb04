package main

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/spf13/pflag"
)

// dnsFlags are the values of --dns, --dns-option and --dns-search.
type dnsFlags struct{ servers, options, domains []string }

func (f *dnsFlags) define(fs *pflag.FlagSet) {
	fs.Var((*givenList)(&f.servers), "dns", "`ADDRESS` name server of commands\n"+
		"The other lines of /etc/resolv.conf are those of this machine.")
	fs.Var((*givenList)(&f.options), "dns-option", "`OPTION` option of resolv.conf(5)")
	fs.Var((*givenList)(&f.domains), "dns-search", "`DOMAIN` domain in which names are searched\n"+
		"The value . means none.")
}

// file returns an /etc/resolv.conf for commands; nil if no flag is given.
func (f *dnsFlags) file() ([]byte, error) {
	if len(f.servers)+len(f.options)+len(f.domains) == 0 {
		return nil, nil
	}
	for _, s := range f.servers {
		if _, err := netip.ParseAddr(s); err != nil {
			return nil, badValue("dns", s, errors.New("an IP address is expected"))
		}
	}
	for _, flag := range [...]struct {
		name   string
		values []string
	}{{"dns-option", f.options}, {"dns-search", f.domains}} {
		for _, value := range flag.values {
			if strings.ContainsAny(value, " \t\r\n#;") {
				return nil, badValue(flag.name, value, errors.New("one word is expected"))
			}
		}
	}
	// As for a command without the flags, a machine without the file has no name servers.
	host, _ := os.ReadFile("/etc/resolv.conf")
	return []byte(f.resolvConf(string(host))), nil
}

// mounts returns the mount of an /etc/resolv.conf for the command; nil if no flag is given.
func (f *dnsFlags) mounts() ([]executor.Mount, error) {
	data, err := f.file()
	if data == nil {
		return nil, err
	}
	return []executor.Mount{{Target: "/etc/resolv.conf", ReadOnly: true,
		Source: executor.Data{Data: data, Mode: 0o644}}}, nil
}

// resolvConf returns the file of a machine with the lines that the flags replace.
func (f *dnsFlags) resolvConf(host string) string {
	var b strings.Builder
	for line := range strings.Lines(host) {
		word := ""
		if fields := strings.Fields(line); len(fields) > 0 {
			word = fields[0]
		}
		switch {
		case word == "nameserver" && len(f.servers) > 0,
			word == "options" && len(f.options) > 0,
			(word == "search" || word == "domain") && len(f.domains) > 0:
		default:
			b.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	for _, s := range f.servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(f.domains) > 0 && !slices.Contains(f.domains, ".") {
		b.WriteString("search " + strings.Join(f.domains, " ") + "\n")
	}
	if len(f.options) > 0 {
		b.WriteString("options " + strings.Join(f.options, " ") + "\n")
	}
	return b.String()
}

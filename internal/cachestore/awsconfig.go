package cachestore

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/layerbuild/layerbuild/internal/hostfile"
)

// awsConfig has the values for requests to S3, from the address, the environment and the files of
// AWS's tools.
type awsConfig struct {
	keys     awsKeys
	region   string
	endpoint *url.URL // nil: that of AWS
}

// loadAWS returns the configuration as the tools of AWS find it
// (https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html). region and endpoint
// are those of the address; "": it has none.
func loadAWS(getenv func(string) string, region, endpoint string) (*awsConfig, error) {
	p, err := readProfile(getenv)
	if err != nil {
		return nil, err
	}
	c := &awsConfig{region: cmp.Or(region, getenv("AWS_REGION"), getenv("AWS_DEFAULT_REGION"),
		p.values["region"], "us-east-1")}
	if address := cmp.Or(endpoint, getenv("AWS_ENDPOINT_URL_S3"), getenv("AWS_ENDPOINT_URL"),
		p.values["endpoint_url"]); address != "" {
		if c.endpoint, err = parseEndpoint(address); err != nil {
			return nil, fmt.Errorf("the endpoint of S3: %w", err)
		}
	}
	id, secret := getenv("AWS_ACCESS_KEY_ID"), getenv("AWS_SECRET_ACCESS_KEY")
	switch {
	case id != "" && secret != "":
		c.keys = awsKeys{id, secret, getenv("AWS_SESSION_TOKEN")}
	case id != "" || secret != "":
		return nil, errors.New("only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set")
	default:
		c.keys, err = p.keys()
	}
	return c, err
}

// parseEndpoint parses the address of a server.
func parseEndpoint(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errors.New("not a URL")
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return nil, errors.New("an address such as https://s3.example.com is expected")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("an address without a user, ? and # is expected")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

// profile is a section of the files of AWS's tools.
type profile struct {
	name   string
	files  []string
	values map[string]string
}

// readProfile reads the profile of AWS_PROFILE, or the one named default. Values of the file of
// credentials have precedence.
func readProfile(getenv func(string) string) (*profile, error) {
	p := &profile{name: cmp.Or(getenv("AWS_PROFILE"), "default"), values: map[string]string{}}
	section := "profile " + p.name
	if p.name == "default" {
		section = p.name
	}
	home := getenv("HOME")
	for _, f := range []struct{ path, name, section string }{
		{getenv("AWS_CONFIG_FILE"), "config", section},
		{getenv("AWS_SHARED_CREDENTIALS_FILE"), "credentials", p.name},
	} {
		path := f.path
		if path == "" && !filepath.IsAbs(home) {
			continue
		}
		path = cmp.Or(path, filepath.Join(home, ".aws", f.name))
		p.files = append(p.files, path)
		file, err := hostfile.Open(path, os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		err = readIni(file, f.section, p.values)
		file.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return p, nil
}

// others are the keys of profiles whose credentials come from somewhere else.
var others = []struct{ key, what string }{
	{"sso_session", "SSO"}, {"sso_start_url", "SSO"}, {"login_session", "a login"},
	{"credential_process", "a process"}, {"web_identity_token_file", "a token file"},
	{"role_arn", "a role"}, {"credential_source", "a role"},
}

// keys returns the keys in a profile.
func (p *profile) keys() (awsKeys, error) {
	k := awsKeys{p.values["aws_access_key_id"], p.values["aws_secret_access_key"],
		p.values["aws_session_token"]}
	const remedy = "run 'aws configure export-credentials --format env' and set the variables " +
		"that it prints"
	if k.id != "" && k.secret != "" {
		return k, nil
	}
	for _, o := range others {
		if p.values[o.key] != "" {
			return k, fmt.Errorf("profile %s has its credentials from %s (%s), which is not "+
				"supported: %s", p.name, o.what, o.key, remedy)
		}
	}
	return k, fmt.Errorf("there are no credentials for S3: set AWS_ACCESS_KEY_ID and "+
		"AWS_SECRET_ACCESS_KEY, or put them into profile %s of %s", p.name,
		strings.Join(p.files, " or "))
}

// readIni adds the values of a section of a file of AWS's tools to values. Indented lines, which
// have settings of single services, are left out.
func readIni(r io.Reader, section string, values map[string]string) error {
	lines := bufio.NewScanner(io.LimitReader(r, 1<<20))
	in := false
	for lines.Scan() {
		line := lines.Text()
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';':
		case trimmed[0] == '[':
			name, _, _ := strings.Cut(trimmed[1:], "]")
			in = strings.Join(strings.Fields(name), " ") == section
		case in && line[0] != ' ' && line[0] != '\t':
			key, value, _ := strings.Cut(trimmed, "=")
			value, _, _ = strings.Cut(strings.TrimSpace(value), " #")
			value, _, _ = strings.Cut(value, " ;")
			values[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
		}
	}
	return lines.Err()
}

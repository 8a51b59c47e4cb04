package main

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/giturl"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/source"
)

// kaniko.go translates the values of kaniko's flags to those of build.

// Variables that kaniko reads.
const (
	mirrorVariable    = "KANIKO_REGISTRY_MIRROR"
	mapVariable       = "KANIKO_REGISTRY_MAP"
	gitMethodVariable = "GIT_PULL_METHOD"
	gitTokenVariable  = "GIT_TOKEN"
	gitUserVariable   = "GIT_USERNAME"
	gitPassVariable   = "GIT_PASSWORD"
	// builderOutput is the variable for a directory in which a file gets the pushed names.
	builderOutput = "BUILDER_OUTPUT"
)

const (
	// kanikoTTL is the age of results that kaniko does not use any more.
	kanikoTTL = 14 * 24 * time.Hour
	// kanikoDockerConfig is the directory of config.json in kaniko's image.
	kanikoDockerConfig = "/kaniko/.docker"
)

const noStorage = "layerbuild does not read buckets; give a signed https URL of the archive, or " +
	"--context tar://stdin and the archive on standard input"

// kanikoContext is the value of --context as build has it.
type kanikoContext struct {
	where   string
	shown   string // the value of the flag, for messages
	fetched source.FetchedOptions
}

// parseContext parses --context, --context-sub-path and --git.
func (f *executorFlags) parseContext(e *env) (kanikoContext, error) {
	c := kanikoContext{where: string(f.context), shown: withoutUser(string(f.context))}
	fail := func(why error) (kanikoContext, error) { return c, badValue("context", c.shown, why) }
	git, err := f.gitOptions()
	if err != nil {
		return c, err
	}
	scheme, rest, hasScheme := strings.Cut(c.where, "://")
	if !hasScheme {
		scheme, rest = "dir", c.where
	}
	c.fetched.AsDirectory, c.fetched.Subdir = true, path.Clean("/" + string(f.subPath))[1:]
	switch {
	case rest == "":
		return fail(errors.New("the place after :// is missing"))
	case scheme == "dir":
		c.where = rest
		if why := checkKaniko(rest, true); why != nil {
			return fail(why)
		}
		if f.subPath != "" {
			c.where = filepath.Join(rest, c.fetched.Subdir)
			if info, err := os.Stat(c.where); err != nil || !info.IsDir() {
				return c, badValue("context-sub-path", string(f.subPath),
					errors.New("the context has no such directory"))
			}
		}
	case scheme == "tar" && rest == "stdin":
		c.where = "-"
	case scheme == "tar":
		c.where = rest
		if why := checkKaniko(rest, false); why != nil {
			return fail(why)
		}
	case scheme == "git":
		c.fetched.Repository, c.fetched.Authorization, err = git.repository(e, rest)
		if err != nil {
			return fail(err)
		}
		c.fetched.Repository.Subdir, c.where = c.fetched.Subdir, c.fetched.Repository.Remote
	case scheme == "https" || scheme == "http":
		if isAzure(c.where) {
			return fail(errors.New(noStorage))
		}
	case scheme == "s3" || scheme == "gs":
		return fail(errors.New(noStorage))
	default:
		return fail(errors.New("a directory, dir://DIR, tar://FILE, tar://stdin, " +
			"git://HOST/PATH or https://… is expected"))
	}
	return c, nil
}

// checkKaniko returns an error if a name is not that of a directory, or of an archive. Unlike those
// of build, such a context is never an address or standard input.
func checkKaniko(name string, dir bool) error {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && dir:
		return errors.New("no such directory")
	case err != nil:
		return plainError(err)
	case dir && !info.IsDir():
		return fmt.Errorf("a directory is expected; for an archive, give tar://%s", name)
	case !dir && info.IsDir():
		return fmt.Errorf("an archive is expected; for a directory, give dir://%s", name)
	}
	return nil
}

// withoutUser replaces the user and the password in an address, because either can be a token.
func withoutUser(address string) string {
	scheme, rest, ok := strings.Cut(address, "://")
	host, tail, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, '@'); i >= 0 && ok {
		return scheme + "://xxxxx@" + host[i+1:] + "/" + tail
	}
	return address
}

// isAzure reports whether a URL is that of a blob in Azure's storage without a signature.
func isAzure(address string) bool {
	u, err := url.Parse(address)
	return err == nil && strings.Contains(u.Hostname(), ".blob.") && !u.Query().Has("sig")
}

// gitOptions are the values of --git.
type gitOptions struct {
	branch     string
	submodules bool
}

func (f *executorFlags) gitOptions() (o gitOptions, err error) {
	for _, s := range f.git {
		name, value, _ := strings.Cut(s, "=")
		var is bool
		switch name {
		case "branch":
			o.branch = value
		case "recurse-submodules":
			o.submodules, err = strconv.ParseBool(value)
		case "single-branch":
			_, err = strconv.ParseBool(value)
		case "depth":
			err = wholeNumber(value)
		case "insecure-skip-tls":
			if is, err = strconv.ParseBool(value); is {
				err = errors.New("git always verifies certificates; name that of the authority " +
					"with $GIT_SSL_CAINFO")
			}
		default:
			err = errors.New("an option is branch, single-branch, depth, recurse-submodules or " +
				"insecure-skip-tls")
		}
		if errors.Is(err, strconv.ErrSyntax) {
			err = errors.New("true or false is expected")
		}
		if err != nil {
			return o, badValue("git", s, err)
		}
	}
	return o, nil
}

// repository returns the repository for [USER[:PASSWORD]@]HOST/PATH[#REF[#COMMIT]], and the header
// with the credentials in it or in the environment.
func (o gitOptions) repository(e *env, place string) (*giturl.URL, string, error) {
	method := e.getenv(gitMethodVariable)
	if method != "http" {
		method = "https"
	}
	place, fragment, _ := strings.Cut(place, "#")
	u, err := url.Parse(method + "://" + place)
	if err != nil || u.Host == "" {
		return nil, "", errors.New("git://HOST/PATH[#REF[#COMMIT]] is expected")
	}
	name, password := e.getenv(gitUserVariable), e.getenv(gitPassVariable)
	if token := e.getenv(gitTokenVariable); token != "" {
		name, password = token, ""
	}
	if u.User != nil && name+password == "" {
		name = u.User.Username()
		password, _ = u.User.Password()
	}
	header := ""
	if name+password != "" {
		header = "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
	}
	u.User = nil // the address is shown in messages
	keep := true
	g := &giturl.URL{Remote: u.String(), KeepGitDir: &keep, Submodules: &o.submodules}
	g.Ref, g.Commit, _ = strings.Cut(fragment, "#")
	g.FetchByCommit = g.Commit != ""
	if o.branch != "" && !isCommitName(g.Ref) {
		g.Ref = o.branch
	}
	if strings.HasPrefix(g.Ref, "-") {
		return nil, "", errors.New("a name cannot begin with a dash")
	}
	return g, header, nil
}

// isCommitName reports whether a reference is the full name of a commit.
func isCommitName(ref string) bool {
	return len(ref) == 40 && strings.Trim(ref, "0123456789abcdef") == ""
}

// outputs sets the flags for the image and its destinations.
func (f *executorFlags) outputs(b *buildFlags) error {
	b.tags, b.after = f.destinations, f.writeDigests
	for _, a := range f.annotations {
		if key, _, ok := strings.Cut(a, "="); !ok || key == "" {
			return badValue("annotation", a, errors.New("KEY=VALUE is expected"))
		}
		b.annotations = append(b.annotations, "manifest:"+a)
	}
	options := ",compression=" + string(f.compression)
	if f.level > 0 {
		options += ",compression-level=" + strconv.Itoa(f.level)
	}
	if f.imageFormat == "docker" {
		options += ",oci-mediatypes=false"
	}
	if _, err := export.Parse("type=image" + options); err != nil {
		// the wrapping errors name flags of build
		return badValue("compression-level", strconv.Itoa(f.level), errors.New("1 to 9 is "+
			"expected with gzip, 1 to 22 with zstd, and -1 for the usual level"))
	}
	image := "type=image"
	if !f.noPush {
		image += ",push=true"
	}
	b.outputs = []string{image + options}
	if f.tarPath != "" {
		if err := checkFile("tar-path", string(f.tarPath)); err != nil {
			return err
		}
		b.outputs = append(b.outputs, "type=docker,"+csvField("dest", f.tarPath)+options)
	}
	if f.layoutPath != "" {
		spec := export.Spec{Type: export.TypeOCI, Dest: string(f.layoutPath), Dir: true}
		if err := checkDest(spec); err != nil {
			return badValue("oci-layout-path", string(f.layoutPath), err)
		}
		b.outputs = append(b.outputs,
			"type=oci,tar=false,"+csvField("dest", f.layoutPath)+options)
	}
	return f.checkFiles()
}

// checkFiles checks the files that are written after the build.
func (f *executorFlags) checkFiles() error {
	taken := map[string]string{}
	for _, file := range [...]struct {
		flag string
		name given
	}{{"tar-path", f.tarPath}, {"digest-file", f.digestFile},
		{"image-name-with-digest-file", f.nameFile},
		{"image-name-tag-with-digest-file", f.nameTagFile}} {
		name := string(file.name)
		if strings.HasPrefix(name, "https://") {
			return badValue(file.flag, name, errors.New("the file is not sent to a server; give "+
				"a path, and send the file with curl -T"))
		}
		var err error
		if _, statErr := os.Stat(filepath.Dir(name)); errors.Is(statErr, os.ErrNotExist) {
			err = checkDest(export.Spec{Dest: filepath.Dir(name), Dir: true})
		} else if name != "" {
			err = writableFile(name)
		}
		place := realPlace(name)
		if other := taken[place]; other != "" && place != "" {
			err = fmt.Errorf("--%s writes the same file", other)
		}
		if err != nil {
			return badValue(file.flag, name, err)
		}
		taken[place] = file.flag
	}
	return nil
}

// csvField returns key=value as one field of a value that is parsed as CSV.
func csvField(key string, value given) string {
	field := key + "=" + string(value)
	if strings.ContainsAny(field, ",\"\n") {
		return `"` + strings.ReplaceAll(field, `"`, `""`) + `"`
	}
	return field
}

// cacheOptions sets the flags for results of earlier builds.
func (f *executorFlags) cacheOptions(b *buildFlags) error {
	if f.cacheRepo != "" {
		repository := strings.TrimPrefix(string(f.cacheRepo), "oci:")
		if err := reference.CheckRepository(repository); err != nil &&
			repository == string(f.cacheRepo) {
			return badValue("cache-repo", repository, errors.New("a repository without a tag, "+
				"or oci:DIR, is expected"))
		}
	}
	b.noCache = !f.cache || f.cacheTTL.given && f.cacheTTL.Duration == 0
	if !f.cache {
		return nil
	}
	b.cacheTTL = maxAge{Duration: f.cacheTTL.Duration, given: true}
	repository := f.cacheRepository()
	if repository == "" {
		return nil
	}
	from, to := "type=registry,"+csvField("ref", given(repository+":"+f.cacheTag())), ""
	if dir, ok := strings.CutPrefix(repository, "oci:"); ok {
		tag := ",tag=" + f.cacheTag()
		from = "type=local," + csvField("src", given(dir)) + tag
		to = "type=local," + csvField("dest", given(dir)) + tag
	}
	b.cacheFrom = []string{from}
	if !f.noPushCache {
		// A cache that cannot be written is a warning, as in kaniko.
		b.cacheTo = []string{cmp.Or(to, from) + ",mode=max,ignore-error=true"}
	}
	return nil
}

// cacheRepository returns the repository or the directory of results; "": there is none.
func (f *executorFlags) cacheRepository() string {
	if f.cacheRepo != "" || len(f.destinations) == 0 {
		return string(f.cacheRepo)
	}
	n, err := reference.Parse(f.destinations[0])
	if err != nil {
		return "" // resolvePush has checked the name
	}
	return n.Repository() + "/cache"
}

// cacheTag returns the tag under which results are kept. Where kaniko has a tag for each result,
// there is one for each image, target and platform, so that images with the same repository for
// their results do not replace those of each other.
func (f *executorFlags) cacheTag() string {
	tag := "latest"
	if len(f.destinations) > 0 {
		if n, err := reference.Parse(f.destinations[0]); err == nil {
			tag = n.Path
		}
	}
	for _, more := range append(f.target, string(f.platform)) {
		if more != "" {
			tag += "-" + more
		}
	}
	tag = strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9',
			r == '_', r == '.', r == '-':
			return r
		}
		return '-'
	}, tag)
	const longest = 128
	return strings.TrimLeft(tag[max(0, len(tag)-longest):], ".-")
}

// registryOptions sets the options of the client for registries.
func (f *executorFlags) registryOptions(e *env, b *buildFlags) error {
	o := &b.registry.base
	o.InsecurePull = f.registry.insecurePull || f.registry.skipTLSPull
	if f.registry.insecure || f.registry.skipTLS {
		names := f.destinations
		if repository := f.cacheRepository(); !strings.HasPrefix(repository, "oci:") &&
			repository != "" {
			names = append(names[:len(names):len(names)], repository)
		}
		for _, name := range names {
			if n, err := reference.Parse(name); err == nil {
				o.InsecureHosts = append(o.InsecureHosts, n.Domain)
			}
		}
	}
	if _, err := os.Stat(kanikoDockerConfig); err == nil && e.getenv("DOCKER_CONFIG") == "" {
		o.DockerConfig = kanikoDockerConfig
	}
	o.OnlyMirrors = f.registry.onlyMirrors
	return errors.Join(f.registry.hosts(o), f.registry.setMirrors(e, o),
		f.registry.certificates(o))
}

// hosts sets the registries without verified TLS.
func (f *executorRegistry) hosts(o *registry.Options) error {
	for _, flag := range [...]struct {
		name string
		list []string
	}{{"insecure-registry", f.insecureHosts}, {"skip-tls-verify-registry", f.skipTLSHosts}} {
		for _, host := range flag.list {
			if err := checkHost(host); err != nil {
				return badValue(flag.name, host, err)
			}
			o.InsecureHosts = append(o.InsecureHosts, hubName(host))
		}
	}
	return nil
}

// checkHost returns an error if a word is not the name of a registry.
func checkHost(host string) error {
	if (registry.Mirror{Prefix: host, Location: host}).Check() != nil ||
		strings.Contains(host, "/") {
		return errors.New("HOST[:PORT] is expected")
	}
	return nil
}

// hubName returns the name of a registry in names of images.
func hubName(host string) string {
	if host == reference.LegacyDockerHub {
		return reference.DockerHub
	}
	return host
}

// setMirrors sets the mirrors of flags and variables.
func (f *executorRegistry) setMirrors(e *env, o *registry.Options) error {
	add := func(prefix, location string) error {
		m := registry.Mirror{Prefix: hubName(prefix), Location: location}
		o.Mirrors = append(o.Mirrors, m)
		return m.Check()
	}
	addMap := func(list string) error {
		for s := range strings.SplitSeq(strings.Trim(list, ";"), ";") {
			from, to, ok := strings.Cut(s, "=")
			if !ok {
				return errors.New("HOST=HOST[/PATH] is expected")
			}
			if err := add(from, to); err != nil {
				return err
			}
		}
		return nil
	}
	for _, s := range f.maps {
		if err := addMap(s); err != nil {
			return badValue("registry-map", s, err)
		}
	}
	if s := e.getenv(mapVariable); s != "" {
		if err := addMap(s); err != nil {
			return fmt.Errorf("%s %q: %w", mapVariable, s, err)
		}
	}
	for _, s := range f.mirrors {
		if err := add(reference.DockerHub, s); err != nil {
			return badValue("registry-mirror", s, errors.New("HOST[:PORT][/PATH] is expected"))
		}
	}
	if s := e.getenv(mirrorVariable); s != "" {
		if err := add(reference.DockerHub, s); err != nil {
			return fmt.Errorf("%s %q: HOST[:PORT][/PATH] is expected", mirrorVariable, s)
		}
	}
	return nil
}

// certificates sets the certificates of registries.
func (f *executorRegistry) certificates(o *registry.Options) error {
	for _, s := range f.certs {
		host, file, _ := strings.Cut(s, "=")
		if err := errors.Join(checkHost(host), readableFile(file)); err != nil {
			return badValue("registry-certificate", s, firstOf(err))
		}
		o.Certificates = append(o.Certificates,
			registry.Certificate{Host: hubName(host), Authorities: file})
	}
	for _, s := range f.clientCerts {
		host, files, _ := strings.Cut(s, "=")
		file, key, ok := strings.Cut(files, ",")
		if !ok {
			return badValue("registry-client-cert", s, errors.New("HOST=FILE,KEY is expected"))
		}
		if err := errors.Join(checkHost(host), readableFile(file), readableFile(key)); err != nil {
			return badValue("registry-client-cert", s, firstOf(err))
		}
		o.Certificates = append(o.Certificates,
			registry.Certificate{Host: hubName(host), Client: file, Key: key})
	}
	return nil
}

// firstOf returns the first of joined errors.
func firstOf(err error) error {
	if list, ok := err.(interface{ Unwrap() []error }); ok && len(list.Unwrap()) > 0 {
		return list.Unwrap()[0]
	}
	return err
}

// names returns a line NAME@DIGEST or NAME:TAG@DIGEST for each destination. As in kaniko, Docker
// Hub has its old name.
func (f *executorFlags) names(digest string, withTag bool) string {
	var b strings.Builder
	for _, name := range f.destinations {
		n, err := reference.Full(name)
		if err != nil {
			continue // resolvePush has checked the name
		}
		if n.Domain == reference.DockerHub {
			n.Domain = reference.LegacyDockerHub
		}
		b.WriteString(n.Repository())
		if withTag {
			b.WriteString(":" + n.Tag)
		}
		b.WriteString("@" + digest + "\n")
	}
	return b.String()
}

// builderOutputFile returns the file for the names that were pushed; "": there is none.
func (f *executorFlags) builderOutputFile(e *env) string {
	dir := e.getenv(builderOutput)
	if dir == "" || f.noPush {
		return ""
	}
	return filepath.Join(dir, "images")
}

func (f *executorFlags) checkBuilderOutput(e *env) error {
	name := f.builderOutputFile(e)
	if name == "" {
		return nil
	}
	if err := writableFile(name); err != nil {
		return fmt.Errorf("%s %q: %w", builderOutput, e.getenv(builderOutput), err)
	}
	return nil
}

// writeBuilderOutput writes the names that were pushed to the directory of $BUILDER_OUTPUT.
func (f *executorFlags) writeBuilderOutput(e *env, digest string) error {
	file := f.builderOutputFile(e)
	if file == "" {
		return nil
	}
	var b bytes.Buffer
	for _, name := range f.destinations {
		line, err := json.Marshal(struct {
			Name   string `json:"name"`
			Digest string `json:"digest"`
		}{name, digest})
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	if err := atomicfile.WriteFile(file, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("%s: %w", builderOutput, err)
	}
	return nil
}

// writeNewFile writes a file, and makes the directory in which it is.
func writeNewFile(name, text string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return atomicfile.WriteFile(name, []byte(text), 0o644)
}

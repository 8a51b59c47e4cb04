package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/spf13/pflag"
)

// executorFlags are the flags of the executor verb, as given: those of kaniko's executor.
type executorFlags struct {
	state  stateFlags
	others otherValues

	dockerfile, context, subPath, platform, cacheRepo given
	target, git, buildArgs, labels, annotations       []string
	secrets, destinations                             []string
	noPush, noPushCache, cache, reproducible          bool
	cacheTTL                                          maxAge
	tarPath, layoutPath, imageFormat, compression     given
	level                                             int
	digestFile, nameFile, nameTagFile                 given
	registry                                          executorRegistry
}

// executorRegistry are kaniko's flags for the access to registries.
type executorRegistry struct {
	insecure, insecurePull, skipTLS, skipTLSPull, onlyMirrors bool
	insecureHosts, skipTLSHosts, mirrors, maps, certs         []string
	clientCerts                                               []string
}

func executorVerb() verb {
	return verb{
		name:    "executor",
		summary: "build an image with the command line of kaniko",
		notes: `The flags are those of kaniko's executor. If the program is started with the name executor, this is its
only verb: a link /kaniko/executor to layerbuild takes the place of kaniko. docs/FROM_KANIKO.md has what differs.`,
		moreNotes: func() string { return notesOn(executorOthers[:], "kaniko", "the image") },
		examples: []example{
			{"layerbuild executor --context dir://. --destination registry.example.com/app",
				"build and push"},
			{"layerbuild executor -c . --no-push --tar-path app.tar -d app",
				"write an archive for docker load"},
			{"layerbuild executor -c . -d registry.example.com/app --cache --cache-ttl 72h",
				"keep results of steps in registry.example.com/app/cache"},
		},
		common: []string{"context", "dockerfile", "destination", "build-arg", "target", "cache",
			"cache-repo", "no-push", "tar-path", "digest-file", "custom-platform", "insecure",
			"registry-mirror"},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f executorFlags
			f.define(fs)
			return f.prepare
		},
		withOthers: func(fs *pflag.FlagSet) prepareFunc {
			var f executorFlags
			f.define(fs)
			f.others.define(fs, executorOthers[:])
			return f.prepare
		},
	}
}

func (f *executorFlags) define(fs *pflag.FlagSet) {
	fs.SetNormalizeFunc(normalName)
	f.state.define(fs)
	group(fs, "Inputs", f.defineInputs)
	group(fs, "Outputs", f.defineOutputs)
	group(fs, "Cache", f.defineCache)
	group(fs, "Registries", f.registry.define)
}

func (f *executorFlags) defineInputs(fs *pflag.FlagSet) {
	f.context = "/workspace/"
	fs.VarP(&f.context, "context", "c", "`WHERE` build context\n"+
		"WHERE is a directory (DIR or dir://DIR), an archive (tar://FILE, tar://stdin or "+
		"https://…), or a git repository: git://HOST/PATH[#REF[#COMMIT]], which is fetched "+
		"with https, or with http if $GIT_PULL_METHOD is http.")
	fs.VarP(&f.dockerfile, "dockerfile", "f", "`FILE` Dockerfile\n"+
		"The path is relative to the current directory or else to the context. Without the flag "+
		"it is Dockerfile.")
	fs.Var(&f.subPath, "context-sub-path", "`DIR` use a directory of the context as the context")
	fs.Var((*list)(&f.git), "git", "`NAME=VALUE` option for a git context\n"+
		"branch=NAME selects a branch or a tag, and recurse-submodules=true fetches submodules. "+
		"single-branch and depth have no effect: only one commit is fetched.")
	fs.Var((*list)(&f.buildArgs), "build-arg", "`NAME=VALUE` value of an ARG\n"+
		"NAME alone takes its value from the environment, and is empty if it is not set there.")
	fs.Var((*list)(&f.target), "target", "`STAGE` stage to build (default: the last)")
	fs.Var(&f.platform, "custom-platform", "`OS/ARCH` platform to build for\n"+
		"Without the flag it is $DOCKER_DEFAULT_PLATFORM, or else the platform of this machine.")
	fs.Var((*list)(&f.secrets), "secret",
		"`id=ID[,src=FILE|,env=VAR]` secret for RUN --mount=type=secret")
}

func (f *executorFlags) defineOutputs(fs *pflag.FlagSet) {
	fs.VarP((*list)(&f.destinations), "destination", "d", "`NAME[:TAG]` name to push to")
	fs.BoolVar(&f.noPush, "no-push", false, "do not push the image")
	fs.Var(&f.tarPath, "tar-path", "`FILE` write an archive for docker load")
	fs.Var(&f.layoutPath, "oci-layout-path", "`DIR` write an OCI image layout")
	fs.Var((*list)(&f.labels), "label", "`KEY=VALUE` label of the image")
	fs.Var((*list)(&f.annotations), "annotation", "`KEY=VALUE` annotation of the manifest")
	fs.Var(newChoice((*string)(&f.imageFormat), "oci", "oci", "docker"), "image-format",
		"media types of the image")
	fs.Var(newChoice((*string)(&f.compression), "gzip", "gzip", "zstd"), "compression",
		"compression of layers")
	fs.IntVar(&f.level, "compression-level", -1, "`N` level of compression, or -1")
	fs.BoolVar(&f.reproducible, "reproducible", false, "set all times of the image to 1970\n"+
		"It is the same as --build-arg SOURCE_DATE_EPOCH=0, if there is no other value.")
	fs.Var(&f.digestFile, "digest-file", "`FILE` write the digest of the image to a file")
	fs.Var(&f.nameFile, "image-name-with-digest-file",
		"`FILE` write NAME@DIGEST of all destinations")
	fs.Var(&f.nameTagFile, "image-name-tag-with-digest-file",
		"`FILE` write NAME:TAG@DIGEST of all destinations")
}

func (f *executorFlags) defineCache(fs *pflag.FlagSet) {
	fs.BoolVar(&f.cache, "cache", false, "use results of earlier builds\n"+
		"Without the flag every step runs again.")
	fs.Var(&f.cacheRepo, "cache-repo", "`REPOSITORY` place of the results\n"+
		"REPOSITORY has no tag, or is oci:DIR for a directory. Without the flag it is the "+
		"repository of the first destination with /cache after it.")
	f.cacheTTL = maxAge{Duration: kanikoTTL}
	fs.Var(&f.cacheTTL, "cache-ttl", "`TIME` do not use older results\n"+
		"Without the flag it is 336h, two weeks.")
	fs.BoolVar(&f.noPushCache, "no-push-cache", false, "do not write results to the repository")
}

func (f *executorRegistry) define(fs *pflag.FlagSet) {
	fs.BoolVar(&f.insecure, "insecure", false, "allow plain http for destinations\n"+
		"Plain http, and TLS without verification, are one permission: --skip-tls-verify is the "+
		"same as --insecure, and so are the other pairs. They apply to the cache, too.")
	fs.BoolVar(&f.skipTLS, "skip-tls-verify", false, "the same as --insecure")
	fs.BoolVar(&f.insecurePull, "insecure-pull", false, "allow plain http for base images")
	fs.BoolVar(&f.skipTLSPull, "skip-tls-verify-pull", false, "the same as --insecure-pull")
	fs.Var((*list)(&f.insecureHosts), "insecure-registry",
		"`HOST[:PORT]` allow plain http for a registry")
	fs.Var((*list)(&f.skipTLSHosts), "skip-tls-verify-registry",
		"`HOST[:PORT]` the same as --insecure-registry")
	fs.Var((*list)(&f.mirrors), "registry-mirror", "`HOST[/PATH]` mirror of Docker Hub\n"+
		"Mirrors are asked in their order, and then the registry. The mirror of "+
		"$KANIKO_REGISTRY_MIRROR is asked after those of flags.")
	fs.Var((*list)(&f.maps), "registry-map",
		"`HOST=HOST[/PATH];…` mirrors of registries\n"+
			"The mirrors of $KANIKO_REGISTRY_MAP are asked after those of flags.")
	fs.BoolVar(&f.onlyMirrors, "skip-default-registry-fallback", false,
		"do not ask a registry that has mirrors")
	fs.Var((*list)(&f.certs), "registry-certificate",
		"`HOST=FILE` authorities for a registry\n"+
			"The file has certificates in the PEM format, which are trusted besides those of the "+
			"system.")
	fs.Var((*list)(&f.clientCerts), "registry-client-cert",
		"`HOST=FILE,KEY` client certificate for a registry")
}

// prepare checks the command line, and prepares the build that it describes.
func (f *executorFlags) prepare(e *env, args []string) (runFunc, error) {
	if len(args) > 0 {
		return nil, executorArgument(args)
	}
	b, where, err := f.build(e)
	if err != nil {
		return nil, err
	}
	return b.prepare(e, []string{where})
}

// executorArgument returns the error for a word that is not a flag.
func executorArgument(args []string) error {
	switch args[0] {
	case "push":
		return errors.New("push: give layerbuild copy docker-archive:FILE docker://NAME, or " +
			"oci:DIR in place of the file")
	case "bake":
		return errors.New("bake: give layerbuild bake, with a file of docker buildx bake")
	case "true", "false":
		return fmt.Errorf("%s: a boolean flag takes its value after an equals sign, as in "+
			"--cache=%[1]s", args[0])
	}
	return noArgs(args)
}

// build returns the flags of a build that has the same result, and its context.
func (f *executorFlags) build(e *env) (*buildFlags, string, error) {
	b := &buildFlags{ignorePolicy: true, mountsLimit: mountsLimit}
	b.define(newFlagSet(buildVerb()))
	b.state, b.others = f.state, f.others
	b.buildArgs, b.labels, b.secrets = nil, f.labels, f.secrets
	if err := f.resolvePush(e); err != nil {
		return nil, "", err
	}
	where, err := f.inputs(e, b)
	if err != nil {
		return nil, "", err
	}
	return b, where, errors.Join(f.outputs(b), f.checkBuilderOutput(e), f.cacheOptions(b),
		f.registryOptions(e, b))
}

// noPushVariable is the variable of kaniko that replaces --no-push.
const noPushVariable = "KANIKO_NO_PUSH"

// resolvePush applies the variable, and checks that there is something to push to.
func (f *executorFlags) resolvePush(e *env) error {
	if s := e.getenv(noPushVariable); s != "" {
		is, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%s %q: true or false is expected", noPushVariable, s)
		}
		f.noPush = is
	}
	for _, name := range f.destinations {
		if err := checkNewName(name); err != nil {
			return badValue("destination", name, err)
		}
	}
	switch {
	case len(f.destinations) > 0:
	case !f.noPush:
		return errors.New("--destination is missing; give the name to push to, or --no-push")
	case f.nameFile != "" || f.nameTagFile != "":
		return errors.New("--destination is missing; the files of names need one")
	case f.cache && f.cacheRepo == "" && !f.noPushCache:
		return errors.New("--cache: without --destination the repository is not known; give " +
			"--cache-repo")
	}
	return nil
}

// inputs sets the flags for the context, the Dockerfile and what it refers to.
func (f *executorFlags) inputs(e *env, b *buildFlags) (where string, err error) {
	c, err := f.parseContext(e)
	if err != nil {
		return "", err
	}
	b.file, b.fetched, b.pull = oneFile(f.dockerfile), c.fetched, "always"
	if b.file == "" {
		if _, err := os.Stat("Dockerfile"); err == nil {
			b.file = "Dockerfile"
		}
	}
	o := source.Options{Stdin: e.stdin, Dockerfile: string(b.file), Fetched: c.fetched}
	if err := source.Check(c.where, o); err != nil {
		return "", badValue("context", c.shown, err)
	}
	if b.file != "" {
		if err := source.CheckDockerfile(c.where, o); err != nil {
			return "", badValue("dockerfile", string(b.file), err)
		}
	}
	for _, a := range f.buildArgs {
		if name, _, ok := strings.Cut(a, "="); !ok && name != "" {
			a = name + "=" + e.getenv(name)
		}
		b.buildArgs = append(b.buildArgs, a)
	}
	switch len(f.target) {
	case 0:
	case 1:
		b.target = f.target[0]
	default:
		return "", badValue("target", f.target[1], errors.New("one target is expected; for "+
			"several, write a file for layerbuild bake"))
	}
	if f.platform != "" {
		if _, err := parsePlatform(string(f.platform)); err != nil {
			return "", badValue("custom-platform", string(f.platform), err)
		}
		b.platforms = []string{string(f.platform)}
	}
	if f.reproducible && e.getenv(parser.EpochArg) == "" && !hasArg(f.buildArgs, parser.EpochArg) {
		b.timestamp = "0"
	}
	return c.where, nil
}

// hasArg reports whether a build argument has a value.
func hasArg(list []string, name string) bool {
	for _, a := range list {
		if key, _, _ := strings.Cut(a, "="); key == name {
			return true
		}
	}
	return false
}

// writeDigests writes the files with the digest of the image.
func (f *executorFlags) writeDigests(e *env, res *imagebuild.Result) error {
	digest := res.Metadata.Digest.String()
	files := []struct {
		flag string
		name given
		text string
	}{
		{"digest-file", f.digestFile, digest},
		{"image-name-with-digest-file", f.nameFile, f.names(digest, false)},
		{"image-name-tag-with-digest-file", f.nameTagFile, f.names(digest, true)},
	}
	for _, file := range files {
		if file.name == "" {
			continue
		}
		if err := writeNewFile(string(file.name), file.text); err != nil {
			return fmt.Errorf("--%s: %w", file.flag, err)
		}
	}
	return f.writeBuilderOutput(e, digest)
}

// isExecutor reports whether a program name is that of kaniko's program.
func isExecutor(name string) bool { return filepath.Base(name) == "executor" }

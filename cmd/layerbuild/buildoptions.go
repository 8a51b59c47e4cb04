package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/parser"
)

// options returns the build's options for the flags.
func (f *buildFlags) options(e *env, args []string) (imagebuild.Options, error) {
	var o imagebuild.Options
	if err := oneContext(args); err != nil {
		return o, err
	}
	o.Source.Context, o.Source.Dockerfile, o.Source.Stdin = args[0], string(f.file), e.stdin
	o.Image.Names, o.Image.Labels, o.Target = f.tags, f.labels, f.target
	if err := f.resolvePull(); err != nil {
		return o, err
	}
	o.Pull, o.NoPull = f.pull == "always", f.pull == "never"
	o.Cache.No, o.Cache.NoStages, o.Cache.Sync = f.noCache || !f.layers, f.noCacheFilter, f.sync
	o.Cache.MaxAge = f.cacheTTL.Duration
	o.Cache.No = o.Cache.No || f.cacheTTL.given && f.cacheTTL.Duration == 0
	o.Source.Fetched = f.fetched
	o.Run.Network, o.Jobs = f.network, f.jobs
	o.Lint.Experimental = f.lintExperimental
	o.CheckLayers = e.getenv(checkLayers) == "1"
	var err error
	if f.jobs < 0 {
		err = badValue("jobs", strconv.Itoa(f.jobs), errors.New("a number is expected, 0 or more"))
	}
	steps := []func(*imagebuild.Options, *env) error{f.sources, f.sourcePolicy, f.args, f.action,
		f.cache, f.sharedCaches, f.copiedMounts, f.runOptions,
		f.access, f.attestations, f.output, f.imageOptions}
	for _, step := range steps {
		err = errors.Join(err, step(&o, e))
	}
	return o, err
}

// sourcePolicyVariable names a file with a policy for the sources of a build.
const sourcePolicyVariable = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"

// sourcePolicy refuses a build with a policy for its sources that buildx would obey. The only value
// of --policy that is not refused disables the policies.
func (f *buildFlags) sourcePolicy(o *imagebuild.Options, e *env) error {
	if f.ignorePolicy || f.others.given("policy") {
		return nil
	}
	o.Source.RefusePolicy = true
	// As in buildx, another value than those of a boolean is the same as none.
	if is, _ := strconv.ParseBool(e.getenv(defaultPolicyVariable)); is {
		o.Source.Accept = acceptByDefault
	}
	if file := e.getenv(sourcePolicyVariable); file != "" {
		return usageError{fmt.Errorf("$%s names %s: %w", sourcePolicyVariable, file,
			imagebuild.ErrPolicy)}
	}
	return nil
}

// defaultPolicyVariable enables the policy that is part of buildx.
const defaultPolicyVariable = "BUILDX_DEFAULT_POLICY"

// signedRepositories are the repositories for whose tags that policy requires signatures. They have
// frontends, which layerbuild never runs, the scanner of packages, and BuildKit itself.
var signedRepositories = []string{"docker.io/docker/dockerfile",
	"docker.io/docker/dockerfile-upstream", "docker.io/docker/buildkit-syft-scanner",
	"docker.io/moby/buildkit"}

// acceptByDefault returns an error for a tag that buildx would verify. As in buildx, digests
// without a tag are accepted.
func acceptByDefault(ref string) error {
	n, err := reference.Parse(ref)
	n = n.OrLatest()
	if err != nil || n.Tag == "" || !slices.Contains(signedRepositories, n.Repository()) {
		return nil // a name that is not valid is an error elsewhere
	}
	repository := n
	repository.Tag, repository.Digest = "", ""
	return fmt.Errorf("image %s: $%s requires a signature, and layerbuild does not check any; "+
		"name the image by its digest, %s@sha256:…, or unset the variable", n.Familiar(),
		defaultPolicyVariable, repository.Familiar())
}

// checkLayers is the variable that makes a build check its layers.
const checkLayers = "LAYERBUILD_CHECK_LAYERS"

// args parses the build arguments.
func (f *buildFlags) args(o *imagebuild.Options, e *env) error {
	o.Args = map[string]string{}
	fromFiles, err := readVariableFiles("build-arg-file", f.argFiles)
	if err != nil {
		return err
	}
	for _, a := range append(fromFiles, f.buildArgs...) {
		name, value, ok := strings.Cut(a, "=")
		if name == "" || strings.ContainsAny(name, " \t\n") {
			return badValue("build-arg", a,
				errors.New("NAME=VALUE is expected, or NAME for a variable of the environment"))
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue // the variable is not set: the ARG keeps its default, as in docker
			}
		}
		if err := imagebuild.CheckArg(name, value); err != nil {
			return badValue("build-arg", name+"="+value, err)
		}
		o.Args[name] = value
	}
	for _, flag := range [...]struct {
		name  string
		value given
	}{{"timestamp", f.timestamp}, {"source-date-epoch", f.sourceDateEpoch}} {
		if err := setTimestamp(o, string(flag.value)); err != nil {
			return badValue(flag.name, string(flag.value), err)
		}
	}
	if epoch := o.Args[parser.EpochArg]; !mayBeSource(o, epoch) {
		if _, err := parser.ParseEpoch(epoch); err != nil {
			return badValue("build-arg", parser.EpochArg+"="+epoch, err)
		}
	}
	if rules, ok := o.Args[parser.LintArg]; ok {
		if _, err := parser.ParseLintOptions(rules); err != nil {
			return badValue("build-arg", parser.LintArg+"="+rules,
				fmt.Errorf("%w (known: skip=RULE,…|all;experimental=RULE,…|all;error=true)", err))
		}
	}
	return nil
}

// setTimestamp makes the value of --timestamp the epoch, unless it is "".
func setTimestamp(o *imagebuild.Options, value string) error {
	if value == "" {
		return nil
	}
	if _, err := parser.ParseEpoch(value); err != nil {
		return err
	}
	if have, ok := o.Args[parser.EpochArg]; ok && have != value {
		return fmt.Errorf("--build-arg has %s=%s", parser.EpochArg, have)
	}
	o.Args[parser.EpochArg] = value
	return nil
}

// mayBeSource reports whether a value of SOURCE_DATE_EPOCH may be the name of a context or of a
// stage. Names of stages begin with a letter. Only the plan knows them.
func mayBeSource(o *imagebuild.Options, epoch string) bool {
	return o.Source.Contexts[epoch] != "" ||
		epoch != "" && 'a' <= epoch[0]|0x20 && epoch[0]|0x20 <= 'z'
}

// cache parses the places for importing and exporting step results.
func (f *buildFlags) cache(o *imagebuild.Options, _ *env) error {
	for _, s := range cachePlaces(f.cacheFrom) {
		p, err := remotecache.ParseFrom(s)
		if err != nil {
			return err
		}
		if err := checkCacheRef(p); err != nil {
			return badValue("cache-from", s, err)
		}
		if p.Insecure {
			// The option applies to the server: the layers of the cache are fetched from it later.
			n, _ := reference.Parse(p.Ref) // checked above
			f.state.registry.InsecureHosts = append(f.state.registry.InsecureHosts, n.Domain)
		}
		o.Cache.From = append(o.Cache.From, p)
	}
	for _, s := range f.cacheTo {
		p, err := remotecache.ParseTo(s)
		if err != nil {
			return err
		}
		if err := checkCacheRef(p); err != nil {
			return badValue("cache-to", s, err)
		}
		if fi, err := os.Stat(p.Dir); err == nil && !fi.IsDir() && !p.IgnoreError {
			return badValue("cache-to", s, errors.New("dest is a file; a directory is expected"))
		}
		o.Cache.To = append(o.Cache.To, p)
	}
	return nil
}

// cachePlaces splits values with several names. As in buildx, commas separate names, unless they
// separate the keys of one place.
func cachePlaces(values []string) []string {
	var list []string
	for _, s := range values {
		if strings.Contains(s, "=") {
			list = append(list, s)
			continue
		}
		list = append(list, strings.Split(s, ",")...)
	}
	return list
}

// checkCacheRef checks the name of an image that holds step results.
func checkCacheRef(p remotecache.Place) error {
	if p.Ref == "" {
		return nil
	}
	_, err := reference.Parse(p.Ref)
	return err
}

// imageOptions parses the options for the image's configuration.
func (f *buildFlags) imageOptions(o *imagebuild.Options, e *env) error {
	var err error
	if o.Platforms, err = platforms(e, f.platforms); err != nil {
		return err
	}
	for _, a := range f.annotations {
		list, err := parseAnnotation(a)
		if err != nil {
			return err
		}
		o.Image.Annotations = append(o.Image.Annotations, list...)
	}
	for _, l := range f.labels {
		if strings.HasPrefix(l, "=") || l == "" {
			return badValue("label", l, errors.New("KEY=VALUE is expected"))
		}
	}
	// As in buildx, the variable sets the build argument, so that an ARG of that name has its
	// value, too.
	epoch := e.getenv(parser.EpochArg)
	if _, ok := o.Args[parser.EpochArg]; !ok && epoch != "" {
		if _, err := parser.ParseEpoch(epoch); err != nil && !mayBeSource(o, epoch) {
			return err
		}
		o.Args[parser.EpochArg] = epoch
	}
	return f.outputEpochs(o)
}

// outputEpochs makes the epoch of an output the epoch of the build. The steps run once, for all
// outputs, and their layers have the times of one epoch.
func (f *buildFlags) outputEpochs(o *imagebuild.Options) error {
	for i, s := range f.outputs {
		if i >= len(o.Outputs) { // an output is wrong
			return nil
		}
		if o.Outputs[i].Epoch == nil {
			continue
		}
		epoch := strconv.FormatInt(*o.Outputs[i].Epoch, 10)
		if have, ok := o.Args[parser.EpochArg]; ok && have != epoch {
			return badValue("output", s, fmt.Errorf("%s is %q for the build, and all outputs of a "+
				"build have the same", parser.EpochArg, have))
		}
		if _, err := parser.ParseEpoch(epoch); err != nil {
			return badValue("output", s, err)
		}
		o.Args[parser.EpochArg] = epoch
	}
	return nil
}

// parseAnnotation reads [TARGET[PLATFORM],…:]KEY=VALUE, where a target is manifest, index or one of
// their descriptors.
func parseAnnotation(s string) ([]export.Annotation, error) {
	key, value, ok := strings.Cut(s, "=")
	targets := string(export.Manifest)
	if before, after, found := strings.Cut(key, ":"); found {
		targets, key = before, after
	}
	if !ok || key == "" {
		return nil, badValue("annotation", s, errors.New("[TARGET:]KEY=VALUE is expected"))
	}
	var list []export.Annotation
	for target := range strings.SplitSeq(targets, ",") {
		a := export.Annotation{Key: key, Value: value}
		if i := strings.IndexByte(target, '['); i > 0 && strings.HasSuffix(target, "]") {
			target, a.Platform = target[:i], target[i+1:len(target)-1]
		}
		if a.Target = export.Target(target); !export.IsTarget(target) {
			return nil, badValue("annotation", s,
				errors.New("a target is manifest, index, manifest-descriptor or index-descriptor"))
		}
		list = append(list, a)
	}
	return list, nil
}

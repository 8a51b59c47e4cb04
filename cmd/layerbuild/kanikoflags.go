package main

import (
	"errors"
	"slices"

	"github.com/spf13/pflag"
)

// Reasons that several flags of kaniko have.
const (
	byContent = "what a step has changed is always found by comparing content"
	ownFiles  = "steps do not change the files of layerbuild or of its container"
	noIgnored = "the files of layerbuild and of its container are not in the root of a command; " +
		"for a path that a command writes and the image must not have, write RUN " +
		"--mount=type=tmpfs,target=PATH"
	allCached = "the results of all steps are cached"
)

// executorOthers are the flags of kaniko that have no effect, or are refused, in the order of their
// names. Together with the flags that executorVerb defines they are all flags of kaniko.
var executorOthers = [...]otherFlag{
	{name: "bucket", short: "b", value: "NAME", effect: refused, why: noStorage},
	{name: "cache-copy-layers", why: allCached},
	{name: "cache-dir", value: "DIR", why: "base images are kept in the state directory (--root)"},
	{name: "cache-run-layers", effect: refused, harmless: isTrue,
		why: allCached + "; leave --cache out to run all"},
	{name: "cleanup", why: ownFiles},
	{name: "compressed-caching",
		why: "layers are compressed as streams, so that the memory does not grow with them"},
	{name: "credential-helpers", value: "NAME", effect: noted, harmless: []string{""},
		why: "the helpers that config.json names are used, such as docker-credential-ecr-login"},
	{name: "dryrun", effect: refused, harmless: isFalse,
		why: "give layerbuild build --check or --call outline"},
	{name: "force", why: "steps run in namespaces of their own, outside of a container too"},
	{name: "force-build-metadata", why: "instructions that change no file are in the history of " +
		"the image, without a layer"},
	{name: "ignore-path", value: "PATH", effect: noted, why: noIgnored},
	{name: "ignore-var-run", effect: noted, harmless: isFalse, why: noIgnored},
	{name: "image-download-retry", value: "N", why: ownRetries, check: wholeNumber},
	{name: "image-fs-extract-retry", value: "N", why: ownRetries, check: wholeNumber},
	{name: "kaniko-dir", value: "DIR",
		why: "layerbuild has no files of its own in the root of a command"},
	{name: "log-format", value: "FORMAT", check: oneOf("text", "color", "json"),
		why: "the progress is printed as by build, and $" + progressVariable +
			" selects another display"},
	{name: "log-timestamp", why: "the progress has the time of each step"},
	{name: "materialize", effect: refused, harmless: isFalse, why: "the root of this machine is " +
		"not changed; layerbuild build -o DIR writes the files of the image to a directory"},
	{name: "pre-cleanup", why: ownFiles},
	{name: "preserve-context", why: ownFiles},
	{name: "push-ignore-immutable-tag-errors", effect: refused, harmless: isFalse,
		why: "a tag that cannot be pushed is an error; look whether it exists with " +
			"layerbuild inspect docker://NAME"},
	{name: "push-retry", value: "N", why: ownRetries, check: wholeNumber},
	{name: "single-snapshot", effect: noted, harmless: isFalse, why: noSquash},
	{name: "skip-push-permission-check", why: "the build does not ask for this permission before " +
		"it pushes"},
	{name: "skip-unused-stages", effect: refused, harmless: isTrue,
		why: "only the stages that the target needs are built; build others with --target"},
	{name: "snapshot-mode", value: "MODE", why: byContent, check: oneOf("full", "redo", "time")},
	{name: "upload-tar", value: "URL", effect: refused,
		why: "give --tar-path FILE, and send the file with curl"},
	{name: "upload-tar-retry", value: "N", why: "it changes only --upload-tar",
		check: wholeNumber},
	{name: "use-new-run", why: byContent},
	{name: "verbosity", short: "v", value: "LEVEL",
		check: oneOf("trace", "debug", "info", "warn", "error", "fatal", "panic"),
		why: "there is one log, with all that commands print; $" + progressVariable +
			" selects another display"},
}

// executorAliases are other names of flags of kaniko.
var executorAliases = map[string]string{"customPlatform": "custom-platform",
	"snapshotMode": "snapshot-mode", "tarPath": "tar-path", "whitelist-var-run": "ignore-var-run"}

// normalName returns the name of a flag of kaniko that may be an alias.
func normalName(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if other, ok := executorAliases[name]; ok {
		name = other
	}
	return pflag.NormalizedName(name)
}

// oneOf returns a check for a flag with a fixed set of values.
func oneOf(values ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(values, s) {
			return errors.New(orList(values) + " is expected")
		}
		return nil
	}
}

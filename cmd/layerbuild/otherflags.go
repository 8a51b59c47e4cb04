package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/units"
	"github.com/spf13/pflag"
)

// otherFlag is a flag of docker build, docker buildx build, buildah build, podman build, kaniko,
// docker run or podman run that is not in the help of a verb: one that has no effect here, or is
// refused. The tables otherFlags, executorOthers and runOthers determine how these flags are
// parsed, their messages, and docs/CLI.md.
type otherFlag struct {
	name, short string
	value       string // the placeholder; "" for a boolean flag
	effect      effect
	// harmless holds the values for which nothing is lost whatever the effect of others is, each
	// for the whole value or for one of its items, which commas separate.
	harmless []string
	why      string
	check    func(string) error // nil: every value is valid
}

// effect is the effect of a flag of another program.
type effect int

const (
	ignored effect = iota // no effect, and nothing is lost
	noted                 // no effect, and one line on standard error names the reason
	refused
)

// Reasons that several flags have. Flags with the same reason have one line.
const (
	noLimits = "commands run with the limits of layerbuild itself; to set some, start it with " +
		"systemd-run --scope -p MemoryMax=2G -p CPUQuota=50%"
	noContainers = "no container of a step is left, whether the step succeeds or fails"
	noSquash     = "every step keeps its layer; -o type=image,prune-dead=true leaves dead bytes " +
		"out, and a last stage with one COPY --from has one layer"
	onePlatform   = "give the platform in one word, such as --platform linux/arm64"
	ownHostname   = "the /etc/hostname of commands is that of the image, if it has one"
	ownNamespaces = "commands always have namespaces of their own"
	ownRuntime    = "commands are started without an OCI runtime"
	ownRetries    = "requests to registries that fail are always sent again, up to five times"
	subordinate   = "ids are mapped as /etc/subuid and /etc/subgid have them"
	environment   = "the variables of an image are those of its ENV instructions"
	noStages      = "no image of a stage is made; give --target STAGE -t NAME for one"
	ownScanner    = "give --sbom generator=IMAGE for a scanner that is an image, or print the " +
		"packages with layerbuild sbom"
	inOutput = "it is an option of an output: -o type=image,"
)

var isTrue, isFalse = []string{"true"}, []string{"false"}

// otherFlags are the flags of build of other programs, in the order of their names.
var otherFlags = [...]otherFlag{
	{name: "all-platforms", effect: refused, harmless: isFalse,
		why: "list the platforms with --platform"},
	{name: "arch", value: "ARCH", effect: refused, why: onePlatform},
	{name: "blob-cache", value: "DIR", why: "blobs are kept in the state directory (--root)"},
	{name: "builder", value: "NAME",
		why: "there are no builders: layerbuild runs the steps itself"},
	{name: "cdi-config-dir", value: "DIR", effect: refused,
		why: "give --cdi-spec-dir DIR, once for each directory"},
	{name: "cgroup-parent", value: "NAME", effect: noted,
		why: "commands run in the control group of layerbuild"},
	{name: "cgroupns", value: "WHICH", effect: refused, harmless: []string{"private"},
		why: ownNamespaces},
	{name: "compat-volumes", effect: refused, harmless: isFalse,
		why: "what a RUN changes below a VOLUME stays in the image, as in BuildKit"},
	{name: "compress", why: "the context is read in its place, and sent nowhere"},
	{name: "compression-format", value: "FORMAT", effect: refused, harmless: []string{"gzip"},
		why: inOutput + "compression=zstd"},
	{name: "compression-level", value: "N", effect: refused,
		why: inOutput + "compression=gzip,compression-level=9"},
	{name: "cpp-flag", value: "FLAG", effect: refused,
		why: "layerbuild does not run the C preprocessor; run cpp, and build with -f -"},
	{name: "cpu-period", value: "N", effect: noted, why: noLimits, check: wholeNumber},
	{name: "cpu-quota", value: "N", effect: noted, why: noLimits, check: wholeNumber},
	{name: "cpu-shares", short: "c", value: "N", effect: noted, why: noLimits, check: wholeNumber},
	{name: "cpuset-cpus", value: "LIST", effect: noted, why: noLimits},
	{name: "cpuset-mems", value: "LIST", effect: noted, why: noLimits},
	{name: "created-annotation", effect: noted, harmless: isFalse,
		why: "the time is in the configuration of the image; give --annotation " +
			"org.opencontainers.image.created=TIME for an annotation"},
	{name: "cw", value: "OPTIONS", effect: refused,
		why: "layerbuild does not make encrypted images"},
	{name: "debug", short: "D",
		why: "there is no log for debugging; --progress plain shows all that commands print"},
	{name: "decryption-key", value: "KEY", effect: refused,
		why: "layerbuild does not read encrypted layers"},
	{name: "device", value: "DEVICE", effect: refused,
		why: "the RUN that needs a device names it: RUN --device=VENDOR.com/CLASS=NAME"},
	{name: "disable-compression", why: "layers are compressed when they are stored; " +
		"-o …,compression=uncompressed changes that"},
	{name: "disable-content-trust", effect: refused, harmless: isTrue,
		why: "layerbuild does not check signatures; name images by digest"},
	{name: "env", value: "NAME=VALUE", effect: refused, why: environment},
	{name: "force-compression", effect: refused, harmless: isFalse,
		why: inOutput + "compression=zstd,force-compression=true"},
	{name: "force-rm", why: noContainers},
	{name: "from", value: "IMAGE", effect: refused, why: "to replace the image NAME of a FROM, " +
		"give --build-context NAME=docker-image://IMAGE"},
	{name: "group-add", value: "GROUP", effect: refused,
		why: "commands have the groups that the user of USER has in the image"},
	{name: "hooks-dir", value: "DIR", effect: refused, why: ownRuntime},
	{name: "http-proxy", effect: noted, harmless: isFalse,
		why: "commands do not get the proxies of the environment; give --build-arg HTTP_PROXY " +
			"and the like"},
	{name: "identity-label", why: "the label names buildah and its version"},
	{name: "ignorefile", value: "FILE", effect: refused,
		why: "the file is read from its place: DOCKERFILE.dockerignore beside the Dockerfile, or " +
			".dockerignore"},
	{name: "iidfile-raw", value: "FILE", effect: refused,
		why: "give --iidfile, whose ID begins with sha256:"},
	{name: "inherit-annotations", effect: noted, harmless: isFalse,
		why: "an image has no annotations of its base image; give --annotation"},
	{name: "inherit-labels", effect: refused, harmless: isTrue,
		why: "an image has the labels of its base image; LABEL NAME= empties one"},
	{name: "ipc", value: "WHICH", effect: refused, harmless: []string{"private"},
		why: ownNamespaces},
	{name: "isolation", value: "KIND", effect: refused,
		harmless: []string{"", "default", "process", "oci", "rootless", "chroot"},
		why:      "layerbuild runs commands in namespaces, and in no other way"},
	{name: "layer-label", value: "KEY=VALUE", why: "no image of a step is made"},
	{name: "log-rusage", effect: noted, harmless: isFalse,
		why: "--progress plain prints the time of each step"},
	{name: "loglevel", value: "N", why: "buildah does not use it any more", check: wholeNumber},
	{name: "logsplit", effect: refused, harmless: isFalse,
		why: "--logfile is one file for all platforms"},
	{name: "manifest", value: "NAME", effect: refused,
		why: "-t NAME and --platform with several platforms make an index of that name"},
	{name: "memory", short: "m", value: "SIZE", effect: noted, why: noLimits, check: size},
	{name: "memory-swap", value: "SIZE", effect: noted, why: noLimits, check: size},
	{name: "mount", value: "SPEC", effect: refused,
		why: "write RUN --mount=SPEC in the Dockerfile"},
	{name: "no-hostname", why: ownHostname},
	{name: "no-hosts", effect: refused, harmless: isFalse,
		why: "commands always get an /etc/hosts with the names of --add-host"},
	{name: "omit-history", effect: refused, harmless: isFalse,
		why: "the history of an image has its instructions"},
	{name: "os", value: "OS", effect: refused, why: onePlatform},
	{name: "os-feature", value: "FEATURE", effect: refused,
		why: "the image has the features of its base image"},
	{name: "os-version", value: "VERSION", effect: refused,
		why: "the image has the version of its base image"},
	{name: "pid", value: "WHICH", effect: refused, harmless: []string{"private"},
		why: ownNamespaces},
	{name: "policy", value: "SPEC", effect: refused, harmless: []string{"disabled=true"},
		why: "layerbuild evaluates no policies, and a build must not succeed because its policy " +
			"is left out"},
	{name: "preprocess", effect: refused, harmless: isFalse,
		why: "layerbuild does not run the C preprocessor; run cpp, and build with -f -"},
	{name: "print", value: "ACTION", effect: refused, why: "it was renamed; give --call ACTION"},
	{name: "resource", value: "NAME=VALUE", effect: noted, why: noLimits, check: resource},
	{name: "retry", value: "N", why: ownRetries, check: wholeNumber},
	{name: "retry-delay", value: "TIME", why: ownRetries},
	{name: "rewrite-timestamp",
		why: "with an epoch the times in layers are always limited to it"},
	{name: "rm", why: noContainers},
	{name: "runtime", value: "PROGRAM", why: ownRuntime},
	{name: "runtime-flag", value: "FLAG", why: ownRuntime},
	{name: "rusage-logfile", value: "FILE", effect: noted,
		why: "--progress plain prints the time of each step"},
	{name: "save-stages", effect: refused, harmless: isFalse, why: noStages},
	{name: "sbom-image-output", value: "PATH", effect: refused, why: ownScanner},
	{name: "sbom-image-purl-output", value: "PATH", effect: refused, why: ownScanner},
	{name: "sbom-merge-strategy", value: "STRATEGY", effect: refused, why: ownScanner},
	{name: "sbom-output", value: "FILE", effect: refused, why: ownScanner},
	{name: "sbom-purl-output", value: "FILE", effect: refused, why: ownScanner},
	{name: "sbom-scanner-command", value: "COMMAND", effect: refused, why: ownScanner},
	{name: "sbom-scanner-image", value: "IMAGE", effect: refused, why: ownScanner},
	{name: "security-opt", value: "OPTION", effect: noted,
		why: "commands always run with the same filter for system calls and without labels; " +
			"RUN --security=insecure has no filter"},
	{name: "sign-by", value: "KEY", effect: refused,
		why: "layerbuild does not sign images; sign the image in the registry, by its digest"},
	{name: "signature-policy", value: "FILE", effect: refused,
		why: "layerbuild does not check signatures; name images by digest"},
	{name: "skip-unused-stages", effect: refused, harmless: isTrue,
		why: "only the stages that the target needs are built; build others with --target"},
	{name: "source-policy-file", value: "FILE", effect: refused,
		why: "layerbuild evaluates no policies, and a build must not succeed because its policy " +
			"is left out"},
	{name: "squash", effect: noted, harmless: isFalse, why: noSquash},
	{name: "squash-all", effect: noted, harmless: isFalse, why: noSquash},
	{name: "stage-labels", effect: refused, harmless: isFalse, why: noStages},
	{name: "stdin", effect: refused, harmless: isFalse,
		why: "the standard input of commands is empty, so that a build can be repeated"},
	{name: "unsetannotation", value: "KEY",
		why: "an image has no annotations of its base image"},
	{name: "unsetenv", value: "NAME", effect: refused, why: environment},
	{name: "unsetlabel", value: "KEY", effect: refused,
		why: "write LABEL KEY= in the Dockerfile, which empties the label"},
	{name: "userns", value: "WHICH", effect: refused, harmless: []string{"container"},
		why: ownNamespaces},
	{name: "userns-gid-map", value: "MAP", effect: refused, why: subordinate},
	{name: "userns-gid-map-group", value: "NAME", effect: refused, why: subordinate},
	{name: "userns-uid-map", value: "MAP", effect: refused, why: subordinate},
	{name: "userns-uid-map-user", value: "NAME", effect: refused, why: subordinate},
	{name: "uts", value: "WHICH", effect: refused, harmless: []string{"private"},
		why: ownNamespaces},
	{name: "variant", value: "VARIANT", effect: refused, why: onePlatform},
}

// buildahAliases are other names of flags of buildah and podman.
var buildahAliases = map[string]string{"net": "network", "override-arch": "arch",
	"override-os": "os", "purge": "rm", "raw-iidfile": "iidfile-raw"}

// buildahName returns the name of a flag that may be an alias of buildah's.
func buildahName(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if other, ok := buildahAliases[name]; ok {
		name = other
	}
	return pflag.NormalizedName(name)
}

// isHarmless reports whether nothing is lost with a value of the flag.
func (o *otherFlag) isHarmless(value string) bool {
	if o.effect == ignored || slices.Contains(o.harmless, value) {
		return true
	}
	return slices.ContainsFunc(strings.Split(value, ","), func(item string) bool {
		return item != "" && slices.Contains(o.harmless, item)
	})
}

// otherValue is the value of a flag of another program.
type otherValue struct {
	row   *otherFlag
	given bool
	noted bool // the value of a flag has no effect, and something is lost
}

func (v *otherValue) Set(s string) error {
	v.given = true
	if v.row.value == "" {
		is, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("true or false is expected")
		}
		s = strconv.FormatBool(is)
	}
	if v.row.check != nil {
		if err := v.row.check(s); err != nil {
			return err
		}
	}
	switch {
	case v.row.isHarmless(s):
	case v.row.effect == refused:
		return errors.New(v.row.why)
	default:
		v.noted = true
	}
	return nil
}

func (v *otherValue) String() string      { return "" }
func (v *otherValue) placeholder() string { return v.row.value }

func (v *otherValue) Type() string { return "other" }

// isSwitch reports whether a value is that of a boolean flag that is given without a value.
func (v *otherValue) isSwitch(s string) bool { return v.row.value == "" && s == "true" }

// otherValues are the values of the flags of other programs.
type otherValues []otherValue

// define defines the flags. No help and no completion has them; the man page and docs/CLI.md do.
func (o *otherValues) define(fs *pflag.FlagSet, rows []otherFlag) {
	*o = make(otherValues, len(rows))
	for i := range rows {
		row := &rows[i]
		(*o)[i].row = row
		f := fs.VarPF(&(*o)[i], row.name, row.short, row.why)
		if f.Hidden = true; row.value == "" {
			f.NoOptDefVal = "true"
		}
	}
}

// given reports whether a flag is given.
func (o otherValues) given(name string) bool {
	return slices.ContainsFunc(o, func(v otherValue) bool { return v.given && v.row.name == name })
}

// notes returns a line for each reason why flags that were given have no effect.
func (o otherValues) notes() []string {
	flags := map[string][]string{}
	var reasons []string
	for _, v := range o {
		if !v.noted {
			continue
		}
		if flags[v.row.why] == nil {
			reasons = append(reasons, v.row.why)
		}
		flags[v.row.why] = append(flags[v.row.why], "--"+v.row.name)
	}
	for i, why := range reasons {
		verb := " has"
		if len(flags[why]) > 1 {
			verb = " have"
		}
		reasons[i] = joinWords(flags[why], "and") + verb + " no effect: " + why
	}
	return reasons
}

// notesOn explains the flags of other programs in the help of a verb that makes something.
func notesOn(rows []otherFlag, programs, made string) string {
	var without, never []string
	for _, row := range rows {
		if row.effect == refused {
			never = append(never, "--"+row.name)
			continue
		}
		without = append(without, "--"+row.name)
	}
	return "These flags of " + programs + " are accepted and have no effect: " +
		strings.Join(without, " ") + ". If a limit or a property of " + made + " is lost, " +
		"a line on standard error names the reason.\n\n" +
		"These are refused, with the reason and the remedy: " + strings.Join(never, " ") + "."
}

func wholeNumber(s string) error {
	if _, err := strconv.ParseInt(s, 10, 64); err != nil {
		return errors.New("a whole number is expected")
	}
	return nil
}

func number(s string) error {
	if _, err := strconv.ParseFloat(s, 64); err != nil {
		return errors.New("a number is expected")
	}
	return nil
}

// size checks a size of memory; -1 is no limit.
func size(s string) error {
	if s == "-1" {
		return nil
	}
	_, err := units.ParseDocker(s)
	return err
}

var errResource = errors.New("NAME=VALUE is expected, with the name memory, memory-swap, " +
	"cpu-shares, cpu-period, cpu-quota, cpuset-cpus or cpuset-mems")

// resource checks a value of --resource.
func resource(s string) error {
	name, value, ok := strings.Cut(s, "=")
	if value = strings.TrimSpace(value); !ok {
		return errResource
	}
	switch strings.TrimSpace(name) {
	case "memory", "memory-swap":
		return size(value)
	case "cpu-shares", "cpu-period", "cpu-quota":
		return wholeNumber(value)
	case "cpuset-cpus", "cpuset-mems":
		return nil
	}
	return errResource
}

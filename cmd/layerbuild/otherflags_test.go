package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/cdi"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/spf13/pflag"
)

// programs are the programs whose flags docs/CLI.md lists, each with all its flags for builds.
var programs = []struct{ name, flags string }{
	// docker build without buildx, version 29
	{"docker", `add-host build-arg cache-from cgroup-parent compress cpu-period cpu-quota cpu-shares
cpuset-cpus cpuset-mems disable-content-trust file force-rm iidfile isolation label memory
memory-swap network no-cache platform pull quiet rm security-opt shm-size squash tag target ulimit`},
	// docker buildx build, version 0.38
	{"buildx", `add-host allow annotation attest build-arg build-context builder cache-from cache-to
call cgroup-parent check compress cpu-period cpu-quota cpu-shares cpuset-cpus cpuset-mems debug file
force-rm iidfile isolation label load memory memory-swap metadata-file network no-cache
no-cache-filter output platform policy print progress provenance pull push quiet resource rm sbom
secret security-opt shm-size squash ssh tag target ulimit`},
	// buildah build, version 1.45
	{"buildah", `add-host all-platforms annotation arch authfile blob-cache build-arg build-arg-file build-context
cache-from cache-to cache-ttl cap-add cap-drop cdi-config-dir cert-dir cgroup-parent cgroupns
compat-volumes compress compression-format compression-level cpp-flag cpu-period cpu-quota
cpu-shares cpuset-cpus cpuset-mems created-annotation creds cw decryption-key device
disable-compression disable-content-trust dns dns-option dns-search env file force-compression
force-rm format from group-add hooks-dir http-proxy identity-label ignorefile iidfile iidfile-raw
inherit-annotations inherit-labels ipc isolation jobs label layer-label layers log-rusage logfile
loglevel logsplit manifest memory memory-swap metadata-file mount network no-cache no-cache-filter
no-hostname no-hosts omit-history os os-feature os-version output pid platform preprocess pull
pull-always pull-never quiet retry retry-delay rewrite-timestamp rm runtime runtime-flag
rusage-logfile save-stages sbom sbom-image-output sbom-image-purl-output sbom-merge-strategy
sbom-output sbom-purl-output sbom-scanner-command sbom-scanner-image secret security-opt shm-size
sign-by signature-policy skip-unused-stages source-date-epoch source-policy-file squash ssh
stage-labels stdin tag target timestamp tls-verify ulimit unsetannotation unsetenv unsetlabel
userns userns-gid-map userns-gid-map-group userns-uid-map userns-uid-map-user uts variant volume`},
	// podman build, which has the flags of buildah, version 5.8
	{"podman", `add-host all-platforms annotation arch authfile blob-cache build-arg build-arg-file build-context
cache-from cache-to cache-ttl cap-add cap-drop cdi-config-dir cert-dir cgroup-parent cgroupns
compat-volumes compress compression-format compression-level cpp-flag cpu-period cpu-quota
cpu-shares cpuset-cpus cpuset-mems created-annotation creds cw decryption-key device
disable-compression disable-content-trust dns dns-option dns-search env file force-compression
force-rm format from group-add hooks-dir http-proxy identity-label ignorefile iidfile iidfile-raw
inherit-annotations inherit-labels ipc isolation jobs label layer-label layers load log-rusage
logfile loglevel logsplit manifest memory memory-swap metadata-file mount network no-cache
no-cache-filter no-hostname no-hosts omit-history os os-feature os-version output pid platform
preprocess progress pull pull-always pull-never quiet retry retry-delay rewrite-timestamp rm
runtime runtime-flag rusage-logfile save-stages sbom sbom-image-output sbom-image-purl-output
sbom-merge-strategy sbom-output sbom-purl-output sbom-scanner-command sbom-scanner-image secret
security-opt shm-size sign-by signature-policy skip-unused-stages source-date-epoch
source-policy-file squash squash-all ssh stage-labels stdin tag target timestamp tls-verify ulimit
unsetannotation unsetenv unsetlabel userns userns-gid-map userns-gid-map-group userns-uid-map
userns-uid-map-user uts variant volume`},
}

// runPrograms are the programs whose flags of run docs/CLI.md lists, each with all its flags.
var runPrograms = []struct{ name, flags string }{
	// docker run, version 28.2
	{"docker", `add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent
cgroupns cidfile cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares
cpus cpuset-cpus cpuset-mems detach detach-keys device device-cgroup-rule device-read-bps
device-read-iops device-write-bps device-write-iops disable-content-trust dns dns-opt dns-option
dns-search domainname entrypoint env env-file expose gpus group-add health-cmd health-interval
health-retries health-start-interval health-start-period health-timeout help hostname init
interactive io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory label label-file link
link-local-ip log-driver log-opt mac-address memory memory-reservation memory-swap
memory-swappiness mount name net net-alias network network-alias no-healthcheck oom-kill-disable
oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet read-only restart
rm runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty
ulimit use-api-socket user userns uts volume volume-driver volumes-from workdir`},
	// podman run, version 5, and the flag cdi-spec-dir of podman
	{"podman", `add-host annotation arch attach authfile blkio-weight blkio-weight-device cap-add cap-drop
cdi-spec-dir
cert-dir cgroup-conf cgroup-parent cgroupns cgroups chrootdirs cidfile conmon-pidfile cpu-period
cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems creds decryption-key
detach detach-keys device device-cgroup-rule device-read-bps device-read-iops device-write-bps
device-write-iops disable-content-trust dns dns-opt dns-option dns-search entrypoint env env-file env-host
env-merge expose gidmap gpus group-add group-entry health-cmd health-interval
health-log-destination health-max-log-count health-max-log-size health-on-failure health-retries
health-start-period health-startup-cmd health-startup-interval health-startup-retries
health-startup-success health-startup-timeout health-timeout help hostname hosts-file hostuser
http-proxy image-volume init init-path interactive ip ip6 ipc label label-file link-local-ip
log-driver log-opt mac-address memory memory-reservation memory-swap memory-swappiness mount name
net network network-alias no-healthcheck no-hostname no-hosts oom-kill-disable oom-score-adj os
passwd passwd-entry personality pid pidfile pids-limit platform pod pod-id-file preserve-fd
preserve-fds privileged publish publish-all pull quiet rdt-class read-only read-only-tmpfs replace
requires restart retry retry-delay rm rmi rootfs runtime sdnotify seccomp-policy secret security-opt
shm-size shm-size-systemd sig-proxy stop-signal stop-timeout subgidname subuidname sysctl systemd
timeout tls-verify tmpfs tty tz uidmap ulimit umask unsetenv unsetenv-all user userns uts variant
volume volumes-from workdir`},
}

// values are values of flags that have a check, for the test of their rows.
var values = map[string]string{"resource": "memory=1g", "log-format": "json",
	"snapshot-mode": "time", "verbosity": "debug", "attach": "STDERR", "cgroups": "no-conmon",
	"image-volume": "tmpfs"}

// Each row of the table: a value without effect is accepted silently or with a line that has the
// reason, and a refused one is an error with the reason.
func TestOtherFlags(t *testing.T) {
	work := badSetup(t)
	t.Chdir(work)
	for _, table := range otherTables() {
		table.check(t)
	}
}

// otherTable is a table of flags of other programs, with a command line that is complete but for
// them.
type otherTable struct {
	verb        verb
	rows        []otherFlag
	args, after []string // the words before and after the flags
}

func otherTables() []otherTable {
	return []otherTable{
		{buildVerb(), otherFlags[:], []string{"build", "--root=s", "context"}, nil},
		{executorVerb(), executorOthers[:],
			[]string{"executor", "--root=s", "--context=context", "--destination=app"}, nil},
		{runVerb(), runOthers[:], []string{"run", "--root=s"}, []string{"app"}},
		{imagePruneVerb(), imagePruneOthers[:], []string{"image", "prune", "--root=s"}, nil},
	}
}

func (o *otherTable) check(t *testing.T) {
	page := verbPage(o.verb, "").text
	for i, row := range o.rows {
		if !strings.Contains(page, roffText("--"+row.name)) {
			t.Errorf("layerbuild-%s(1) has no --%s", o.verb.name, row.name)
		}
		if i > 0 && o.rows[i-1].name >= row.name {
			t.Errorf("--%s is not in the order of names", row.name)
		}
		if row.why == "" || strings.HasSuffix(row.why, ".") {
			t.Errorf("--%s: the reason is %q, want a phrase", row.name, row.why)
		}
		used := []string{values[row.name]}
		switch {
		case row.value == "":
			used = []string{"true", "false", ""}
		case used[0] == "":
			used[0] = "17"
		}
		for _, value := range append(used, row.harmless...) {
			arg := "--" + row.name + "=" + value
			if row.value == "" && value == "" {
				arg, value = "--"+row.name, "true"
			}
			t.Run(arg, func(t *testing.T) { o.checkValue(t, row, arg, value) })
		}
		if row.short != "" && row.value != "" && row.effect != refused {
			if got := o.try(t, "-"+row.short, used[0]); got.err != nil {
				t.Errorf("-%s %s: %v", row.short, used[0], got.err)
			}
		}
		if row.value == "" || row.check != nil {
			got := o.try(t, "--"+row.name+"=nonsense")
			if got.status != got.want || !strings.Contains(got.text, "is expected") {
				t.Errorf("--%s=nonsense: %q", row.name, got.text)
			}
		}
	}
}

// try checks the command line with flags.
func (o *otherTable) try(t *testing.T, flags ...string) outcome {
	return try(t, nil, slices.Concat(o.args, flags, o.after)...)
}

func (o *otherTable) checkValue(t *testing.T, row otherFlag, arg, value string) {
	got := o.try(t, arg)
	harmless := row.effect == ignored || slices.Contains(row.harmless, value)
	if row.effect == refused && !harmless {
		if got.status != got.want || !strings.Contains(got.text, row.why) {
			t.Errorf("status %d, %q, want a refusal with the reason %q", got.status, got.text,
				row.why)
		}
		return
	}
	if got.err != nil {
		t.Fatal(got.err)
	}
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	var values otherValues
	values.define(fs, []otherFlag{row})
	if err := fs.Parse([]string{arg}); err != nil {
		t.Fatal(err)
	}
	want := ""
	if !harmless {
		want = "--" + row.name + " has no effect: " + row.why
	}
	if line := strings.Join(values.notes(), "\n"); line != want {
		t.Errorf("the lines are %q, want %q", line, want)
	}
}

// TestBakeFlags looks up the flags of docker buildx bake, version 0.38, with their short forms.
func TestBakeFlags(t *testing.T) {
	fs := newFlagSet(bakeVerb())
	bakeVerb().withOthers(fs)
	for name := range strings.FieldsSeq(`allow builder call check debug file jobs list list-targets
list-variables load metadata-file no-cache policy print progress provenance pull push sbom set var`) {
		if fs.Lookup(name) == nil {
			t.Errorf("bake has no --%s", name)
		}
	}
	for short, name := range map[string]string{"f": "file", "j": "jobs", "D": "debug"} {
		if f := fs.ShorthandLookup(short); f == nil || f.Name != name {
			t.Errorf("bake has no -%s for --%s", short, name)
		}
	}
}

// TestShorthands looks up each short form that the help lists: one that is set after the definition
// of its flag is in the help, and is not parsed.
func TestShorthands(t *testing.T) {
	for _, v := range verbs() {
		fs := newFlagSet(v)
		v.flags(fs)
		fs.VisitAll(func(f *pflag.Flag) {
			if f.Shorthand != "" && fs.ShorthandLookup(f.Shorthand) != f {
				t.Errorf("%s does not parse -%s for --%s", v.name, f.Shorthand, f.Name)
			}
		})
	}
}

// Flags that are left out for one reason have one line.
func TestOtherNotes(t *testing.T) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	var o otherValues
	o.define(fs, otherFlags[:])
	line := "-m 1g --squash --cpu-quota 5 --rm --http-proxy=false"
	if err := fs.Parse(strings.Fields(line)); err != nil {
		t.Fatal(err)
	}
	want := []string{"--cpu-quota and --memory have no effect: " + noLimits,
		"--squash has no effect: " + noSquash}
	if got := o.notes(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Each permission is accepted, and only those with an effect set one.
func TestPermissions(t *testing.T) {
	for _, p := range permissions {
		for _, value := range []string{p.name, p.name + "=x"} {
			f := buildFlags{allow: []string{value}}
			var o imagebuild.Options
			if err := f.permissions(&o); err != nil {
				t.Errorf("--allow %s: %v", value, err)
			}
			devices := o.Run.Devices.Allowed
			if has := o.Run.HostNetwork || o.Run.Insecure || devices.All ||
				len(devices.Names) > 0; has != (p.why == "") {
				t.Errorf("--allow %s: a permission %t", value, has)
			}
		}
	}
	for list, ok := range map[string]bool{"device=a.b/c=d,alias=e": true, "alias=e": false,
		"device,alias=e": false, "device=a.b/c=d,alias=": false, "device=a,network.host,alias=e": false,
		"device=a,name=e":       false,
		"network.host,nonsense": false, "fs.read=/a,fs.write=/b,network.host": true} {
		f := buildFlags{allow: strings.Split(list, ",")}
		var o imagebuild.Options
		if err := f.permissions(&o); (err == nil) != ok {
			t.Errorf("--allow %s: %v", list, err)
		}
	}
}

// TestDevicePermissions compares the permissions for devices that --allow gives.
func TestDevicePermissions(t *testing.T) {
	for list, want := range map[string]cdi.Permission{
		"network.host":         {},
		"device":               {All: true},
		"device=":              {All: true},
		"device=a.b/c=d":       {Names: []string{"a.b/c=d"}},
		"device=a.b/c=*":       {Names: []string{"a.b/c=*"}},
		"device=a,device=b":    {Names: []string{"a", "b"}},
		"device=a,device":      {Names: []string{"a"}, All: true},
		"device=a,alias=b":     {Names: []string{}, Aliases: map[string]string{"b": "a"}},
		"device=a,alias=b,ssh": {Names: []string{}, Aliases: map[string]string{"b": "a"}},
		"device=c,device=a,alias=b": {Names: []string{"c"},
			Aliases: map[string]string{"b": "a"}},
	} {
		f := buildFlags{allow: strings.Split(list, ",")}
		var o imagebuild.Options
		if err := f.permissions(&o); err != nil {
			t.Errorf("--allow %s: %v", list, err)
		}
		if diff := cmp.Diff(want, o.Run.Devices.Allowed); diff != "" {
			t.Errorf("--allow %s: -want +got\n%s", list, diff)
		}
	}
}

// docs/CLI.md is generated from the definitions of the flags and the tables of attributes. -update
// rewrites it.
func TestCommandLinePage(t *testing.T) {
	name := filepath.Join("..", "..", "docs", "CLI.md")
	text := commandLinePage(t)
	if *update {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(name)
	if err != nil || string(have) != text {
		t.Errorf("docs/CLI.md is not that of the definitions (%v); -update rewrites it", err)
	}
}

const commandLineTop = `# The flags of docker, buildx, buildah, podman and kaniko
layerbuild accepts the command lines of ` + "`docker buildx build`, `docker build`, `buildah build` and `podman build`" + `, with the verb
` + "`run` those of `docker run` and `podman run`" + `, and with the verb ` + "`executor`" + ` that of kaniko. Each of their flags is in one of three states:

- It **works**.
- It is **ignored**: it has no effect, and the table gives the reason why nothing is lost. With *a note*, a limit or a property of the
  image is lost, and one line on standard error names the reason.
- It is **refused**: the verb ends before anything runs, with the reason and the remedy.

This page is generated from the definitions of the flags (` + "`TestCommandLinePage`" + `), and each row is tested. ` +
	"`layerbuild help build`" + ` explains
the flags that work.

## Flags
The marks are d for docker 29 without buildx, x for buildx 0.38, b for buildah 1.45 and p for podman,
which has buildah's flags and some more.

| flag | of | state | effect or reason |
| --- | --- | --- | --- |
`

func commandLinePage(t *testing.T) string {
	var b strings.Builder
	b.WriteString(commandLineTop)
	marks := map[string]string{}
	for i, p := range programs {
		for name := range strings.FieldsSeq(p.flags) {
			marks[name] += "dxbp"[i : i+1]
		}
	}
	known := map[string]flagInfo{}
	for _, g := range flagsOf(buildVerb()) {
		for _, f := range g.flags {
			known[f.name] = f
		}
	}
	rows := map[string]string{}
	for _, row := range otherFlags {
		rows[row.name] = row.page(marks[row.name])
		if marks[row.name] == "" {
			t.Errorf("--%s is in the table, and no program has it", row.name)
		}
		delete(marks, row.name)
	}
	for name, of := range marks {
		f, ok := known[name]
		if !ok {
			t.Errorf("--%s (%s) is not defined", name, of)
		}
		rows[name] = fmt.Sprintf("| `%s` | %s | works | %s |\n", flagForms(f.name, f.short,
			f.placeholder), of, cell(f.text))
	}
	for name, other := range buildahAliases {
		rows[name] = fmt.Sprintf("| `--%s` | bp | as --%s | the same flag |\n", name, other)
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		b.WriteString(rows[name])
	}
	b.WriteString(runTop)
	b.WriteString(runRows(t))
	b.WriteString(kanikoTop)
	b.WriteString(kanikoRows(t))
	b.WriteString(pruneTop)
	for _, commands := range []struct {
		names string
		rows  []otherFlag
	}{{"`buildx prune`, `buildx du`, `builder prune`", cacheOthers[:]},
		{"`image prune`", imagePruneOthers[:]}} {
		for _, row := range commands.rows {
			b.WriteString(row.page(commands.names))
		}
	}
	b.WriteString("\n## Permissions\n`--allow` accepts the permissions of buildx build and " +
		"buildx bake. Several may be separated by commas.\n\n| permission | state | reason |\n| --- | --- | --- |\n")
	for _, p := range permissions {
		state := "works"
		if p.why != "" {
			state = "ignored"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", p.name, state, p.why)
	}
	b.WriteString("\n## Attributes of --output\n[OUTPUTS.md](OUTPUTS.md) describes the " +
		"attributes that work. Unknown attributes are an error.\n\n| attribute | types | state | reason |\n| --- | --- | --- | --- |\n")
	for _, a := range export.Attributes() {
		var types []string
		for _, kind := range a.Types {
			types = append(types, string(kind))
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", a, strings.Join(types, ", "),
			stateOf(a.Refused), cell(a.Why))
	}
	b.WriteString(cacheTop)
	for _, a := range remotecache.Attributes() {
		for _, is := range []bool{false, true} {
			var list []string
			for _, value := range a.Values {
				if slices.Contains(a.Refused, value) == is {
					list = append(list, value)
				}
			}
			if len(list) > 0 {
				fmt.Fprintf(&b, "| `%s=%s` | %s | %s |\n", a.Key, strings.Join(list, "\\|"),
					stateOf(is), cell(a.Why))
			}
		}
	}
	return b.String()
}

const pruneTop = `
## Flags of commands that prune
` + "`layerbuild help prune`, `layerbuild help image prune` and `layerbuild help du`" + ` explain the flags that work. These are the others.

| flag | of | state | effect or reason |
| --- | --- | --- | --- |
`

const runTop = `
## Flags of run
` + "`layerbuild run` accepts the command lines of `docker run` and `podman run`" + `. The marks are d for docker 28 and p for podman 5.
` + "`layerbuild help run`" + ` explains the flags that work.

| flag | of | state | effect or reason |
| --- | --- | --- | --- |
`

// runRows returns the table of the flags of run.
func runRows(t *testing.T) string {
	marks := map[string]string{}
	for i, p := range runPrograms {
		for name := range strings.FieldsSeq(p.flags) {
			marks[name] += "dp"[i : i+1]
		}
	}
	rows := map[string]string{}
	for _, g := range flagsOf(runVerb()) {
		for _, f := range g.flags {
			rows[f.name] = fmt.Sprintf("| `%s` | %s | works | %s |\n",
				flagForms(f.name, f.short, f.placeholder), marks[f.name], cell(f.text))
		}
	}
	for _, row := range runOthers {
		if rows[row.name] != "" {
			t.Errorf("run --%s is defined twice", row.name)
		}
		rows[row.name] = row.page(marks[row.name])
	}
	for name, other := range runAliases {
		rows[name] = fmt.Sprintf("| `--%s` | %s | as --%s | the same flag |\n", name, marks[name],
			other)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(marks)) {
		if rows[name] == "" {
			t.Errorf("run --%s is not defined", name)
		}
		b.WriteString(rows[name])
		delete(rows, name)
	}
	for _, name := range []string{"root", "driver"} {
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("run --%s is defined, and no program has it", name)
	}
	return b.String()
}

// kanikoFlags are all flags of kaniko's executor: of version 1.24, and of its forks
// osscontainertools/kaniko and chainguard-dev/kaniko.
const kanikoFlags = `annotation bucket build-arg cache cache-copy-layers cache-dir cache-repo
cache-run-layers cache-ttl cleanup compressed-caching compression compression-level context
context-sub-path credential-helpers custom-platform customPlatform destination digest-file
dockerfile dryrun force force-build-metadata git ignore-path ignore-var-run image-download-retry
image-format image-fs-extract-retry image-name-tag-with-digest-file image-name-with-digest-file
insecure insecure-pull insecure-registry kaniko-dir label log-format log-timestamp materialize
no-push no-push-cache oci-layout-path pre-cleanup preserve-context push-ignore-immutable-tag-errors
push-retry registry-certificate registry-client-cert registry-map registry-mirror reproducible
secret single-snapshot skip-default-registry-fallback skip-push-permission-check skip-tls-verify
skip-tls-verify-pull skip-tls-verify-registry skip-unused-stages snapshot-mode snapshotMode tar-path
tarPath target upload-tar upload-tar-retry use-new-run verbosity whitelist-var-run`

const kanikoTop = `
## Flags of kaniko
The table has all flags of the executor of kaniko 1.24 and of its forks osscontainertools/kaniko and chainguard-dev/kaniko.
` + "`layerbuild help executor`" + ` explains the flags that work.

| flag | state | effect or reason |
| --- | --- | --- |
`

// kanikoRows returns the table of kaniko's flags.
func kanikoRows(t *testing.T) string {
	rows := map[string]string{}
	for _, g := range flagsOf(executorVerb()) {
		for _, f := range g.flags {
			rows[f.name] = fmt.Sprintf("| `%s` | works | %s |\n",
				flagForms(f.name, f.short, f.placeholder), cell(f.text))
		}
	}
	for _, row := range executorOthers {
		if rows[row.name] != "" {
			t.Errorf("executor --%s is defined twice", row.name)
		}
		rows[row.name] = strings.Replace(row.page(""), "|  | ", "| ", 1)
	}
	for name, other := range executorAliases {
		rows[name] = fmt.Sprintf("| `--%s` | as --%s | the same flag |\n", name, other)
	}
	var b strings.Builder
	for name := range strings.FieldsSeq(kanikoFlags) {
		if rows[name] == "" {
			t.Errorf("executor --%s is not defined", name)
		}
		b.WriteString(rows[name])
		delete(rows, name)
	}
	for _, name := range []string{"root", "driver", "help"} {
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("executor --%s is defined, and kaniko has no such flag", name)
	}
	return b.String()
}

const cacheTop = `
## Attributes of --cache-from and --cache-to
These work: ` + "`type=registry`, `type=local`, `type=inline`, `ref`, `src`, `dest`, `tag`, `digest`, `mode`, `ignore-error` and `registry.insecure`" + `.
The caches of BuildKit in services (` + "`type=gha`, `type=s3`, `type=azblob`" + `) cannot be used: with ` + "`--cache-from`" + ` the build prints a
warning and continues without the cache. With ` + "`--cache-to`" + ` they are refused, as a cache that cannot be exported is an error for buildx,
too; with ` + "`ignore-error=true`" + ` that is a warning. The others have no effect or are refused:

| attribute of --cache-to | state | reason |
| --- | --- | --- |
`

// page returns the rows of a flag on docs/CLI.md.
func (o *otherFlag) page(of string) string {
	forms := flagForms(o.name, o.short, o.value)
	state := map[effect]string{ignored: "ignored", noted: "ignored, with a note",
		refused: "refused"}[o.effect]
	var silent []string
	for _, value := range o.harmless {
		if value != "" {
			silent = append(silent, "`"+value+"`")
		}
	}
	why := o.why
	switch {
	case len(silent) == 0:
	case o.effect == noted:
		why += ". Ignored without a note: " + strings.Join(silent, ", ")
	default:
		why += ". Ignored: " + strings.Join(silent, ", ")
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |\n", forms, of, state, cell(why))
}

// flagForms returns the ways to write a flag.
func flagForms(name, short, value string) string {
	s := "--" + name
	if short != "" {
		s = "-" + short + ", " + s
	}
	if value != "" {
		s += " " + strings.ReplaceAll(value, "|", "\\|")
	}
	return s
}

func stateOf(isRefused bool) string {
	if isRefused {
		return "refused"
	}
	return "ignored"
}

// cell escapes a text for a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

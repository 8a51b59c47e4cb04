package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/cdi"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/markdown"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/spf13/pflag"
)

// buildFlags are the flags of the build verb, as given.
type buildFlags struct {
	state    stateFlags
	registry registryFlags
	others   otherValues
	// set has the flags of the command line; nil: the flags are attributes of a target of bake.
	set *pflag.FlagSet
	// ignorePolicy is set for a verb of a program that knows no policies.
	ignorePolicy bool

	target, network, shmSize, progress, format          string
	cacheKey                                            string
	file                                                oneFile
	argFiles                                            givenList
	pullAlways, pullNever                               bool
	iidFile, metadataFile                               string
	timestamp, sourceDateEpoch, logFile                 given
	tags, buildArgs, labels, annotations, contexts      []string
	outputs, platforms, secrets, ssh, addHosts, ulimits []string
	allow, noCacheFilter, cacheFrom, cacheTo, specDirs  []string
	caches, mounts                                      []string
	mountsLimit                                         string
	volumes                                             []string
	caps                                                capFlags
	dns                                                 dnsFlags
	noCache, sync, push, load, quiet, check, layers     bool
	jobs                                                int
	lintExperimental                                    []string
	provenance, sbom                                    string
	attest                                              []string
	call                                                call
	pull                                                pullPolicy

	cacheTTL maxAge
	// fetched has options for the context that no flag sets.
	fetched source.FetchedOptions
	// after is called after a successful build; nil: nothing is.
	after func(*env, *imagebuild.Result) error

	github  githubList
	runner  runner
	analyze analyzeFlags
	keep    string // --keep-storage
	policy  state.Policy
}

func buildVerb() verb {
	return verb{
		name: "build", args: "CONTEXT",
		summary: "build an image from a Dockerfile",
		notes: `CONTEXT is a directory, an archive, the URL of an archive or of a git repository, or - for an archive on standard
input.`,
		moreNotes: func() string {
			return notesOn(otherFlags[:], "docker, buildx, buildah and podman", "the image")
		},
		examples: []example{
			{"layerbuild -t app .", "build ./Dockerfile and name the image app"},
			{"layerbuild build --target test --build-arg VERSION=3 .",
				"build a stage, with an argument"},
			{"layerbuild build -t app -o type=oci,dest=app.tar .",
				"write the image as an OCI archive too"},
			{"layerbuild build -o out .", "write the files of the image to a directory"},
			{"layerbuild build -t registry.example.com/app:v1 --push .", "build and push"},
			{"layerbuild build --platform linux/amd64,linux/arm64 -t app .",
				"build an image for two platforms"},
			{"layerbuild build --secret id=token,src=token.txt .",
				"give a secret to RUN --mount=type=secret,id=token"},
			{"layerbuild build --check .", "check the Dockerfile and build nothing"},
		},
		common: []string{"file", "target", "build-arg", "platform", "secret", "tag", "output",
			"push", "load", "no-cache", "cache", "cache-from", "cache-to",
			"check", "analyze", "progress"},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			f := buildFlags{set: fs}
			f.define(fs)
			return f.prepare
		},
		withOthers: func(fs *pflag.FlagSet) prepareFunc {
			fs.SetNormalizeFunc(buildahName)
			f := buildFlags{set: fs}
			f.define(fs)
			f.others.define(fs, otherFlags[:])
			return f.prepare
		},
	}
}

func (f *buildFlags) define(fs *pflag.FlagSet) {
	f.state.define(fs)
	group(fs, "Inputs", f.defineInputs)
	group(fs, "Outputs", f.defineOutputs)
	group(fs, "Cache", f.defineCache)
	group(fs, "Registries", f.registry.define)
	group(fs, "Isolation of RUN", f.defineIsolation)
	group(fs, "Checks", f.defineChecks)
	group(fs, "Display", f.defineDisplay)
}

func (f *buildFlags) defineInputs(fs *pflag.FlagSet) {
	fs.VarP(&f.file, "file", "f", "`FILE` Dockerfile; - reads standard input\n"+
		"FILE may also be an http URL. Without the flag it is the file Dockerfile of the context, "+
		"or else Containerfile.")
	fs.StringVar(&f.target, "target", "", "`STAGE` stage to build (default: the last)")
	fs.Var((*list)(&f.buildArgs), "build-arg", "`NAME=VALUE` value of an ARG\n"+
		"NAME alone takes its value from the environment.")
	fs.Var(&f.argFiles, "build-arg-file", "`FILE` file with values of ARGs\n"+
		"Each line is NAME=VALUE, or a comment that begins with #. --build-arg has precedence.")
	fs.Var((*list)(&f.contexts), "build-context", "`NAME=WHERE` additional build context\n"+
		"WHERE is a directory, an archive, a URL, docker-image://NAME or oci-layout://DIR[:TAG].")
	fs.StringSliceVar(&f.platforms, "platform", nil, "`OS/ARCH` platforms to build for\n"+
		"For several platforms, the build makes an image index. Without the flag it is "+
		"$DOCKER_DEFAULT_PLATFORM, or else the platform of this machine.")
	fs.Var(&f.pull, "pull", "look up base images in registries first\n"+
		"Without a value it is always, as with newer: an image that has not changed is not "+
		"fetched again. The value missing looks up the images that the store does not have, as "+
		"without the flag; never makes such an image an error.")
	fs.Lookup("pull").NoOptDefVal = "always"
	fs.BoolVar(&f.pullAlways, "pull-always", false, "the same as --pull=always")
	fs.BoolVar(&f.pullNever, "pull-never", false, "the same as --pull=never")
	fs.Var((*list)(&f.secrets), "secret",
		"`id=ID[,src=FILE|,env=VAR]` secret for RUN --mount=type=secret\n"+
			"Without src and env, ID names an environment variable, or else a file.")
	fs.Var(&f.timestamp, "timestamp", "`SECONDS` latest time in the image, since 1970\n"+
		"It is the same as --build-arg SOURCE_DATE_EPOCH=SECONDS.")
	fs.Var(&f.sourceDateEpoch, "source-date-epoch", "`SECONDS` the same as --timestamp")
	fs.Var((*list)(&f.ssh), "ssh",
		"`default|ID[=SOCKET|=KEY,…]` SSH agent for RUN --mount=type=ssh\n"+
			"ADD uses that with the ID default for repositories at an SSH address. Without "+
			"SOCKET it is the agent of $SSH_AUTH_SOCK. KEY is the file of a private key "+
			"without a passphrase.")
}

func (f *buildFlags) defineOutputs(fs *pflag.FlagSet) {
	f.defineTag(fs)
	fs.VarP((*list)(&f.outputs), "output", "o", "`SPEC` where the image goes\n"+
		"SPEC is type=TYPE,dest=PATH,… with the type oci, docker, local, tar, image or registry. "+
		"It may also be a directory for the files of the image, or - for a tar archive of them "+
		"on standard output.")
	fs.BoolVar(&f.push, "push", false, "push the image, as --output type=registry does")
	fs.BoolVar(&f.load, "load", false, "load the image into docker or podman\n"+
		"--output type=docker does the same.")
	f.defineLabels(fs)
	f.defineAttestations(fs)
	fs.StringVar(&f.iidFile, "iidfile", "", "`FILE` write the image ID to a file")
	fs.StringVar(&f.metadataFile, "metadata-file", "",
		"`FILE` write digests and names to a file, as JSON")
}

func (f *buildFlags) defineTag(fs *pflag.FlagSet) {
	fs.VarP((*list)(&f.tags), "tag", "t", "`NAME[:TAG]` name of the image")
}

func (f *buildFlags) defineLabels(fs *pflag.FlagSet) {
	fs.Var((*list)(&f.labels), "label", "`KEY=VALUE` label of the image")
	fs.Var((*list)(&f.annotations), "annotation", "`KEY=VALUE` annotation of the manifest\n"+
		"KEY may begin with index:, manifest-descriptor: or index-descriptor: to annotate that "+
		"object instead.")
}

func (f *buildFlags) defineCache(fs *pflag.FlagSet) {
	fs.BoolVar(&f.noCache, "no-cache", false, "run every step again")
	fs.BoolVar(&f.layers, "layers", true, "use results of earlier builds\n"+
		"--layers=false is the same as --no-cache.")
	fs.StringSliceVar(&f.noCacheFilter, "no-cache-filter", nil,
		"`STAGE` run the steps of these stages again")
	fs.Var(&f.cacheTTL, "cache-ttl", "`TIME` do not use results older than TIME (72h)\n"+
		"The age is that of the run of the step. 0 is the same as --no-cache.")
	f.defineShared(fs)
	fs.Var((*list)(&f.cacheFrom), "cache-from", "`PLACE` read results of steps from PLACE\n"+
		"PLACE is an image name, type=registry,ref=NAME or type=local,src=DIR.")
	fs.Var((*list)(&f.cacheTo), "cache-to", "`PLACE` write results of steps to PLACE\n"+
		"PLACE is type=inline, type=registry,ref=NAME or type=local,dest=DIR.")
	fs.BoolVar(&f.sync, "sync", false, "write the cache to disk before the build ends\n"+
		"With this flag the cache survives a crash, and can be moved to another machine.")
	fs.StringVar(&f.keep, "keep-storage", "",
		"`SIZE` limit of the build cache, such as 10g (GiB) or off\n"+
			"A build that has run a step ends by removing the least recently used part of the "+
			"build cache until the rest fits SIZE. Without the flag SIZE is that of "+
			"$LAYERBUILD_KEEP_STORAGE, of the line keep-storage = SIZE in "+
			"$XDG_CONFIG_HOME/layerbuild/config (~/.config/layerbuild/config) or "+
			"/etc/layerbuild/config, or else the smaller of 20 GB and a tenth of the file "+
			"system. Images with a name, and what running processes use, are never removed.")
}

// defineShared defines --cache and the flags about it.
func (f *buildFlags) defineShared(fs *pflag.FlagSet) {
	fs.Var((*list)(&f.caches), "cache", "`PLACE` share results with other machines\n"+
		"PLACE is a repository of a registry, such as registry.example.com/team/cache, a bucket "+
		"of S3 (s3://BUCKET/PREFIX?endpoint=URL&region=NAME&path-style=true), a server that "+
		"Bazel can use as a cache (https://HOST/PREFIX), or gha in a job of GitHub Actions. Each "+
		"step is written to it as soon as it is done, also in a build that fails later, and any "+
		"number of builds may use it at the same time. With PLACE,ro nothing is written. Without "+
		"the flag the caches are those of $LAYERBUILD_CACHE, or of a line cache = PLACE in "+
		"the configuration file.")
	fs.StringVar(&f.cacheKey, "cache-key", "", "`FILE` sign the results in --cache with the key\n"+
		"Results that another key or none has signed are not used. FILE has an Ed25519 key in PEM "+
		"(openssl genpkey -algorithm ed25519 -out FILE), or at least 32 bytes as a common secret. "+
		"With a public key (openssl pkey -in FILE -pubout) the caches must be read-only.")
	fs.Var((*list)(&f.mounts), "cache-mounts", "`all|none|ID,…` share files of cache mounts, too\n"+
		"Before the first RUN that uses a cache mount (RUN --mount=type=cache) without files, its "+
		"files are fetched from the caches of --cache. If they have changed when the build ends, "+
		"they are written to them, also if it fails. The id of a mount is its target, unless it "+
		"has the option id. Who can write to the cache can put files into these mounts. Without "+
		"the flag they are those of $"+cacheMounts+", or of a line cache-mounts = all in the "+
		"configuration file, or else none.")
	fs.StringVar(&f.mountsLimit, "cache-mounts-limit", mountsLimit,
		"`SIZE` do not share larger cache mounts\n"+
			"SIZE is that of the files of one mount, uncompressed, such as 500m or 2g.")
}

func (f *buildFlags) defineIsolation(fs *pflag.FlagSet) {
	fs.Var(newNetwork(&f.network), "network", "network of RUN\n"+networkUsage)
	fs.Var((*list)(&f.addHosts), "add-host", "`HOST:IP` entry in /etc/hosts")
	f.dns.define(fs)
	f.caps.define(fs)
	fs.VarP((*givenList)(&f.volumes), "volume", "v", "`SOURCE:TARGET[:ro]` mount a path for "+
		"every RUN\n"+
		"SOURCE is a path of this machine. "+
		"What is in it becomes no part of the image. The result of a RUN depends on SOURCE and "+
		"TARGET, and not on the files: a change of them does not make it run again. For files "+
		"that are inputs, give --build-context NAME=SOURCE and RUN --mount=from=NAME. ro, nosuid "+
		"and noexec limit what a RUN can do; with O, changes of a directory are thrown away when "+
		"the RUN ends; z, Z and the names of propagation have no effect.")
	defineLimits(fs, &f.shmSize, &f.ulimits)
	fs.StringSliceVar(&f.allow, "allow", nil,
		"`network.host|security.insecure|device` permit RUN --network, --security or --device\n"+
			"network.host permits RUN --network=host, security.insecure RUN --security=insecure, "+
			"device all devices, and device=NAME[,alias=ALIAS] those that a RUN --device=NAME "+
			"requests, or with an alias a RUN --device=ALIAS. The other permissions of buildx "+
			"are accepted and have no effect: "+otherPermissions())
	defineSpecDirs(fs, &f.specDirs)
	fs.IntVar(&f.jobs, "jobs", 0, "`N` RUN commands at the same time\n"+
		"Without the flag, and with 0, all that do not depend on others run at the same time.")
}

// defineSpecDirs defines --cdi-spec-dir.
func defineSpecDirs(fs *pflag.FlagSet, dirs *[]string) {
	fs.Var((*list)(dirs), "cdi-spec-dir",
		"`DIR` directory of CDI specifications\n"+
			"They describe the devices for RUN --device. A device in a later directory replaces "+
			"one of the same name. Without the flag the directories are "+
			strings.Join(cdi.DefaultDirs(), " and ")+".")
}

func (f *buildFlags) defineChecks(fs *pflag.FlagSet) {
	fs.BoolVar(&f.check, "check", false, "check the Dockerfile and build nothing\n"+
		"All stages are checked, or those that --target needs. The exit status is 1 if there are "+
		"findings.")
	f.call.action = "build"
	fs.Var(&f.call, "call", "`build|check|outline|targets` build, check, or list stages\n"+
		"check is the same as --check; outline lists the build arguments, secrets and SSH agents "+
		"of the target; targets lists the stages; subrequests.describe lists what BuildKit calls "+
		"subrequests. With the suffix ,format=json they print JSON, "+
		"with ,format=sarif check prints SARIF, and with ,ignorestatus=true findings of check do "+
		"not change the exit status.")
	fs.StringSliceVar(&f.lintExperimental, "lint", nil,
		"`RULE` also run these experimental lint rules, or all")
	fs.Var(newChoice(&f.analyze.format, "", reportFormats...), "analyze",
		"report wasted bytes after the build\n"+
			"The report lists how many bytes each instruction wastes. Without a value it is text.")
	fs.Lookup("analyze").NoOptDefVal = "text"
	f.analyze.defineGate(fs)
}

func (f *buildFlags) defineDisplay(fs *pflag.FlagSet) {
	fs.Var(newProgress(&f.progress), "progress", progressUsage)
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print only the image ID")
	fs.Var(newChoice(&f.format, "text", "text", "json", "sarif", "oci", "docker"), "format",
		"format of --check, or of the image\n"+
			"text and json are formats of --check and --call, and sarif is one of --check, for "+
			"GitHub and other services that show findings. As with podman, docker is the image "+
			"with Docker's media types, as with --output …,oci-mediatypes=false, and oci is the "+
			"image that layerbuild makes without the flag.")
	fs.Var(&f.github, "github", "`off|all|PART,…` what to do on a runner of GitHub Actions\n"+
		"The parts are annotations of findings and errors, groups in the log, a summary of the "+
		"step, and waste, which is part of the summary. Without the flag it is $"+
		githubVariable+", or else all. Without GITHUB_ACTIONS=true it has no effect.")
	fs.Var(&f.logFile, "logfile", "`FILE` write the progress to a file\n"+
		"The plain display is written to the file, and only the error that ends the build to "+
		"standard error. With --progress rawjson or json the file has that format.")
}

// prepare checks the command line.
func (f *buildFlags) prepare(e *env, args []string) (runFunc, error) {
	if err := f.checkQuiet(); err != nil {
		return nil, err
	}
	if err := errors.Join(f.state.resolve(e), resolveProgress(e, &f.progress)); err != nil {
		return nil, err
	}
	if err := f.state.access(&f.registry); err != nil {
		return nil, err
	}
	o, err := f.options(e, args)
	if err != nil {
		return nil, err
	}
	if err := o.CheckOutputs(); err != nil {
		return nil, err
	}
	rules, err := f.analyze.forBuild(e, &o)
	if err != nil {
		return nil, err
	}
	if f.call.action == describeCall {
		e.noState = true
		return func(context.Context) error {
			warnNoEffect(e, f.display(), f.withoutEffect(&o))
			return f.reportSubrequests(e)
		}, nil
	}
	if f.policy, err = storagePolicy(e, f.keep); err != nil {
		return nil, err
	}
	if f.runner, err = resolveGitHub(e, f.github); err != nil {
		return nil, err
	}
	f.analyze.runner = f.runner
	return func(ctx context.Context) error {
		err := f.run(ctx, e, o, rules)
		if err != nil && !errors.As(err, new(exitError)) && !errors.Is(err, context.Canceled) {
			f.runner.failed(e, err, "") // it has no place in the Dockerfile
		}
		return err
	}, nil
}

// checkQuiet returns an error if a display is requested that --quiet does not show, as buildx does.
// A display that a variable requests is none.
func (f *buildFlags) checkQuiet() error {
	switch f.progress {
	case "auto", "quiet", "none":
		return nil
	}
	if !f.quiet || f.logFile != "" {
		return nil
	}
	return badValue("progress", f.progress,
		errors.New("--quiet prints only the image ID; give one of them"))
}

// display returns the mode of the display.
func (f *buildFlags) display() string {
	if f.quiet {
		return "quiet"
	}
	return f.progress
}

// run runs the build.
func (f *buildFlags) run(ctx context.Context, e *env, o imagebuild.Options,
	rules gateRules) (err error) {
	mode := f.display()
	if o.ListTargets || o.Outline {
		mode = "quiet"
	}
	out, closeLog, err := f.openLog(e)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := closeLog(); err == nil && cerr != nil {
			err = fmt.Errorf("--logfile: %w", cerr)
		}
	}()
	display, err := ui.New(f.displayMode(mode), out, ui.Options{Getenv: e.getenv,
		GitHub: toRunner(e, out), Groups: f.runner.groups && toRunner(e, out)})
	if err != nil {
		return err
	}
	o.Sink = display.Sink()
	state, images, err := f.state.open(ctx)
	if err != nil {
		return errors.Join(err, display.Close())
	}
	defer state.Close()
	defer f.collect(ctx, e, state, time.Now())
	o.Export = f.state.exportEnv(e, state, images)
	for _, message := range f.withoutEffect(&o) {
		o.Sink(event.Warning{Message: message, Time: time.Now()})
	}
	o.Upload = uploader{images, state.Store}
	images.openCaches(&o, state)
	var res *imagebuild.Result
	images.warnings.sendTo(o.Sink, func() {
		res, err = imagebuild.Build(ctx, state, images.resolver, o)
	})
	if cerr := display.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("show the progress: %w", cerr)
	}
	return f.finish(ctx, e, &finished{o: o, rules: rules, mode: mode, out: out, display: display,
		state: state, images: images, res: res}, err)
}

// finished is a build that has ended.
type finished struct {
	o       imagebuild.Options
	rules   gateRules
	mode    string
	out     *os.File // of the display
	display *ui.UI
	state   *state.State
	images  *images
	res     *imagebuild.Result
}

// finish prints the result of a build, or the error that ended it, and writes its files.
func (f *buildFlags) finish(ctx context.Context, e *env, b *finished, err error) error {
	print := ui.PrintOptions{Color: ui.Color(e.stderr, e.getenv),
		Colors: e.getenv("BUILDKIT_COLORS")}
	if !f.builds() {
		printGeneral(e, f.display(), b.display.Warnings())
	}
	if b.o.ListTargets && err == nil {
		return f.reportTargets(e, b.res)
	}
	if b.o.Outline && err == nil {
		return f.reportOutline(e, b.res)
	}
	file := f.dockerfilePath(e, &b.o, b.res)
	if b.o.Check {
		f.annotateWarnings(e, b, file)
		return f.reportCheck(e, b, err, print)
	}
	if !ui.Silent(b.mode) && !ui.ForPrograms(b.mode) {
		// an error means that standard error is closed
		_ = ui.PrintWarnings(e.text(b.out), b.display.Warnings(), ui.PrintOptions{
			Color: ui.Color(b.out, e.getenv), Colors: e.getenv("BUILDKIT_COLORS")})
	}
	f.annotateWarnings(e, b, file)
	if err != nil {
		f.runner.writeSummary(e, b.display, summaryTitle(b.res), err, "")
		return f.explain(e, b, err, print)
	}
	if err := f.write(e, b); err != nil {
		return err
	}
	f.analyze.dockerfile = file
	reports, waste, err := f.analyses(ctx, e, b)
	f.runner.writeSummary(e, b.display, summaryTitle(b.res), nil, waste)
	if err != nil || !b.o.Analyze {
		return err
	}
	return f.analyze.reportAll(e, reports)
}

// analyses analyzes the image if --analyze or the summary needs it. waste is for the summary. If
// only the summary needs the analysis, an error is in waste, and does not fail the build.
func (f *buildFlags) analyses(ctx context.Context, e *env, b *finished) (list []*analyze.Report,
	waste string, err error) {
	forSummary := f.runner.summary && f.runner.waste && b.o.WantsImage()
	if !b.o.Analyze && !forSummary {
		return nil, "", nil
	}
	if b.res.Absent {
		return nil, "The waste is not known: layers of the image are only in the registry. " +
			"`layerbuild analyze` reads them there.\n", nil
	}
	err = store.Retry(func() error {
		list, err = f.analyze.results(ctx, b)
		return err
	})
	switch {
	case err == nil && forSummary:
		waste = wasteSummary(list)
	case err != nil && !b.o.Analyze && ctx.Err() == nil:
		return nil, "The waste is not known: " + markdown.Escape(printable(err)) + "\n", nil
	}
	return list, waste, err
}

// annotateWarnings writes annotations of the build's warnings, unless only errors are printed, or
// programs read standard error.
func (f *buildFlags) annotateWarnings(e *env, b *finished, file string) {
	if !ui.Silent(b.mode) && !ui.ForPrograms(b.mode) {
		f.runner.warnings(e, b.display.Warnings(), file)
	}
}

// collect removes old and unused parts of the build cache. An error does not fail the build.
func (f *buildFlags) collect(ctx context.Context, e *env, state *state.State, began time.Time) {
	if ctx.Err() != nil {
		return
	}
	if err := state.Collect(ctx, f.policy, began); err != nil {
		fmt.Fprintln(e.stderr, "layerbuild: warning:", err)
	}
}

// explain prints the error that ended a build.
func (f *buildFlags) explain(e *env, b *finished, err error, print ui.PrintOptions) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	res := b.res
	fail := ui.Failure{Err: err}
	var step *build.StepError
	var parse *parser.Error
	switch {
	case errors.As(err, &step):
		fail = ui.Failure{Step: step.Step, File: step.File, Source: res.Text,
			Start: step.Range.Start, End: step.Range.End, Err: step.Err}
		if id, ok := b.display.Failed(); ok {
			_, fail.Output = b.display.Output(id)
		}
	case errors.As(err, &parse):
		fail = ui.Failure{File: parse.File, Source: res.Text, Start: parse.Range.Start,
			End: parse.Range.End, Err: parse.Err}
	}
	// Several targets may have one Dockerfile, so that its name is not enough.
	if t, ok := errors.AsType[*imagebuild.TargetError](err); ok && fail.Err != err {
		fail.Err = &imagebuild.TargetError{Name: t.Name, Err: fail.Err}
	}
	_ = fail.Print(e.text(e.stderr), print)
	f.runner.failed(e, err, f.dockerfilePath(e, &b.o, res))
	return exitError{exitFailed}
}

// write writes the additional files of a successful build, such as the metadata.
func (f *buildFlags) write(e *env, b *finished) error {
	id := b.res.Metadata.ID().String()
	if f.iidFile != "" {
		if err := atomicfile.WriteFile(f.iidFile, []byte(id), 0o644); err != nil {
			return fmt.Errorf("--iidfile: %w", err)
		}
	}
	if f.metadataFile != "" {
		data, err := metadata(e, b)
		if err != nil {
			return err
		}
		if err := atomicfile.WriteFile(f.metadataFile, append(data, '\n'), 0o644); err != nil {
			return fmt.Errorf("--metadata-file: %w", err)
		}
	}
	if f.after != nil {
		if err := f.after(e, b.res); err != nil {
			return err
		}
	}
	toStdout := slices.ContainsFunc(b.o.Outputs, func(s export.Spec) bool { return s.Dest == "-" })
	if b.mode == "quiet" && id != "" && !toStdout {
		_, err := fmt.Fprintln(e.stdout, id)
		return err
	}
	return nil
}

// metadata returns the content of the file of --metadata-file.
func metadata(e *env, b *finished) ([]byte, error) {
	m := b.res.Metadata
	m.Ref = newBuildRef()
	var err error
	if m.Warnings, err = warningsForMetadata(e, b.display); err != nil {
		return nil, err
	}
	return m.JSON()
}

// newBuildRef returns a name for a build: as in buildx that of the builder, of its node, and 25
// letters and digits.
func newBuildRef() string { return "layerbuild/layerbuild/" + strings.ToLower(rand.Text()[:25]) }

// warningsForMetadata returns the warnings of a build for the file of --metadata-file, or nil if
// there are none or the variable does not request them.
func warningsForMetadata(e *env, display *ui.UI) (json.RawMessage, error) {
	if !boolOf(e.getenv(metadataWarnings)) {
		return nil, nil
	}
	return display.JSONWarnings()
}

// metadataWarnings is the variable that adds the warnings to the file of --metadata-file, as in
// buildx.
const metadataWarnings = "BUILDX_METADATA_WARNINGS"

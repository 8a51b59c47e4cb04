package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/spf13/pflag"
)

// withoutEffect returns a warning for each option that has no effect in combination with others.
// They are no errors: scripts add a flag such as --check to a command line that works, and buildx
// accepts the others in silence.
func (f *buildFlags) withoutEffect(o *imagebuild.Options) []string {
	if !f.builds() || o.Check {
		return append(f.withoutBuild(), f.others.notes()...)
	}
	const noImage = "the outputs are files or cacheonly, and no image is made"
	var list []string
	for _, row := range [...]struct {
		is      bool
		message string
	}{
		{f.iidFile != "" && !o.WantsImage(), "--iidfile gets an empty ID: " + noImage},
		// Targets of bake inherit attributes, and --no-cache of bake is for all.
		{f.set != nil && len(f.labels) > 0 && !o.WantsImage(),
			"--label has no effect: " + noImage},
		{f.format == "docker" && !o.WantsImage(), "--format docker has no effect: " + noImage},
		{f.resultFormat() != "text",
			"--format " + f.resultFormat() + " has no effect without --check or --call"},
		{f.set != nil && o.Cache.No && len(f.cacheFrom) > 0,
			"--cache-from has no effect: without a cache every step runs again"},
		{f.set != nil && o.Cache.No && len(f.noCacheFilter) > 0,
			"--no-cache-filter has no effect: the steps of all stages run again"},
	} {
		if row.is {
			list = append(list, row.message)
		}
	}
	return append(list, f.others.notes()...)
}

// builds reports whether the flags request a build, and not only something about the Dockerfile.
func (f *buildFlags) builds() bool { return f.call.action == "build" && !f.check }

// withoutBuild returns a warning for the flags of the command line that have no effect because
// nothing is built.
func (f *buildFlags) withoutBuild() []string {
	if f.set == nil { // of a target of bake: its attributes are for all uses of the target
		return nil
	}
	with := "--call " + f.call.action
	var list []string
	switch {
	case f.call.action == "build":
		with = "--check"
	case f.check && f.call.action != "check":
		list = []string{"--check has no effect with " + with}
	}
	return append(list, noEffect(f.set, with, "nothing is built", needsBuild)...)
}

// needsBuild reports whether a flag of build has an effect only if something is built.
func needsBuild(flag *pflag.Flag) bool {
	switch flag.Name {
	case "secret", "ssh":
		return true
	}
	return slices.Contains([]string{"Outputs", "Cache", "Isolation of RUN"}, describe(flag).group)
}

// noEffect returns a warning if there are flags on the command line for which without returns true.
// with is the flag because of which they have no effect, and why the reason.
func noEffect(set *pflag.FlagSet, with, why string, without func(*pflag.Flag) bool) []string {
	var names []string
	set.Visit(func(flag *pflag.Flag) {
		value := flag.Value.String()
		// A script with --push=$PUSH sets it to false.
		off := value == flag.DefValue || value == "false" && flag.DefValue == ""
		if without(flag) && !off {
			names = append(names, "--"+flag.Name)
		}
	})
	if len(names) == 0 {
		return nil
	}
	verb := "has"
	if len(names) > 1 {
		verb = "have"
	}
	return []string{fmt.Sprintf("%s %s no effect with %s: %s", joinWords(names, "and"), verb, with,
		why)}
}

// withoutEffect returns a warning for the flags of bake that have no effect because nothing is
// built. The attributes of targets are for all uses of a target.
func (f *bakeFlags) withoutEffect() []string {
	build := []string{"cdi-spec-dir", "jobs"}
	file := "metadata-file" // with --check it is written, too
	targets := []string{"load", "no-cache", "provenance", "push", "sbom"}
	var with, why string
	var names []string
	switch {
	case f.list != "":
		with, why = "--list", "it lists what the files define"
		names = slices.Concat(build, targets, []string{file, "call", "check", "pull"})
	case f.print:
		with, why, names = "--print", "nothing is built", append(build, file)
	case f.check:
		with, why, names = "--check", "nothing is built", slices.Concat(build, targets)
	case f.call.action != "build":
		with, why = "--call "+f.call.action, "nothing is built"
		names = slices.Concat(build, targets)
	default:
		return nil
	}
	return noEffect(f.set, with, why,
		func(flag *pflag.Flag) bool { return slices.Contains(names, flag.Name) })
}

// warnNoEffect prints warnings on standard error, unless the display shows none, or is read by
// programs.
func warnNoEffect(e *env, progress string, messages []string) {
	var list []event.Warning
	for _, message := range messages {
		list = append(list, event.Warning{Message: message, Time: time.Now()})
	}
	printGeneral(e, progress, list)
}

// printGeneral prints the warnings that are not findings about a Dockerfile.
func printGeneral(e *env, progress string, list []event.Warning) {
	if ui.Silent(progress) || ui.ForPrograms(progress) {
		return
	}
	general := slices.DeleteFunc(slices.Clone(list),
		func(w event.Warning) bool { return w.Rule != "" })
	// an error means that standard error is closed
	_ = ui.PrintWarnings(e.text(e.stderr), general, ui.PrintOptions{
		Color: ui.Color(e.stderr, e.getenv), Colors: e.getenv("BUILDKIT_COLORS")})
}

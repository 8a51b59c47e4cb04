package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/spf13/pflag"
)

// flagValues are values of flags that take more than any text.
var flagValues = map[string]string{"layers": "false", "github": "off", "analyze": "text",
	"cache-ttl": "1h", "call": "check", "format": "json", "jobs": "2", "network": "none",
	"progress": "plain", "shm-size": "1m", "driver": "copy", "concurrent-uploads": "2",
	"concurrent-downloads": "2", "retry": "2", "retry-delay": "1s"}

// parseFlag parses a command line that has one flag after others.
func parseFlag(t *testing.T, set *pflag.FlagSet, flag *pflag.Flag, others ...string) {
	t.Helper()
	value := flagValues[flag.Name]
	switch {
	case value != "":
	case flag.Value.Type() == "bool":
		value = "true"
	case flag.NoOptDefVal != "":
		value = flag.NoOptDefVal
	default:
		value = "x"
	}
	if err := set.Parse(append(others, "--"+flag.Name+"="+value)); err != nil {
		t.Errorf("--%s=%s: %v", flag.Name, value, err)
	}
}

// TestWithoutBuild gives each flag of build together with each flag because of which nothing is
// built: the flag has a warning, or it is one of those that apply to the Dockerfile, the context,
// registries and the display.
func TestWithoutBuild(t *testing.T) {
	effective := []string{"accept", "analyze", "build-arg", "build-arg-file", "build-context",
		"call", "check", "config", "fail-on", "fail-over", "file", "format", "github", "lint",
		"logfile", "platform", "progress", "pull", "pull-always", "pull-never", "quiet",
		"source-date-epoch", "target", "timestamp"}
	names := func() (list []string) {
		set := newFlagSet(buildVerb())
		(&buildFlags{}).define(set)
		set.VisitAll(func(flag *pflag.Flag) {
			switch group := describe(flag).group; group {
			case groupOfState, "Registries":
			default:
				list = append(list, flag.Name)
			}
		})
		return list
	}()
	for _, mode := range []string{"--check", "--call=check", "--call=outline", "--call=targets",
		"--call=" + describeCall} {
		for _, name := range names {
			if name == "call" || name == "check" {
				continue // below
			}
			set := newFlagSet(buildVerb())
			f := buildFlags{set: set}
			f.define(set)
			parseFlag(t, set, set.Lookup(name), mode)
			got := f.withoutEffect(&imagebuild.Options{})
			want := "--" + name + " has no effect with " + strings.Replace(mode, "=", " ", 1) +
				": nothing is built"
			if slices.Contains(effective, name) {
				want = ""
			}
			if strings.Join(got, "\n") != want {
				t.Errorf("%s --%s: warnings %q, want %q", mode, name, got, want)
			}
		}
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--check", "--call=outline"}, "--check has no effect with --call outline"},
		{[]string{"--check", "--call=check,format=json"}, ""},
		{[]string{"--check", "--push=false", "--no-cache=false", "--provenance=false",
			"--layers=true"}, ""},
		{[]string{"--check", "-t", "a", "-o", "x", "--secret", "id=a"},
			"--tag, --output and --secret have no effect with --check: nothing is built"},
	} {
		set := newFlagSet(buildVerb())
		f := buildFlags{set: set}
		f.define(set)
		if err := set.Parse(tt.args); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(f.withoutEffect(&imagebuild.Options{}), "\n"); got != tt.want {
			t.Errorf("%q: warnings %q, want %q", tt.args, got, tt.want)
		}
	}
}

// TestBakeWithoutBuild is like TestWithoutBuild for the flags of bake.
func TestBakeWithoutBuild(t *testing.T) {
	inputs := []string{"allow", "file", "progress", "set", "var"}
	for mode, effective := range map[string][]string{
		"--check":        {"pull", "call", "check", "print", "metadata-file"},
		"--call=outline": {"pull", "call", "check", "print", "metadata-file"},
		"--print": {"pull", "no-cache", "push", "load", "sbom", "provenance", "print", "list",
			"call", "check"},
		"--list=targets": {"print", "list"},
	} {
		set := newFlagSet(bakeVerb())
		(&bakeFlags{}).define(set)
		set.VisitAll(func(flag *pflag.Flag) {
			if group := describe(flag).group; group == groupOfState || group == "Registries" {
				return
			}
			set := newFlagSet(bakeVerb())
			f := bakeFlags{set: set}
			f.define(set)
			parseFlag(t, set, set.Lookup(flag.Name), mode)
			want := !slices.Contains(inputs, flag.Name) && !slices.Contains(effective, flag.Name)
			got := f.withoutEffect()
			if (len(got) > 0) != want {
				t.Errorf("%s --%s: warnings %q, want one: %v", mode, flag.Name, got, want)
			}
		})
	}
}

// TestWithoutImage checks the warnings for flags that need an image, a cache or a file, with each
// kind of output.
func TestWithoutImage(t *testing.T) {
	flags := map[string]func(f *buildFlags, o *imagebuild.Options){
		"--iidfile":       func(f *buildFlags, _ *imagebuild.Options) { f.iidFile = "f" },
		"--label":         func(f *buildFlags, _ *imagebuild.Options) { f.labels = []string{"a=b"} },
		"--format docker": func(f *buildFlags, _ *imagebuild.Options) { f.format = "docker" },
	}
	for spec, image := range map[string]bool{"": true, "type=image,name=a": true,
		"type=oci,dest=a": true, "type=docker,dest=a": true, "type=local,dest=a": false,
		"type=tar,dest=a": false, "type=cacheonly": false} {
		for name, set := range flags {
			f := buildFlags{set: newFlagSet(buildVerb())}
			f.call.action, f.format = "build", "text"
			var o imagebuild.Options
			set(&f, &o)
			if spec != "" {
				parsed, err := export.Parse(spec)
				if err != nil {
					t.Fatal(err)
				}
				o.Outputs = []export.Spec{parsed}
			}
			got := strings.Join(f.withoutEffect(&o), "\n")
			if image != (got == "") || !image && !strings.HasPrefix(got, name+" ") {
				t.Errorf("-o %s with %s: warning %q, want one: %v", spec, name, got, !image)
			}
		}
	}
	for _, tt := range []struct {
		args, want string
	}{
		{"--no-cache --cache-from=a", "--cache-from has no effect: without a cache every step runs " +
			"again"},
		{"--no-cache --no-cache-filter=a", "--no-cache-filter has no effect: the steps of all " +
			"stages run again"},
		{"--cache-from=a --no-cache-filter=a", ""},
	} {
		set := newFlagSet(buildVerb())
		f := buildFlags{set: set}
		f.define(set)
		if err := set.Parse(strings.Fields(tt.args)); err != nil {
			t.Fatal(err)
		}
		o := imagebuild.Options{}
		o.Cache.No = f.noCache
		if got := strings.Join(f.withoutEffect(&o), "\n"); got != tt.want {
			t.Errorf("%s: warning %q, want %q", tt.args, got, tt.want)
		}
	}
}

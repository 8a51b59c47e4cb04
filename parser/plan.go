package parser

import (
	"iter"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PlanOptions says what to build of a File and with which values.
type PlanOptions struct {
	// BuildArgs are the values of --build-arg.
	BuildArgs map[string]string
	// Target is the name or the index of a stage; empty for the last one.
	Target string
	// Labels are key=value pairs for the target's configuration, added by
	// Plan.Finish. The last of two with one key wins.
	Labels []string
	// BuildPlatform is where commands run; zero for the host.
	BuildPlatform ocispec.Platform
	// Platform is what is built; zero for BuildPlatform.
	Platform ocispec.Platform
	// Contexts are the names of the named build contexts. A stage or an image
	// of such a name is replaced by the context.
	Contexts []string
	// Ignore are the patterns of the ignore file of the main context; only
	// the CopyIgnoredFile rule looks at them.
	Ignore []string
	// Lint is merged with the file's own check directive.
	Lint LintOptions
}

// LintOptions configures the rules. The zero value runs all rules that are not
// experimental.
type LintOptions struct {
	// Skip names rules that do not run; "all" is every one.
	Skip []string
	// Experimental names experimental rules that do; "all" is every one.
	Experimental []string
	// Error makes Plan.Check fail when a rule found something.
	Error bool
}

// Plan is what has to be built for one target and one platform.
type Plan struct {
	// Stages are the stages that Target needs, each after those that it needs.
	Stages []*Stage
	// Target is the last of Stages.
	Target *Stage
}

// Stage is a FROM and what follows it.
type Stage struct {
	// Index counts the stages of the file from 0.
	Index int
	// Name is the name in lower case; empty for a stage without one.
	Name string
	// Base is what the stage starts from.
	Base Input
	// Platform is what the stage is built for.
	Platform ocispec.Platform
	// Needs are the stages whose results this one uses, its base included, as
	// far as the text tells: ONBUILD triggers of an image can name others.
	Needs []*Stage
	// Range is where the FROM is written.
	Range Range
	// Total is how many steps have an action, triggers of a base image not
	// counted.
	Total int
}

// Warning is something that a lint rule found.
type Warning struct {
	// Rule is the name of the rule, such as StageNameCasing.
	Rule string
	// Description says what the rule is about.
	Description string
	// URL is where the rule is explained; it may be empty.
	URL string
	// Msg says what was found.
	Msg string
	// Range is where.
	Range Range
}

// Start gives the configuration that the stage starts with: that of base with
// the default PATH where it has none. For Scratch and for a context without a
// configuration pass the zero value.
func (s *Stage) Start(base dockerspec.DockerOCIImage) dockerspec.DockerOCIImage {
	return base
}

// Steps yields the steps of the stage in order. base is the configuration of
// what FROM names: for a StageInput that of the last step of that stage (its
// steps must have been walked to the end before, since its arguments carry on
// here), and the zero value for Scratch and for a context without one. The
// triggers of base come first. After an error, which is an *Error, nothing
// more is yielded.
//
// Steps may be called several times and for different stages at once.
func (s *Stage) Steps(base dockerspec.DockerOCIImage) iter.Seq2[Step, error] {
	return func(yield func(Step, error) bool) {}
}

// Warnings gives what the lint rules have found so far, each finding once,
// ordered by line. Rules that look at expanded instructions run while steps
// are walked. It may be called at any time.
func (p *Plan) Warnings() []Warning { return nil }

// Check walks all stages without running anything, so that mistakes in any
// instruction and the findings of all rules are known before the first command
// runs. base gives the configuration of a stage's base; it is not called for
// Scratch and StageInput. The error is an *Error for a mistake, and a
// *LintError when LintOptions or the file ask for that and a rule found
// something.
func (p *Plan) Check(base func(*Stage) (dockerspec.DockerOCIImage, error)) error { return nil }

// Finish gives the target's configuration its last touches: labels of the
// options and the platform that was asked for.
func (p *Plan) Finish(img dockerspec.DockerOCIImage) dockerspec.DockerOCIImage { return img }

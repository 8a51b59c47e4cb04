package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/cluster"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/spf13/pflag"
)

// nodes makes the command lines of the nodes of a plan.
type nodes struct {
	f *planFlags
	o *imagebuild.Options

	context string // of the nodes
	file    string // the value of --file for the nodes; "" is none
	claim   string // the volume claim with the context; "" is none
	notes   []string
}

// sameMachine lists flags whose values are files, variables or devices of a machine. Pods do not
// have those of this one.
const sameMachine = "cache-key secret ssh volume authfile cert-dir cdi-spec-dir"

// passedOn lists flags that nodes get as they are. The values of --build-arg and the flags for the
// same are resolved; --creds is a secret.
const passedOn = "cache-mounts cache-mounts-limit pull pull-always pull-never build-context " +
	"tls-verify network add-host dns dns-option dns-search cap-add cap-drop shm-size ulimit " +
	"allow jobs " + sameMachine

// ofImage lists flags that only nodes of images get.
const ofImage = "label annotation provenance sbom attest"

// check checks the flags for the engine, and finds the context of the nodes.
func (n *nodes) check(context string) error {
	if !n.f.forEngine() && n.f.source == "" {
		n.context, n.file = context, n.o.Source.Dockerfile
		return nil
	}
	if err := n.setSource(context); err != nil || !n.f.forEngine() {
		return err
	}
	switch {
	case len(n.f.build.tags) == 0:
		return badValue("format", n.f.format, errors.New("the image that the last node pushes has "+
			"no name; give --tag"))
	case !slices.ContainsFunc(n.o.Cache.Shared,
		func(c imagebuild.SharedCache) bool { return !c.Place.ReadOnly }):
		return badValue("format", n.f.format, errors.New("the nodes share only a cache, and none "+
			"is written; give --cache"))
	case n.f.build.registry.creds != "":
		return errors.New("--creds: a plan has no passwords; log in where the nodes run")
	case n.o.Source.Dockerfile == "-" || context == "-":
		return errors.New("the nodes do not have the standard input of this process")
	}
	for _, tag := range n.f.build.tags {
		if !reference.HasRegistry(tag) {
			return badValue("tag", tag, errors.New("the name of a registry is missing, such as "+
				"registry.example.com/"+tag))
		}
	}
	for name := range strings.FieldsSeq(sameMachine) {
		if n.f.inPods() && n.f.fs.Changed(name) {
			return fmt.Errorf("--%s: pods have no files and variables of this machine", name)
		}
	}
	for _, c := range n.o.Cache.Shared {
		if s := c.Place.String(); shownCache(s) != s {
			return badValue("cache", shownCache(s), errors.New("a plan has no passwords"))
		}
		if n.f.inPods() && c.Place.Key != nil {
			return errors.New("--cache-key: pods have no key of this machine")
		}
	}
	for name, value := range n.o.Source.Contexts {
		if n.f.inPods() && isLocal(strings.TrimPrefix(value, image.SchemeLayout)) {
			return badValue("build-context", name+"="+value,
				errors.New("pods have no directories of this machine"))
		}
	}
	return nil
}

// isLocal reports whether the name of a context is a file or directory of this machine.
func isLocal(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// setSource finds the context and the Dockerfile of the nodes.
func (n *nodes) setSource(context string) error {
	from := string(n.f.source)
	local := isLocal(context)
	n.context, n.file = context, n.o.Source.Dockerfile
	if from == "" {
		if !local {
			return nil
		}
		if !n.f.inPods() {
			n.notes = append(n.notes, "The context is a directory: "+context+
				" must have the same files on all machines.")
			return nil
		}
		from = "pvc:source"
	}
	claim, pvc := strings.CutPrefix(from, "pvc:")
	if !pvc {
		if err := source.Check(from, source.Options{}); err != nil || isLocal(from) {
			return badValue("source", from, cmp.Or(err,
				errors.New("a URL or pvc:CLAIM[/DIR] is expected")))
		}
		n.context = from
		n.notes = append(n.notes, "The plan was made of the files of "+context+
			", and the nodes read "+from+".")
		return n.setFile(context, "")
	}
	claim, dir, _ := strings.Cut(claim, "/")
	if claim == "" || strings.Trim(claim, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		return badValue("source", from, errors.New("a CLAIM is small letters, digits, dashes and "+
			"dots"))
	}
	if !n.f.inPods() {
		return badValue("source", from, errors.New("only argo, tekton and k8s have volume claims"))
	}
	n.claim, n.context = claim, path.Join(cluster.ClaimPath, path.Join("/", dir))
	n.notes = append(n.notes, "The volume claim "+claim+" must have the files of "+context+
		" at /"+strings.TrimPrefix(path.Join("/", dir), "/")+", and be readable on all nodes.")
	return n.setFile(context, n.context)
}

// setFile finds the Dockerfile of the nodes, which is in the context. dir is the directory of the
// context there; "" if it is at a URL.
func (n *nodes) setFile(context, dir string) error {
	file := n.o.Source.Dockerfile
	if file == "" || file == "-" || !isLocal(context) {
		return nil
	}
	if !isLocal(file) { // it is relative to the context
		file = filepath.Join(context, file)
	}
	inContext, err := relative(context, file)
	if err != nil || !filepath.IsLocal(inContext) {
		return badValue("file", n.o.Source.Dockerfile,
			errors.New("it is outside of the context, and the nodes have only that"))
	}
	n.file = path.Join(dir, filepath.ToSlash(inContext))
	return nil
}

// relative returns the path of a file relative to a directory.
func relative(dir, file string) (string, error) {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if file, err = filepath.Abs(file); err != nil {
		return "", err
	}
	return filepath.Rel(absolute, file)
}

// plan returns the plan of the nodes.
func (n *nodes) plan(res *imagebuild.Result) (*cluster.Plan, error) {
	p := &cluster.Plan{Notes: n.notes, Image: n.f.builderImage(), Claim: n.claim}
	if dir, err := os.Getwd(); err == nil {
		p.Dir = dir
	}
	several := len(res.Previews) > 1
	var images []string
	for i := range res.Previews {
		c := &res.Previews[i]
		platform := parser.FormatPlatform(c.Platform)
		list := cluster.Divide(stageGraph(c), n.f.minCost.Duration)
		suffix := ""
		if several {
			suffix = platform
		}
		for k := range list {
			list[k].Args = n.args(&list[k], c, res, suffix)
		}
		p.Add(list, suffix)
		if several && len(n.f.build.tags) > 0 {
			images = append(images, withSuffix(n.f.build.tags[0], platform))
		}
		for _, st := range c.Stages {
			for _, s := range st.Steps {
				p.Keys = append(p.Keys, string(cmp.Or(s.Key, s.DefKey)))
			}
		}
	}
	if len(images) > 0 {
		args := []string{"layerbuild", "index", "create", "--registry"}
		args = append(args, n.flags("tls-verify authfile cert-dir")...)
		for _, tag := range n.f.build.tags {
			args = append(args, "--tag="+tag)
		}
		p.Join(append(args, images...))
	}
	return p, p.Check()
}

// targetStageArg is the automatic argument with the name of the target.
const targetStageArg = "TARGETSTAGE"

// withSuffix returns the name of the image for one of several platforms.
func withSuffix(tag, platform string) string {
	name, err := reference.Parse(tag)
	if err != nil {
		return tag // the name was checked
	}
	name = name.OrLatest()
	name.Digest = ""
	name.Tag = name.Tag[:min(len(name.Tag), 100)] + "-" + cluster.Label(platform)
	return name.Familiar()
}

// args returns the command line of a node.
func (n *nodes) args(node *cluster.Node, c *imagebuild.Preview, res *imagebuild.Result,
	suffix string) []string {
	args := []string{"layerbuild", "build", "--progress=plain",
		"--platform=" + parser.FormatPlatform(c.Platform)}
	for _, cache := range n.o.Cache.Shared {
		args = append(args, "--cache="+cache.Place.String())
	}
	if n.file != "" {
		args = append(args, "--file="+n.file)
	}
	values := n.o.Args
	target := n.o.Target
	if node.Target != "" {
		target = node.Target
		if _, given := values[targetStageArg]; !given &&
			strings.Contains(string(res.Text), targetStageArg) {
			// The keys of steps that see it are those of the image's build.
			values = maps.Clone(values)
			values[targetStageArg] = cmp.Or(n.o.Target, c.Plan.Target.Name, "default")
		}
	}
	if target != "" {
		args = append(args, "--target="+target)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		args = append(args, "--build-arg="+name+"="+values[name])
	}
	args = append(args, n.flags(passedOn)...)
	switch tags := n.f.build.tags; {
	case node.Target != "" || len(tags) == 0:
		args = append(args, "--output=type=cacheonly")
	default:
		args = append(args, n.flags(ofImage)...)
		for _, tag := range tags {
			if suffix != "" {
				args = append(args, "--tag="+withSuffix(tag, suffix))
				break // the index gets the other names
			}
			args = append(args, "--tag="+tag)
		}
		args = append(args, "--push")
	}
	return append(args, "--", n.context)
}

// flags returns those of some flags that were given, as they were given.
func (n *nodes) flags(names string) []string {
	var args []string
	for name := range strings.FieldsSeq(names) {
		f := n.f.fs.Lookup(name)
		if f == nil || !f.Changed {
			continue
		}
		values := []string{f.Value.String()}
		switch v := f.Value.(type) {
		case *list:
			values = *v
		case *givenList:
			values = *v
		case pflag.SliceValue:
			values = []string{strings.Join(v.GetSlice(), ",")}
		}
		for _, value := range values {
			args = append(args, "--"+name+"="+value)
		}
	}
	return args
}

// stageGraph returns the stages of a preview for the division. A step is not built if a cache that
// the nodes read has its result.
func stageGraph(c *imagebuild.Preview) cluster.Graph {
	g := cluster.Graph{Platform: parser.FormatPlatform(c.Platform),
		Stages: make([]cluster.Stage, len(c.Stages))}
	at := map[*parser.Stage]int{}
	names := map[string]int{}
	for i, st := range c.Stages {
		at[st.Stage] = i
		names[build.StageName(st.Stage)]++
		if st.Stage == c.Plan.Target {
			g.Final = i
		}
	}
	for i := range c.Stages {
		st := &c.Stages[i]
		s := &g.Stages[i]
		s.Name = build.StageName(st.Stage)
		if s.Target = s.Name; names[s.Name] > 1 {
			s.Target = strconv.Itoa(st.Stage.Index)
		}
		var from []parser.Input
		s.Known = true
		for k := range st.Steps {
			step := &st.Steps[k]
			if len(step.Places) > 0 {
				continue
			}
			s.Steps++
			from = append(from, step.From...)
			took, known := c.Took(st.Stage, step)
			s.Cost, s.Known = s.Cost+took, s.Known && known
		}
		if s.Steps > 0 || len(st.Steps) == 0 {
			from = append(from, st.Stage.Base)
		}
		for _, in := range from {
			if of, ok := in.(parser.StageInput); ok {
				if k, there := at[of.Stage]; there && !slices.Contains(s.Needs, k) {
					s.Needs = append(s.Needs, k)
				}
			}
		}
	}
	return g
}

// platformReport returns the report of the stages for one platform.
func platformReport(c *imagebuild.Preview) planPlatform {
	p := planPlatform{Platform: parser.FormatPlatform(c.Platform),
		Target: build.StageName(c.Plan.Target)}
	g := stageGraph(c)
	for i := range c.Stages {
		st := &c.Stages[i]
		s := planStage{Name: g.Stages[i].Name, Index: st.Stage.Index, Line: st.Stage.Range.Start,
			Platform: parser.FormatPlatform(st.Stage.Platform), Steps: []planStep{},
			Seconds: secondsOf(g.Stages[i].Cost, g.Stages[i].Known),
			Needs:   planNeeds{[]string{}, []string{}, []string{}}}
		s.Needs.add(st.Stage.Base)
		for k := range st.Steps {
			step := &st.Steps[k]
			for _, in := range step.From {
				s.Needs.add(in)
			}
			took, known := c.Took(st.Stage, step)
			s.Steps = append(s.Steps, planStep{Number: step.Number, Line: step.Step.Range.Start,
				Instruction: step.Step.Text, Key: string(step.Key),
				DefinitionKey: string(step.DefKey), Local: step.Local,
				Caches: append([]string{}, step.Places...), Seconds: secondsOf(took, known)})
		}
		p.Stages = append(p.Stages, s)
	}
	return p
}

// add adds an input.
func (n *planNeeds) add(in parser.Input) {
	list, name := &n.Stages, ""
	switch in := in.(type) {
	case parser.StageInput:
		name = build.StageName(in.Stage)
	case parser.ImageInput:
		list, name = &n.Images, in.Ref
	case parser.ContextInput:
		list, name = &n.Contexts, in.Name
	default:
		return // scratch
	}
	if !slices.Contains(*list, name) {
		*list = append(*list, name)
	}
}

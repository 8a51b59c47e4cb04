package parser

import (
	"encoding/json"
	"fmt"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// Text writes the plan out: every stage, step and warning, and what the target's
// configuration becomes. It is for people and for tests, and stable. base is as
// for Check.
func (p *Plan) Text(base func(*Stage) (dockerspec.DockerOCIImage, error)) (string, error) {
	var b strings.Builder
	var last *Stage
	header := func(s *Stage) {
		fmt.Fprintf(&b, "stage %s: %s, %s, line %d\n", s.label(), inputText(s.Base), FormatPlatform(s.Platform), s.Range.Start)
		for _, n := range s.Needs {
			fmt.Fprintf(&b, "  needs %s\n", n.label())
		}
		last = s
	}
	done, err := p.walk(base, func(s *Stage, step Step) {
		if s != last {
			header(s)
		}
		fmt.Fprintf(&b, "  %d-%d %s\n", step.Range.Start, step.Range.End, quoteLines(step.Name))
		if step.History != "" && step.History != step.Name {
			fmt.Fprintf(&b, "      history %s\n", quoteLines(step.History))
		}
		if step.Action != nil {
			fmt.Fprintf(&b, "      %s\n", actionText(step.Action))
		}
	})
	if err != nil {
		return "", err
	}
	if last != p.Target {
		header(p.Target)
	}
	img := p.Finish(done[p.Target])
	config, err := json.Marshal(img)
	if err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	fmt.Fprintf(&b, "config %s\n", config)
	for _, w := range p.Warnings() {
		fmt.Fprintf(&b, "warning %d-%d %s: %s\n", w.Range.Start, w.Range.End, w.Rule, w.Msg)
	}
	return b.String(), nil
}

func inputText(in Input) string {
	switch in := in.(type) {
	case StageInput:
		return "stage " + in.Stage.label()
	case ImageInput:
		return "image " + in.Ref + " " + FormatPlatform(in.Platform)
	case ContextInput:
		return strings.TrimSpace("context " + in.Name)
	case Scratch:
		return "scratch"
	default:
		panic("unreachable")
	}
}

// actionText is the action as it is hashed into a key, and what is not in there.
func actionText(a Action) string {
	key, err := json.Marshal(a)
	if err != nil {
		panic("unreachable: " + err.Error())
	}
	var extra string
	switch a := a.(type) {
	case *Run:
		for _, m := range a.Mounts {
			if m.From != nil {
				extra += fmt.Sprintf(" %s=(%s)", m.Target, inputText(m.From))
			}
		}
		if len(a.Proxy) > 0 {
			extra += fmt.Sprintf(" proxy=%q", a.Proxy)
		}
		return "run " + string(key) + extra
	case *Copy:
		return "copy " + string(key) + " from " + inputText(a.From)
	case *Mkdir:
		return "mkdir " + string(key)
	default:
		panic("unreachable")
	}
}

// quoteLines keeps a text on one line.
func quoteLines(s string) string {
	return strings.NewReplacer("\\", `\\`, "\n", `\n`, "\r", `\r`).Replace(s)
}

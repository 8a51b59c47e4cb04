package parser

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// Text returns the plan as text: every stage, step and warning, and the target's final
// configuration. The format is meant for people and for tests, and is stable. base is as for Check.
func (p *Plan) Text(base func(*Stage) (dockerspec.DockerOCIImage, error)) (string, error) {
	steps := map[*Stage]string{}
	done, err := p.walk(base, func(s *Stage, step Step) { steps[s] += stepText(step) })
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, s := range p.Stages {
		fmt.Fprintf(&b, "stage %s: %s, %s, line %d", s.Label(), inputText(s.Base),
			FormatPlatform(s.Platform), s.Range.Start)
		for i, n := range s.Needs {
			b.WriteString([]string{", needs ", " "}[min(i, 1)] + n.Label())
		}
		b.WriteString("\n" + steps[s])
	}
	fmt.Fprintf(&b, "config %s\n", jsonText(p.Finish(done[p.Target])))
	for _, w := range p.Warnings() {
		fmt.Fprintf(&b, "warning %d-%d %s: %s\n", w.Range.Start, w.Range.End, w.Rule, w.Msg)
	}
	return b.String(), nil
}

func stepText(s Step) string {
	out := fmt.Sprintf("  %d-%d %s\n", s.Range.Start, s.Range.End, oneLine(s.Name))
	if s.History != "" && s.History != s.Name {
		out += "      history " + oneLine(s.History) + "\n"
	}
	if s.Action != nil {
		out += "      " + actionText(s.Action) + "\n"
	}
	return out
}

func inputText(in Input) string {
	switch in := in.(type) {
	case StageInput:
		return "stage " + in.Stage.Label()
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

// actionText returns the JSON of an action, from which its key is computed, followed by the fields
// that are not in the JSON.
func actionText(a Action) string {
	switch a := a.(type) {
	case *Run:
		out := "run " + jsonText(a)
		for _, m := range a.Mounts {
			if m.From != nil {
				out += fmt.Sprintf(" %s=(%s)", m.Target, inputText(m.From))
			}
		}
		if len(a.Proxy) > 0 {
			out += fmt.Sprintf(" proxy=%q", a.Proxy)
		}
		return out
	case *Copy:
		return "copy " + jsonText(a) + " from " + inputText(a.From)
	case *Mkdir:
		return "mkdir " + jsonText(a)
	default:
		panic("unreachable")
	}
}

// jsonText returns v as JSON on one line, without escapes for < and &.
func jsonText(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("unreachable: " + err.Error())
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func oneLine(s string) string {
	return strings.NewReplacer("\\", `\\`, "\n", `\n`, "\r", `\r`).Replace(s)
}

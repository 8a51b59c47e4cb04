package parser

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// EpochArg is the build argument, and the variable of the environment, with the time of the image.
const EpochArg = "SOURCE_DATE_EPOCH"

// EpochSource is a source whose time is the value of SOURCE_DATE_EPOCH: a ContextInput, or a *Copy
// with one remote source, the only ADD of the stage that the value names. nil: there is none.
type EpochSource interface{ epochSource() }

func (ContextInput) epochSource() {}
func (*Copy) epochSource()        {}

// ParseEpoch parses the value of SOURCE_DATE_EPOCH, in seconds since 1970. It returns nil for "".
func ParseEpoch(s string) (*int64, error) {
	if s = strings.TrimSpace(s); s == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("invalid %s: %s (it is not a number of seconds)", EpochArg, s)
	}
	// RFC 3339, in which documents of images have times
	if y := time.Unix(n, 0).UTC().Year(); y < 0 || y > 9999 {
		return nil, fmt.Errorf("invalid %s: %s seconds since 1970 is not in the years 0 to 9999 "+
			"(is it in milliseconds?)", EpochArg, s)
	}
	return &n, nil
}

// setEpoch parses SOURCE_DATE_EPOCH. Its value may also be "context", or the name of a context or
// of a stage, whose own time is used then. As in BuildKit, a context precedes a stage.
func (p *Plan) setEpoch(stages []instructions.Stage) error {
	v, ok := p.opts.BuildArgs[EpochArg]
	if !ok {
		v, _ = p.globals.Get(EpochArg)
	}
	epoch, err := ParseEpoch(v)
	if err == nil {
		p.Epoch = epoch
		if epoch != nil {
			p.setArg(EpochArg, strconv.FormatInt(*epoch, 10))
		} else if ok {
			p.setArg(EpochArg, "")
		}
		return nil
	}
	if v == "context" {
		p.EpochFrom = ContextInput{}
	} else if name, ok := p.context(v); ok {
		p.EpochFrom = ContextInput{Name: name, Platform: p.platform}
	} else if slices.ContainsFunc(stages, func(s instructions.Stage) bool {
		return strings.EqualFold(s.Name, v)
	}) {
		p.epochStage = strings.ToLower(v)
	} else {
		return p.file.fail(Range{}, err)
	}
	p.setArg(EpochArg, "")
	return nil
}

// findEpochStage sets EpochFrom if SOURCE_DATE_EPOCH is the name of a stage. Only a stage that
// consists of one download has a time that is known before the build. The rules and the texts of
// the errors are BuildKit's.
func (p *Plan) findEpochStage() error {
	if p.epochStage == "" {
		return nil
	}
	s := p.byName[p.epochStage]
	add, err := s.onlyAdd()
	if err != nil {
		return p.file.fail(s.Range, err)
	}
	p.EpochFrom = add
	return nil
}

// onlyAdd returns the only ADD of a stage that consists of one download.
func (s *Stage) onlyAdd() (*Copy, error) {
	if _, ok := s.Base.(Scratch); !ok {
		return nil, fmt.Errorf("%s stage must use FROM scratch", EpochArg)
	}
	for _, c := range s.commands {
		switch c.(type) {
		case *instructions.AddCommand, *instructions.ArgCommand:
		default:
			return nil, fmt.Errorf("%s stage does not meet source-only requirements: unsupported "+
				"%s instruction", EpochArg, c.Name())
		}
	}
	var adds []*Copy
	for step, err := range s.Steps(dockerspec.DockerOCIImage{}) {
		if err != nil {
			return nil, err
		}
		if add, ok := step.Action.(*Copy); ok {
			adds = append(adds, add)
		}
	}
	if len(adds) != 1 {
		return nil, fmt.Errorf("%s stage must contain exactly one remote ADD", EpochArg)
	}
	local, remote := adds[0].SplitSources()
	if len(local) > 0 || len(remote) != 1 || len(adds[0].Inline) > 0 {
		return nil, fmt.Errorf("%s stage source must be a single HTTP(S) or Git ADD", EpochArg)
	}
	return adds[0], nil
}

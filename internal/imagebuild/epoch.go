package imagebuild

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/parser"
)

// epochs finds the time of a source that SOURCE_DATE_EPOCH names. All platforms of a build use the
// time that was found for the first one.
type epochs struct {
	in    *inputs.Inputs
	sink  event.Sink
	found bool
	value string // the time, in seconds since 1970; "" if the source has none
}

// set returns a copy of the build arguments in which SOURCE_DATE_EPOCH is the time of a source. If
// the source has no time, the argument is empty, and a warning is sent.
func (e *epochs) set(ctx context.Context, args map[string]string,
	from parser.EpochSource) (map[string]string, error) {
	if !e.found {
		t, ok, err := e.in.ModTime(ctx, from)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", parser.EpochArg, err)
		}
		if ok {
			e.value = strconv.FormatInt(t.Unix(), 10)
		} else {
			warn(e.sink, fmt.Sprintf("%s has no effect: its source has no time of its own",
				parser.EpochArg))
		}
		e.found = true
	}
	args = maps.Clone(args)
	if args == nil {
		args = map[string]string{}
	}
	args[parser.EpochArg] = e.value
	return args, nil
}

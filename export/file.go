package export

import (
	"errors"
	"io"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/stagedir"
)

// toDest writes to spec's destination, a file or the standard output. A file is written
// completely or is unchanged.
func toDest(env Env, spec Spec, write func(io.Writer) error) error {
	if spec.Dest == "-" {
		return write(env.Stdout)
	}
	return atomicfile.Write(spec.Dest, 0o666, write)
}

// inStage calls use with a temporary directory for dest, and removes it afterwards.
func inStage(dest string, use func(*stagedir.Dir) error) error {
	stage, err := stagedir.New(dest)
	if err != nil {
		return err
	}
	return errors.Join(use(stage), stage.Close())
}

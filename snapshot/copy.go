package snapshot

import (
	"context"
	"path/filepath"

	"github.com/layerbuild/layerbuild/internal/mount"
)

// plainCopies stores every snapshot as a whole tree. It works everywhere, and shares blocks with
// the parent if the file system can (btrfs, xfs).
type plainCopies struct{}

func (plainCopies) name() string  { return "copy" }
func (plainCopies) layered() bool { return false }
func (plainCopies) home() string  { return fullHome }

func (plainCopies) prepare(ctx context.Context, dir string, chain []string) error {
	to := filepath.Join(dir, fsDir)
	if len(chain) == 0 {
		return makeRoot(to)
	}
	return copyTree(ctx, chain[0], to)
}

func (plainCopies) writable(dir string, _ []string) []mount.Mount {
	return []mount.Mount{{Type: mount.Bind, Source: filepath.Join(dir, fsDir)}}
}

func (plainCopies) view(chain []string) []mount.Mount {
	return []mount.Mount{{Type: mount.Bind, Source: chain[0], Options: []string{"ro"}}}
}

func (plainCopies) seal(string, []string, bool) error { return nil }

func (plainCopies) remove(tmp int, name string) error { return removeTree(tmp, name) }

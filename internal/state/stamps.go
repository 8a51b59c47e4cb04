package state

import (
	"os"

	"github.com/layerbuild/layerbuild/internal/volume"
	digest "github.com/opencontainers/go-digest"
)

// stamps keeps the stamps of verified blobs, see store.Stamps. Errors of reading and writing them
// are not reported: without a stamp a blob is verified again.
type stamps struct{ state *State }

func (s stamps) Stamp(f *os.File) (string, bool) { return volume.Stamp(f) }

func (s stamps) Load(d digest.Digest) string {
	data, err := s.state.ReadKept(Verified, d)
	if err != nil {
		return ""
	}
	return string(data)
}

func (s stamps) Save(d digest.Digest, stamp string) {
	_ = s.state.Keep(Verified, d, []byte(stamp))
}

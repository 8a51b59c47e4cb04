package job

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/parser"
	digest "github.com/opencontainers/go-digest"
)

// A step has up to two keys. The definition key is known without reading files; a record under it
// is valid only for the same results of stages (Job.Inputs). The content key needs the digests of
// the files, and a record under it is valid wherever the files come from.
//
//	step                            definition key          content key
//	WORKDIR                         -                       parent, path
//	RUN that mounts no files        -                       parent, command, options
//	RUN that mounts stages, images  command, their keys     command, digests of their files
//	RUN that mounts a context       -                       command, digests of its files
//	COPY --from a stage or image    instruction, its key    options, digest of the files
//	COPY from a context             -                       options, digest of the files
//	ADD of an address               -                       options, commit or digest

// keyVersion is part of every key. Change it when the meaning of a step changes, so that earlier
// results are not used.
const keyVersion = "layerbuild.step.1"

// ScratchKey is the key of the empty file system.
const ScratchKey = "scratch"

// MakeKey returns the key of a step's result: a hash of the parent's key, the action and its
// inputs.
func MakeKey(parent cache.Key, kind string, action any, inputs ...string) (cache.Key, error) {
	h := sha256.New()
	enc := json.NewEncoder(h)
	enc.SetEscapeHTML(false)
	for _, part := range []any{keyVersion, parent, kind, action, inputs} {
		if err := enc.Encode(part); err != nil {
			return "", fmt.Errorf("make the key of a step: %w", err)
		}
	}
	return cache.Key(hex.EncodeToString(h.Sum(nil))), nil
}

// copyKey holds the values that determine the result of a COPY. It has the digest of the files, but
// not the patterns that matched them.
type copyKey struct {
	Dest, Chown, Chmod string
	Link, Unpack       bool
	Inline             []parser.Inline
	KeepOwner          bool
	Content            digest.Digest
}

// EpochKey returns the part of a key for steps whose result depends on the epoch.
func EpochKey(epoch *int64) string {
	if epoch == nil {
		return ""
	}
	return fmt.Sprint("epoch ", *epoch)
}

package build

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/parser"
	digest "github.com/opencontainers/go-digest"
)

// keyVersion is part of every key. Whatever changes the meaning of a step changes it: what was built before is then
// built again.
const keyVersion = "layerbuild.step.1"

// makeKey names the result of a step: what it starts from, what it does and with which inputs.
func makeKey(parent cache.Key, kind string, action any, inputs ...string) (cache.Key, error) {
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

// copyKey is what of a COPY matters besides the content that was matched: not the patterns that found it.
type copyKey struct {
	Dest, Chown, Chmod string
	Link, Unpack       bool
	Inline             []parser.Inline
	KeepOwner          bool
	Content            digest.Digest
}

// epochKey marks the keys of steps whose result depends on the time that is given to what they make.
func epochKey(epoch *int64) string {
	if epoch == nil {
		return ""
	}
	return fmt.Sprint("epoch ", *epoch)
}

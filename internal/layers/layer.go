package layers

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/blocks"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Layer is a layer of an image that is being built. Its descriptor and diffID are known from the
// start if the layer belongs to an existing image, and otherwise when Wait has returned nil.
type Layer struct {
	// Base is the image that contains the layer, and Index the layer's index in it; nil: a Sealer
	// makes the layer. An image of a single layer may come from another machine's cache.
	Base  *image.Image
	Index int

	Descriptor ocispec.Descriptor
	DiffID     digest.Digest

	// Unchecked is set if the layer was imported, and may be missing or another one than its record
	// promises.
	Unchecked bool

	// Snapshot is the snapshot from which the layer is made. If NoOp is set, the layer has no
	// entries, whatever the snapshot is.
	Snapshot snapshot.ID
	NoOp     bool

	// Text is the instruction that made the layer, for messages, and Lines its position; "" for a
	// layer of a base image.
	Text  string
	Lines parser.Range

	// sealing is the sealing of the layer, which layers of the same source share; nil: it has not
	// begun. Wait sets Descriptor and DiffID from it, once.
	sealing *memo.Call[cache.Layer]
	set     sync.Once
}

// ImportError is returned for an imported layer that cannot be used.
type ImportError struct {
	Layer digest.Digest
	Err   error
}

// Error returns the text of Err.
func (e *ImportError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *ImportError) Unwrap() error { return e.Err }

// Error is an error of sealing or checking a layer.
type Error struct {
	Lines parser.Range // lines of the instruction that made the layer
	Err   error
}

// Error returns the text of Err.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// failed returns an *Error.
func (l *Layer) failed(what string, err error) error {
	return &Error{l.Lines, fmt.Errorf("%s the layer of %q: %w", what, l.Text, err)}
}

// Begin marks a layer as being sealed. It returns the function that ends the sealing, which must be
// called once. It returns nil if the layer belongs to an existing image, or if Begin was called
// before. It must not be called by several goroutines at once.
func (l *Layer) Begin() (end func(d ocispec.Descriptor, diffID digest.Digest, err error)) {
	call := memo.NewCall[cache.Layer]()
	if !l.begin(call) {
		return nil
	}
	return func(d ocispec.Descriptor, diffID digest.Digest, err error) {
		call.Finish(cache.Layer{Descriptor: d, DiffID: diffID}, err)
	}
}

// begin is like Begin, with the given sealing. It reports whether the layer did not have one.
func (l *Layer) begin(call *memo.Call[cache.Layer]) bool {
	if l.Base != nil || l.sealing != nil {
		return false
	}
	l.sealing = call
	return true
}

// Wait waits until the descriptor and the diffID are known, and returns the error of sealing. Layer
// must have a Base, or have been passed to a Sealer.
func (l *Layer) Wait(ctx context.Context) error {
	if l.Base != nil {
		return nil
	}
	if l.sealing == nil {
		panic("wait for a layer that is not being sealed")
	}
	got, err := l.sealing.Wait(ctx)
	if err != nil {
		return err
	}
	l.set.Do(func() { l.Descriptor, l.DiffID = got.Descriptor, got.DiffID })
	return nil
}

// Again returns a layer like l that another Sealer may make: its sealing has not begun. It has no
// Lines, which are those of another Dockerfile.
func (l *Layer) Again() *Layer {
	out := &Layer{Base: l.Base, Index: l.Index, Unchecked: l.Unchecked, Snapshot: l.Snapshot,
		NoOp: l.NoOp, Text: l.Text}
	if l.Base != nil { // otherwise Wait may be setting them
		out.Descriptor, out.DiffID = l.Descriptor, l.DiffID
	}
	return out
}

// source returns the layer's source for the cache: a snapshot, or "" for the layer without entries.
func (l *Layer) source() string {
	if l.NoOp {
		return ""
	}
	return string(l.Snapshot)
}

// Format has the options that, together with its entries, determine the bytes of a layer.
type Format struct {
	Compression string // as in diff.Options
	Level       int    // as in diff.Options
	// Epoch limits the times of files, in seconds since 1970; nil: no limit.
	Epoch *int64
}

// String returns the text that ParseFormat parses. Records of sealed layers have it in their keys.
func (f Format) String() string {
	s := fmt.Sprint(f.Compression, " ", f.Level, formatEncoder, blocks.Version)
	if f.Epoch != nil {
		s += fmt.Sprint(formatEpoch, *f.Epoch)
	}
	return s
}

// formatEncoder precedes the version of the compressed form in the text of a Format, so that a
// layer that another version of the program has sealed is sealed again. formatEpoch precedes the
// epoch.
const (
	formatEncoder = " encoder "
	formatEpoch   = " epoch "
)

// ParseFormat parses the text of a Format, and reports whether it is one. It returns false for the
// text of another version of the compressed form, in which this program cannot write layers.
func ParseFormat(s string) (Format, bool) {
	head, epoch, hasEpoch := strings.Cut(s, formatEpoch)
	head, version, ok := strings.Cut(head, formatEncoder)
	if !ok || version != strconv.Itoa(blocks.Version) {
		return Format{}, false
	}
	compression, level, ok := strings.Cut(head, " ")
	if !ok {
		return Format{}, false
	}
	f := Format{Compression: compression}
	var err error
	if f.Level, err = strconv.Atoi(level); err != nil {
		return Format{}, false
	}
	if hasEpoch {
		n, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return Format{}, false
		}
		f.Epoch = &n
	}
	return f, true
}

// EpochOf returns the epoch in the text of a layer's format, of any version, or nil if there is
// none. For an invalid epoch it returns the earliest one, so that no build uses the layer's times.
func EpochOf(format string) *int64 {
	_, epoch, ok := strings.Cut(format, formatEpoch)
	if !ok {
		return nil
	}
	n, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		n = math.MinInt64
	}
	return &n
}

// options returns the options with which diff writes a layer of this format.
func (f Format) options() diff.Options {
	return diff.Options{Compression: f.Compression, Level: f.Level, Epoch: f.Epoch}
}

// tree returns the directories of a snapshot's changes for package diff.
func tree(c snapshot.Changes) diff.Tree {
	return diff.Tree{Dir: c.Dir, Lower: c.Lower, Full: c.Full, UserXattr: c.UserXattr,
		StandIns: c.StandIns}
}

// Unchanged reports whether the directory of a step's snapshot shows that the step has changed
// nothing.
func Unchanged(ctx context.Context, active *snapshot.Active) (bool, error) {
	return diff.Unchanged(ctx, tree(active.Changes()))
}

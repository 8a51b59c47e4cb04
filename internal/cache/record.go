package cache

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Record names the result of a step.
type Record struct {
	Snapshot string
	Created  time.Time // the time at which the step was run; Put sets it if it is zero
	// ContentKey is the content key of the step; "" if it is the record's own key.
	ContentKey Key
	// Inputs names the snapshots of the stages from which the step took files, each followed by a
	// space, as the records of existing states have them; "" if there are none.
	Inputs string
	// NoOp is set if the step changed nothing. Snapshot is then the snapshot on which it ran.
	NoOp bool
	// ClampedTo, if not nil, is the latest time of a file in the snapshot, in seconds since 1970:
	// the snapshot was unpacked from a layer that was sealed with this epoch. If it is nil, files
	// have the times that the step set.
	ClampedTo *int64
	// Lazy is set for a snapshot that is unpacked from its layer when it is first needed; nil: the
	// step made it.
	Lazy *Lazy
}

// Lazy describes how a lazy snapshot is made.
type Lazy struct {
	Parent string // the snapshot on which the layer is unpacked; "" for none
	Sealed string // the options with which the layer was sealed
}

// Names of facts in the files of records.
const (
	factContent = "content"
	factInputs  = "inputs"
	factNoOp    = "unchanged"
	factClamped = "clamped"
	factParent  = "on"
	factSealed  = "sealed"

	factDescriptor = "descriptor"
	factDiffID     = "diffid"
	factSize       = "size"

	factName  = "name"
	factRoot  = "root"
	factValue = "value"
)

// entry returns the record under a key.
func (r Record) entry(k Key) Entry {
	facts := map[string]string{}
	if r.ContentKey != "" {
		facts[factContent] = string(r.ContentKey)
	}
	if r.Inputs != "" {
		facts[factInputs] = r.Inputs
	}
	if r.NoOp {
		facts[factNoOp] = "1"
	}
	if r.ClampedTo != nil {
		facts[factClamped] = strconv.FormatInt(*r.ClampedTo, 10)
	}
	if r.Lazy != nil {
		facts[factParent], facts[factSealed] = r.Lazy.Parent, r.Lazy.Sealed
	}
	return Entry{Kind: Steps, Key: string(k), Snapshot: r.Snapshot,
		Created: r.Created, facts: facts}
}

// Step returns the record of an entry of kind Steps, and reports whether the entry is one and can
// be read.
func (e Entry) Step() (Record, bool) {
	r := Record{
		Snapshot: e.Snapshot, Created: e.Created,
		ContentKey: Key(e.facts[factContent]), Inputs: e.facts[factInputs],
		NoOp: e.facts[factNoOp] != "",
	}
	if s, ok := e.facts[factClamped]; ok {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return Record{}, false
		}
		r.ClampedTo = &n
	}
	if sealed, ok := e.facts[factSealed]; ok {
		r.Lazy = &Lazy{Parent: e.facts[factParent], Sealed: sealed}
	}
	return r, e.Kind == Steps
}

// Layer is a layer that was made from a source (Cache.Sealed).
type Layer struct {
	Descriptor ocispec.Descriptor
	DiffID     digest.Digest
	Size       int64 // bytes before compression
}

// entry returns the record of a layer for Cache.Sealed.
func (l Layer) entry(source, options string) (Entry, error) {
	d, err := json.Marshal(l.Descriptor)
	if err != nil {
		return Entry{}, fmt.Errorf("record a layer: %w", err)
	}
	return Entry{Kind: Seals, Key: sealKey(source, options), Snapshot: source,
		facts: map[string]string{
			factDescriptor: string(d), factDiffID: string(l.DiffID),
			factSize: strconv.FormatInt(l.Size, 10),
		}}, nil
}

// SealedLayer returns the layer of an entry of kind Seals, and the options with which it was
// sealed. ok reports whether the entry is one and can be read.
func (e Entry) SealedLayer() (options string, l Layer, ok bool) {
	_, options, ok = strings.Cut(e.Key, " ")
	if e.Kind != Seals || !ok {
		return "", l, false
	}
	if json.Unmarshal([]byte(e.facts[factDescriptor]), &l.Descriptor) != nil ||
		l.Descriptor.Digest.Validate() != nil {
		return "", Layer{}, false
	}
	l.DiffID = digest.Digest(e.facts[factDiffID])
	size, err := strconv.ParseInt(e.facts[factSize], 10, 64)
	if l.DiffID.Validate() != nil || err != nil {
		return "", Layer{}, false
	}
	l.Size = size
	return options, l, true
}

// Finding is the result of looking up an address.
type Finding struct {
	Created time.Time // when the address was looked up; PutRemote sets it if it is zero
	// Name and Root are the full name of an image, and its index or manifest. Root is nil if the
	// address is not the name of an image.
	Name string
	Root *ocispec.Descriptor
	// Value is the result for an address that is not the name of an image.
	Value string
}

// entry returns the record of an address.
func (f Finding) entry(address string) (Entry, error) {
	facts := map[string]string{}
	if f.Name != "" {
		facts[factName] = f.Name
	}
	if f.Root != nil {
		d, err := json.Marshal(f.Root)
		if err != nil {
			return Entry{}, fmt.Errorf("record an image: %w", err)
		}
		facts[factRoot] = string(d)
	}
	if f.Value != "" {
		facts[factValue] = f.Value
	}
	return Entry{Kind: Remote, Key: address, Created: f.Created, facts: facts}, nil
}

// Finding returns the finding of an entry of kind Remote. A Root that cannot be read is nil.
func (e Entry) Finding() Finding {
	f := Finding{Created: e.Created, Name: e.facts[factName], Value: e.facts[factValue]}
	var root ocispec.Descriptor
	if json.Unmarshal([]byte(e.facts[factRoot]), &root) == nil && root.Digest.Validate() == nil {
		f.Root = &root
	}
	return f
}

package analyze

import (
	"fmt"
	"time"
)

// Schema names the format of a Report as JSON. It changes when the meaning of a field changes or
// a field is removed; fields may be added.
const Schema = "layerbuild.analyze/1"

// Report describes the content of an image and the wasted part of it.
type Report struct {
	Schema     string `json:"schema"`
	Image      string `json:"image"`                // the name given by the user
	Digest     string `json:"digest,omitempty"`     // of its manifest
	Platform   string `json:"platform,omitempty"`   // "linux/amd64"
	Dockerfile string `json:"dockerfile,omitempty"` // its name, if lines are known
	Base       Base   `json:"base"`

	Total   Sums        `json:"total"`
	Owners  []OwnerSum  `json:"owners"`  // each owner with a layer, in the order of the constants
	Reasons []ReasonSum `json:"reasons"` // each reason that occurs, the largest first

	Instructions []Instruction `json:"instructions"` // the first one first
	Layers       []Layer       `json:"layers"`       // the lowest first

	// Findings are groups of dead units: files of one directory that one instruction made and
	// another made invisible, for one reason. The largest is first. Their bytes add up to
	// Total.Dead.
	Findings []Finding `json:"findings"`
	// Duplicates and Debris are visible, so they are not counted as Dead.
	Duplicates []Duplicate `json:"duplicates"` // the largest 200
	// DuplicateBytes is the size of all duplicates without their first copies.
	DuplicateBytes int64    `json:"duplicateBytes"`
	Debris         []Debris `json:"debris"`
	// Gate is set if rules were checked.
	Gate *Gate `json:"gate,omitempty"`
	// Warnings describe unusual facts about the image, such as a hard link to a missing file.
	Warnings []string `json:"warnings,omitempty"`

	// Tree has every path, and Units every content. They are too large for JSON.
	Tree  *Tree  `json:"-"`
	Units []Unit `json:"-"`

	linkPaths  map[int32]int32 // a live link's node, by unit
	layerIndex *layerIndex     // made when a remedy needs it
}

// Base describes where the base image ends.
type Base struct {
	Name   string `json:"name,omitempty"`
	Digest string `json:"digest,omitempty"`
	// the number of the image's layers that belong to the base
	Layers int        `json:"layers"`
	Source BaseSource `json:"source"`         // how the end was found
	Note   string     `json:"note,omitempty"` // for a guess, its reason
}

// BaseSource is the way in which the end of a base was found.
type BaseSource string

// The sources of the end of a base.
const (
	BaseRecord     BaseSource = "record"     // recorded by the build
	BaseAnnotation BaseSource = "annotation" // org.opencontainers.image.base.*
	BaseGiven      BaseSource = "given"      // --base
	BaseGuess      BaseSource = "guess"      // from the history
)

// Owner is the origin of a layer.
type Owner uint8

// The owners.
const (
	Own Owner = iota // the instructions of the stage from which the image was made
	// an earlier stage of the same Dockerfile, on which that stage is based
	EarlierStage
	// the base image: not changeable by this Dockerfile, and never counted in a gate
	BaseImage
)

var ownerNames = [...]string{"own", "stage", "base"}

// String returns the name of the owner in reports.
func (o Owner) String() string { return ownerNames[o] }

var ownerTexts = [...]string{"own instructions", "earlier stage", "base image"}

// Text returns the owner in words.
func (o Owner) Text() string { return ownerTexts[o] }

// MarshalText returns "own", "stage" or "base".
func (o Owner) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText parses the result of MarshalText.
func (o *Owner) UnmarshalText(text []byte) error { return fromName(o, ownerNames[:], text) }

// Reason is the reason why a unit is dead. A unit has exactly one: the reason why it lost its
// last name.
type Reason uint8

// The reasons.
const (
	Live           Reason = iota // it is not dead
	Deleted                      // a whiteout names it or a directory above it
	HiddenByOpaque               // a directory above it was made again, with an opaque mark
	// a directory above it was replaced by a file that is not a directory
	DirectoryReplaced
	Overwritten       // another file of any type took its name
	RewrittenSame     // the same file again, without a difference
	RewrittenTime     // the same file again, with another time
	RewrittenMetadata // the same file again, with another mode, owner or attribute
)

var reasonNames = [...]string{
	"live", "deleted", "hidden-by-opaque", "directory-replaced", "overwritten",
	"rewritten-unchanged", "rewritten-time", "rewritten-metadata",
}

// String returns the name of the reason in reports.
func (r Reason) String() string { return reasonNames[r] }

// MarshalText returns the reason's name, in the order of the constants: "deleted",
// "hidden-by-opaque", …
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText parses the result of MarshalText.
func (r *Reason) UnmarshalText(text []byte) error { return fromName(r, reasonNames[:], text) }

var reasonTexts = [...]string{
	"visible", "deleted", "hidden by an opaque directory", "its directory was replaced",
	"overwritten", "rewritten, nothing changed",
	"rewritten, only the time changed", "rewritten, only mode, owner or attributes changed",
}

// Text returns the reason in words.
func (r Reason) Text() string { return reasonTexts[r] }

func fromName[T ~uint8](v *T, names []string, text []byte) error {
	for i, name := range names {
		if name == string(text) {
			*v = T(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not one of %q", text, names)
}

// Sums count bytes of content. Bytes is always Live + Dead.
type Sums struct {
	Bytes     int64 `json:"bytes"`
	Live      int64 `json:"live"`
	Dead      int64 `json:"dead"`
	Units     int   `json:"units"`
	DeadUnits int   `json:"deadUnits"`
}

// OwnerSum holds the sums of one owner's layers.
type OwnerSum struct {
	Owner  Owner `json:"owner"`
	Layers int   `json:"layers"`
	Sums
}

// ReasonSum is the number of bytes that are dead for one reason.
type ReasonSum struct {
	Reason Reason `json:"reason"`
	Bytes  int64  `json:"bytes"`
	Units  int    `json:"units"`
}

// Instruction is one step of the image's history.
type Instruction struct {
	Text    string     `json:"text"`            // as in the Dockerfile or the history, in one line
	Stage   string     `json:"stage,omitempty"` // its stage's name
	Line    int        `json:"line,omitempty"`  // in the Dockerfile, from 1; 0: not known
	EndLine int        `json:"endLine,omitempty"`
	Created *time.Time `json:"created,omitempty"`
	Owner   Owner      `json:"owner"`
	Layer   int        `json:"layer"` // index in Layers; -1: it made none
}

// Layer is one layer of the image.
type Layer struct {
	Instruction int    `json:"instruction"` // index in Instructions
	Owner       Owner  `json:"owner"`
	Digest      string `json:"digest,omitempty"`
	DiffID      string `json:"diffID,omitempty"`
	Tar         int64  `json:"tar"`        // bytes of the tar: content, headers, padding
	Compressed  int64  `json:"compressed"` // bytes of the blob; 0: not known
	Entries     int    `json:"entries"`
	Whiteouts   int    `json:"whiteouts"` // opaque marks included
	// IdleWhiteouts is the number of whiteouts that hide nothing.
	IdleWhiteouts int `json:"idleWhiteouts"`
	Sums
	// Killed is the number of bytes, of any layer, that this layer made invisible.
	Killed int64 `json:"killed"`
	// DeadCompressed is the size of the dead bytes in the blob.
	DeadCompressed Compressed  `json:"deadCompressed"`
	Reasons        []ReasonSum `json:"reasons,omitempty"` // of its dead bytes, the largest first
}

// Compressed is a number of bytes after compression.
type Compressed struct {
	Bytes int64 `json:"bytes"`
	// Estimate is set if the number was computed from the layer's mean compression ratio.
	Estimate bool `json:"estimate"`
}

// Finding is a part of the waste with one creator, one killer and one reason.
type Finding struct {
	Path       string     `json:"path"` // absolute; a directory's ends in a slash
	Bytes      int64      `json:"bytes"`
	Compressed Compressed `json:"compressed"`
	Units      int        `json:"units"`
	Reason     Reason     `json:"reason"`
	Owner      Owner      `json:"owner"`
	Creator    int        `json:"creator"` // index in Layers
	Killer     int        `json:"killer"`  // index in Layers
	Accepted   bool       `json:"accepted,omitempty"`
	Remedy     string     `json:"remedy"`
}

// Duplicate is a content at several live paths that are not links of each other.
type Duplicate struct {
	Size   int64    `json:"size"`  // of one copy
	Extra  int64    `json:"extra"` // of all copies but one
	Copies int      `json:"copies"`
	Paths  []string `json:"paths"`  // of the copies, sorted; at most MaxPaths
	Layers []int    `json:"layers"` // of the copies, each once
	Owner  Owner    `json:"owner"`  // the base only if all copies but one are the base's
	// Remedy replaces one copy by a link, if a COPY copied only that file; otherwise it is "".
	Remedy string `json:"remedy,omitempty"`
}

// MaxPaths limits the number of paths of a Duplicate.
const MaxPaths = 20

// DebrisKind is a kind of files that images rarely need.
type DebrisKind uint8

// The kinds of debris.
const (
	NoDebris      DebrisKind = iota
	PackageLists             // lists and archives of a package manager
	LanguageCache            // caches of pip, npm, go, cargo and others
	VersionControl
	Logs
	Bytecode
	CoreFile
	Secret // looks like a key or a password; in a dead layer it is a leak
)

var debrisNames = [...]string{"", "package-lists", "language-cache", "version-control", "logs",
	"bytecode", "core-file", "secret"}

// String returns the word for the kind in reports, "" for none.
func (k DebrisKind) String() string { return debrisNames[k] }

var debrisTexts = [...]string{"", "package lists and archives", "cache of a language's tools",
	"version control", "logs", "compiled Python", "core dump", "looks like a secret"}

// Text returns the kind in words.
func (k DebrisKind) Text() string { return debrisTexts[k] }

// MarshalText returns the kind's name: "package-lists", "language-cache", …
func (k DebrisKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText parses the result of MarshalText.
func (k *DebrisKind) UnmarshalText(text []byte) error { return fromName(k, debrisNames[:], text) }

// Debris is a group of files of one kind below one directory in one layer.
type Debris struct {
	Kind  DebrisKind `json:"kind"`
	Path  string     `json:"path"`
	Bytes int64      `json:"bytes"`
	Files int        `json:"files"`
	Layer int        `json:"layer"`
	Owner Owner      `json:"owner"`
	// Dead is set if the files are not visible. Then only secrets are listed: anyone with the
	// image can read them.
	Dead     bool   `json:"dead"`
	Accepted bool   `json:"accepted,omitempty"`
	Remedy   string `json:"remedy"`
}

// Gate is the result of checking an image against rules.
type Gate struct {
	Passed bool `json:"passed"`
	// Dead and Of are the measured values: the dead bytes and all bytes, both without the base's
	// and without accepted paths.
	Dead     int64    `json:"dead"`
	Of       int64    `json:"of"`
	Accepted int64    `json:"accepted"`
	Failures []string `json:"failures,omitempty"`
	// BaseGuessed is set if the image fails only because the end of its base is a guess. Dead and
	// Of then count all layers.
	BaseGuessed bool `json:"baseGuessed,omitempty"`
}

// Unit is the content of one inode in one layer.
type Unit struct {
	Node    int32 // the path at which its layer has the content; see Tree.Node
	Layer   int32 // its creator, index in Layers
	Killer  int32 // index in Layers; -1 while it is live
	Links   int32 // number of paths of the final file system that refer to it
	Bytes   int64
	Content Content
	Reason  Reason
	Debris  DebrisKind
	// Accepted is set if the user has accepted it.
	Accepted bool
}

// Dead reports whether no path of the final file system refers to the unit.
func (u *Unit) Dead() bool { return u.Links == 0 }

// Content identifies the bytes of a file: the first half of their SHA-256. For a file of more than
// 64 MiB it is the hash of the blocks that are not all zero.
type Content [16]byte

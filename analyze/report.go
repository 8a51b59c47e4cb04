package analyze

import (
	"fmt"
	"time"
)

// Schema names the form of a Report as JSON. It changes when a field changes its meaning or goes; fields may be added.
const Schema = "layerbuild.analyze/1"

// Report is what an image consists of and what of it is waste.
type Report struct {
	Schema     string `json:"schema"`
	Image      string `json:"image"`                // its name, as it was asked for
	Digest     string `json:"digest,omitempty"`     // of its manifest
	Platform   string `json:"platform,omitempty"`   // "linux/amd64"
	Dockerfile string `json:"dockerfile,omitempty"` // its name, where lines are known
	Base       Base   `json:"base"`

	Total   Sums        `json:"total"`
	Owners  []OwnerSum  `json:"owners"`  // each owner that has a layer, in the order of the constants
	Reasons []ReasonSum `json:"reasons"` // each reason that there is, the largest first

	Instructions []Instruction `json:"instructions"` // the first one first
	Layers       []Layer       `json:"layers"`       // the lowest first

	// Findings are dead units put together: what one instruction made and another made invisible for one reason,
	// below one directory. The largest first; their bytes add up to Total.Dead.
	Findings []Finding `json:"findings"`
	// Duplicates and Debris are visible, so they are no waste in the sense of Dead.
	Duplicates []Duplicate `json:"duplicates"` // the largest 200
	// DuplicateBytes are what all duplicates take beyond their first copies.
	DuplicateBytes int64    `json:"duplicateBytes"`
	Debris         []Debris `json:"debris"`
	// Gate is there when there was one.
	Gate *Gate `json:"gate,omitempty"`
	// Warnings are what is odd about the image, such as a hard link to nothing.
	Warnings []string `json:"warnings,omitempty"`

	// Tree has every path, and Units every content. They are too large for JSON.
	Tree  *Tree  `json:"-"`
	Units []Unit `json:"-"`

	linkPaths  map[int32]int32 // a live link's node, by unit
	layerIndex *layerIndex     // made when a remedy asks for it
}

// Base says where the base image ends.
type Base struct {
	Name   string     `json:"name,omitempty"`
	Digest string     `json:"digest,omitempty"`
	Layers int        `json:"layers"`         // how many of the image's layers are the base's
	Source BaseSource `json:"source"`         // how this is known
	Note   string     `json:"note,omitempty"` // for a guess, what it rests on
}

// BaseSource says how it is known where a base ends.
type BaseSource string

// The ways to know where a base ends.
const (
	BaseRecord     BaseSource = "record"     // the build wrote it down
	BaseAnnotation BaseSource = "annotation" // org.opencontainers.image.base.*
	BaseGiven      BaseSource = "given"      // --base
	BaseGuess      BaseSource = "guess"      // from the history
)

// Owner says who is to blame for a layer.
type Owner uint8

// The owners.
const (
	Own          Owner = iota // the instructions of the stage that the image was made of
	EarlierStage              // an earlier stage of the same Dockerfile, which that stage is based on
	BaseImage                 // the base image: not to be mended here, and never in a gate
)

var ownerNames = [...]string{"own", "stage", "base"}

func (o Owner) String() string { return ownerNames[o] }

var ownerTexts = [...]string{"own instructions", "earlier stage", "base image"}

// Text is the owner for people.
func (o Owner) Text() string { return ownerTexts[o] }

// MarshalText gives "own", "stage" or "base".
func (o Owner) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (o *Owner) UnmarshalText(text []byte) error { return fromName(o, ownerNames[:], text) }

// Reason says why a unit is dead. A unit has exactly one: that for which it lost its last name.
type Reason uint8

// The reasons.
const (
	Live              Reason = iota // it is not dead
	Deleted                         // a whiteout names it or a directory above it
	HiddenByOpaque                  // a directory above it was made anew, with an opaque mark
	DirectoryReplaced               // a directory above it gave way to something that is no directory
	Overwritten                     // another file, or something that is no file, took its name
	RewrittenSame                   // the same file again, in nothing different
	RewrittenTime                   // the same file again, with another time
	RewrittenMetadata               // the same file again, with another mode, owner or attribute
)

var reasonNames = [...]string{
	"live", "deleted", "hidden-by-opaque", "directory-replaced", "overwritten", "rewritten-unchanged", "rewritten-time", "rewritten-metadata",
}

func (r Reason) String() string { return reasonNames[r] }

// MarshalText gives the reason's name, as in the constants' order: "deleted", "hidden-by-opaque", …
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (r *Reason) UnmarshalText(text []byte) error { return fromName(r, reasonNames[:], text) }

var reasonTexts = [...]string{
	"visible", "deleted", "hidden by an opaque directory", "its directory was replaced", "overwritten", "rewritten, nothing changed",
	"rewritten, only the time changed", "rewritten, only mode, owner or attributes changed",
}

// Text is the reason for people.
func (r Reason) Text() string { return reasonTexts[r] }

func fromName[T ~uint8](v *T, names []string, text []byte) error {
	for i, name := range names {
		if name == string(text) {
			*v = T(i)
			return nil
		}
	}
	return fmt.Errorf("%q is none of %q", text, names)
}

// Sums count bytes of content. Bytes is always Live + Dead.
type Sums struct {
	Bytes     int64 `json:"bytes"`
	Live      int64 `json:"live"`
	Dead      int64 `json:"dead"`
	Units     int   `json:"units"`
	DeadUnits int   `json:"deadUnits"`
}

// OwnerSum is what one owner's layers have.
type OwnerSum struct {
	Owner  Owner `json:"owner"`
	Layers int   `json:"layers"`
	Sums
}

// ReasonSum is what is dead for one reason.
type ReasonSum struct {
	Reason Reason `json:"reason"`
	Bytes  int64  `json:"bytes"`
	Units  int    `json:"units"`
}

// Instruction is one step of the image's history.
type Instruction struct {
	Text    string     `json:"text"`            // as the Dockerfile or the history has it, in one line
	Stage   string     `json:"stage,omitempty"` // its stage's name
	Line    int        `json:"line,omitempty"`  // in the Dockerfile, from 1; 0 where it is not known
	EndLine int        `json:"endLine,omitempty"`
	Created *time.Time `json:"created,omitempty"`
	Owner   Owner      `json:"owner"`
	Layer   int        `json:"layer"` // index in Layers; -1 where it made none
}

// Layer is one layer of the image.
type Layer struct {
	Instruction int    `json:"instruction"` // index in Instructions
	Owner       Owner  `json:"owner"`
	Digest      string `json:"digest,omitempty"`
	DiffID      string `json:"diffID,omitempty"`
	Tar         int64  `json:"tar"`        // bytes of the tar: content, headers, padding
	Compressed  int64  `json:"compressed"` // bytes of the blob; 0 where it is not known
	Entries     int    `json:"entries"`
	Whiteouts   int    `json:"whiteouts"` // opaque marks included
	// IdleWhiteouts are those that hide nothing.
	IdleWhiteouts int `json:"idleWhiteouts"`
	Sums
	// Killed is what of any layer's bytes this layer made invisible.
	Killed int64 `json:"killed"`
	// DeadCompressed is what the dead bytes take in the blob.
	DeadCompressed Compressed  `json:"deadCompressed"`
	Reasons        []ReasonSum `json:"reasons,omitempty"` // of its dead bytes, the largest first
}

// Compressed is a number of bytes after compression.
type Compressed struct {
	Bytes int64 `json:"bytes"`
	// Estimate says that nobody compressed anything to find out: it is the layer's mean ratio applied.
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

// Duplicate is one content at several live paths that are no links of each other.
type Duplicate struct {
	Size   int64    `json:"size"`  // of one
	Extra  int64    `json:"extra"` // of all but one
	Copies int      `json:"copies"`
	Paths  []string `json:"paths"`  // of the copies, sorted; at most MaxPaths
	Layers []int    `json:"layers"` // of the copies, each once
	Owner  Owner    `json:"owner"`  // base only if all copies but one are
	// Remedy makes a link of a copy that a COPY of its own has made. "" where there is none.
	Remedy string `json:"remedy,omitempty"`
}

// MaxPaths bounds what a Duplicate lists.
const MaxPaths = 20

// DebrisKind is a sort of files that images rarely want.
type DebrisKind uint8

// The sorts of debris.
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

var debrisNames = [...]string{"", "package-lists", "language-cache", "version-control", "logs", "bytecode", "core-file", "secret"}

func (k DebrisKind) String() string { return debrisNames[k] }

var debrisTexts = [...]string{"", "package lists and archives", "cache of a language's tools", "version control", "logs", "compiled Python", "core dump", "looks like a secret"}

// Text is the kind for people.
func (k DebrisKind) Text() string { return debrisTexts[k] }

// MarshalText gives the kind's name: "package-lists", "language-cache", …
func (k DebrisKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (k *DebrisKind) UnmarshalText(text []byte) error { return fromName(k, debrisNames[:], text) }

// Debris are files of one sort below one directory that one layer has.
type Debris struct {
	Kind  DebrisKind `json:"kind"`
	Path  string     `json:"path"`
	Bytes int64      `json:"bytes"`
	Files int        `json:"files"`
	Layer int        `json:"layer"`
	Owner Owner      `json:"owner"`
	// Dead: the files are not visible. Only secrets are listed then, because whoever has the image can read them.
	Dead     bool   `json:"dead"`
	Accepted bool   `json:"accepted,omitempty"`
	Remedy   string `json:"remedy"`
}

// Gate is whether the image is good enough.
type Gate struct {
	Passed bool `json:"passed"`
	// Dead and Of are what was measured: dead bytes of one's own, of all bytes of one's own. Accepted is left out.
	Dead     int64    `json:"dead"`
	Of       int64    `json:"of"`
	Accepted int64    `json:"accepted"`
	Failures []string `json:"failures,omitempty"`
	// BaseGuessed is set if the image fails only because the end of its base is a guess. Dead and Of are then of all
	// layers.
	BaseGuessed bool `json:"baseGuessed,omitempty"`
}

// Unit is the content of one inode in one layer.
type Unit struct {
	Node    int32 // the path at which its layer has the content: Tree.Node gives it
	Layer   int32 // its creator, index in Layers
	Killer  int32 // index in Layers; -1 while it is live
	Links   int32 // paths of the final file system that refer to it
	Bytes   int64
	Content Content
	Reason  Reason
	Debris  DebrisKind
	// Accepted: a person has said that it may be there.
	Accepted bool
}

// Dead says whether no path of the final file system refers to it.
func (u *Unit) Dead() bool { return u.Links == 0 }

// Content identifies the bytes of a file: the first half of their SHA-256. For a file of more than 64 MiB it is the hash of
// the blocks that are not all zero.
type Content [16]byte

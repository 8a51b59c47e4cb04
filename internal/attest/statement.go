package attest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/layerbuild/layerbuild/internal/ocijson"
	digest "github.com/opencontainers/go-digest"
)

// The types of documents.
const (
	// StatementType is the type of a statement
	// (https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md).
	StatementType = "https://in-toto.io/Statement/v1"
	// MediaType is the media type of a statement in an image.
	MediaType = "application/vnd.in-toto+json"

	PredicateSPDX = "https://spdx.dev/Document"
	PredicateV1   = "https://slsa.dev/provenance/v1"
	PredicateV02  = "https://slsa.dev/provenance/v0.2"
)

// MaxStatement is the size of the largest statement of a scanner that is accepted, as in BuildKit:
// the list of the software of a large image has tens of megabytes.
const MaxStatement = 80 << 20

// Attestation is a claim about an image or its files, without the subject.
type Attestation struct {
	PredicateType string
	Predicate     json.RawMessage
	// Filename is the name of the statement's file in a directory or tar.
	Filename string
	// InlineOnly leaves the attestation out of directories and tars.
	InlineOnly bool
	// Subjects are those that a scanner has named; nil: the image or its files.
	Subjects []Subject
}

// Statement is a claim about subjects.
type Statement struct {
	Type          string          `json:"_type"`
	PredicateType string          `json:"predicateType"`
	Subject       []Subject       `json:"subject"`
	Predicate     json.RawMessage `json:"predicate"`
}

// Subject is an image or a file.
type Subject struct {
	Name   string    `json:"name"`
	Digest DigestSet `json:"digest"`
}

// DigestSet has digests of one object, by their algorithms.
type DigestSet map[string]string

// DigestOf returns a set with one digest.
func DigestOf(d digest.Digest) DigestSet {
	return DigestSet{d.Algorithm().String(): d.Encoded()}
}

// NewStatement returns the statement of an attestation. The subjects are those of the attestation,
// or else the given ones.
func NewStatement(a Attestation, subjects []Subject) Statement {
	if a.Subjects != nil {
		subjects = a.Subjects
	}
	if subjects == nil {
		subjects = []Subject{}
	}
	return Statement{Type: StatementType, PredicateType: a.PredicateType, Subject: subjects,
		Predicate: a.Predicate}
}

// ReadStatement reads a statement that a scanner has written. It returns an error for one with more
// than MaxStatement bytes, and for one that is not the list of the software in the format SPDX.
func ReadStatement(r io.Reader) (Statement, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxStatement+1))
	if err != nil {
		return Statement{}, err
	}
	if len(data) > MaxStatement {
		return Statement{}, fmt.Errorf("it has more than %d bytes", MaxStatement)
	}
	// not ocijson: the predicate, which is not decoded, may have more values than a document of an
	// image
	var raw struct {
		PredicateType string          `json:"predicateType"`
		Subject       json.RawMessage `json:"subject"`
		Predicate     json.RawMessage `json:"predicate"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return Statement{}, fmt.Errorf("it is not an in-toto statement: %w", err)
	}
	if raw.PredicateType != PredicateSPDX {
		return Statement{}, fmt.Errorf("its predicate has the type %q, want %q",
			raw.PredicateType, PredicateSPDX)
	}
	if p := bytes.TrimSpace(raw.Predicate); len(p) == 0 || p[0] != '{' {
		return Statement{}, errors.New("it has no predicate")
	}
	s := Statement{Type: StatementType, PredicateType: raw.PredicateType, Predicate: raw.Predicate}
	if len(raw.Subject) > 0 {
		if err := ocijson.Unmarshal(raw.Subject, &s.Subject); err != nil {
			return Statement{}, fmt.Errorf("its subject: %w", err)
		}
	}
	for _, sub := range s.Subject {
		for name, value := range sub.Digest {
			if name == "" || value == "" {
				return Statement{}, fmt.Errorf("its subject %q has an empty digest", sub.Name)
			}
		}
	}
	return s, nil
}

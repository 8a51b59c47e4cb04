package sbom

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
)

// document is a document that is written element by element, because a whole one takes several
// times the memory of the packages that it lists. Its fields are the values of a JSON object.
type document interface {
	// write writes the document. id is the identifier that is made of the hash of the document;
	// it is empty while the hash is computed.
	write(o *object, id string)
}

// writeDocument writes a document with an identifier that makes returns for the hash of the
// document without it: it is unique to the content, and the same for the same content.
func writeDocument(w io.Writer, d document, makes func(sum [sha256.Size]byte) string) error {
	hash := sha256.New()
	if err := writeObject(hash, d, ""); err != nil {
		return err
	}
	return writeObject(w, d, makes([sha256.Size]byte(hash.Sum(nil))))
}

func writeObject(w io.Writer, d document, id string) error {
	o := &object{w: bufio.NewWriter(w)}
	o.text("{")
	d.write(o, id)
	o.text("\n}\n")
	if o.err != nil {
		return o.err
	}
	return o.w.Flush()
}

// object writes the fields of a JSON object, indented as json.Encoder does.
type object struct {
	w      *bufio.Writer
	buf    bytes.Buffer
	fields int
	err    error
}

func (o *object) text(s string) {
	if o.err == nil {
		_, o.err = o.w.WriteString(s)
	}
}

// value writes a value whose lines after the first begin with the prefix.
func (o *object) value(v any, prefix string) {
	o.buf.Reset()
	e := json.NewEncoder(&o.buf)
	e.SetEscapeHTML(false)
	e.SetIndent(prefix, " ")
	if err := e.Encode(v); err != nil && o.err == nil {
		o.err = err
	}
	o.text(string(bytes.TrimSuffix(o.buf.Bytes(), []byte("\n"))))
}

func (o *object) key(name string) {
	if o.fields++; o.fields > 1 {
		o.text(",")
	}
	o.text("\n ")
	o.value(name, "")
	o.text(": ")
}

// field writes a field.
func (o *object) field(name string, v any) {
	o.key(name)
	o.value(v, " ")
}

// list writes a field with a list. each calls add with the elements.
func (o *object) list(name string, each func(add func(v any))) {
	o.key(name)
	o.text("[")
	n := 0
	each(func(v any) {
		if n++; n > 1 {
			o.text(",")
		}
		o.text("\n  ")
		o.value(v, "  ")
	})
	if n > 0 {
		o.text("\n ")
	}
	o.text("]")
}

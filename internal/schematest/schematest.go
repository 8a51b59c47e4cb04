package schematest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Schema is a compiled JSON schema.
type Schema struct{ compiled *jsonschema.Schema }

// Open reads the JSON schema in a file.
func Open(file string) (Schema, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Schema{}, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return Schema{}, fmt.Errorf("%s: %w", file, err)
	}
	return Compile(file, doc, "")
}

// Compile compiles a schema that is a decoded JSON document, or the part of it that a JSON pointer
// such as #/definitions/Job selects.
func Compile(name string, doc any, pointer string) (Schema, error) {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(name, doc); err != nil {
		return Schema{}, fmt.Errorf("%s: %w", name, err)
	}
	compiled, err := c.Compile(name + pointer)
	return Schema{compiled}, err
}

// Check returns an error if a JSON document does not match the schema.
func (s Schema) Check(document []byte) error {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		return err
	}
	return s.compiled.Validate(doc)
}

// CheckValue is like Check for a value that encoding/json can encode.
func (s Schema) CheckValue(v any) error {
	document, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.Check(document)
}

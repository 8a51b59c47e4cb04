package bake

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	hcljson "github.com/hashicorp/hcl/v2/json"
)

// MaxSize is the size that all files together may have. A syntax tree of HCL takes more than a
// hundred times the memory of its text.
const MaxSize = 4 << 20

// Limits for the texts of files. The parsers call themselves for each nested expression, so that
// deeper nesting would exhaust the stack.
const (
	maxNesting   = 500
	maxOperators = 20_000 // in a line
)

// File is a file with definitions.
type File struct {
	Name string // its suffix .hcl, .json, .yaml or .yml determines the language
	Data []byte
}

// DefaultFiles are the names of the files that are read if none is named, in this order.
var DefaultFiles = [...]string{
	"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml",
	"docker-bake.json", "docker-bake.hcl", "docker-bake.override.json",
	"docker-bake.override.hcl",
}

// Options hold what the files can refer to.
type Options struct {
	// LookupEnv returns a variable of the environment; nil: there are none.
	LookupEnv func(name string) (string, bool)
	// NoEnv is set if variables of HCL files do not take their values from LookupEnv. Compose files
	// do.
	NoEnv bool
	// Vars are the variables of --var.
	Vars map[string]string
	// Builtins are variables that the files cannot change.
	Builtins map[string]string
	// DotEnv is the content of the file .env, for compose files.
	DotEnv []byte
	// ReadFile reads files that a compose file names, relative to the working directory; nil: they
	// are not read.
	ReadFile func(name string) ([]byte, error)
	// Now returns the time for the function timestamp; nil: time.Now. Home is the result of
	// homedir.
	Now  func() time.Time
	Home string
}

// lookup returns the value of a variable that the user has set.
func (o *Options) lookup(name string) (string, bool) {
	if v, ok := o.Vars[name]; ok {
		return v, true
	}
	if o.LookupEnv == nil {
		return "", false
	}
	return o.LookupEnv(name)
}

// lookupVariable is lookup for a variable of an HCL file.
func (o *Options) lookupVariable(name string) (string, bool) {
	if o.NoEnv {
		v, ok := o.Vars[name]
		return v, ok
	}
	return o.lookup(name)
}

func (o *Options) now() time.Time {
	if o.Now == nil {
		return time.Now()
	}
	return o.Now()
}

// Config has the definitions of all files.
type Config struct {
	Targets   []*Target // in the order of their first definitions
	Groups    []*Group
	Variables []Variable // in the order of their names
	// Warnings are about definitions that have no effect.
	Warnings []string
}

// Parse parses and evaluates files. Later files change what earlier ones define. An error about a
// place in a file is an *Error.
func Parse(files []File, o Options) (*Config, error) {
	var compose []File
	var bodies []hcl.Body
	size := 0
	for _, f := range files {
		if size += len(f.Data); size > MaxSize {
			return nil, fmt.Errorf("%s: the files have more than %d MiB", f.Name, MaxSize>>20)
		}
		if err := checkNesting(f); err != nil {
			return nil, err
		}
		if isCompose(f) {
			compose = append(compose, f)
			continue
		}
		body, err := parseBody(f)
		if err != nil {
			return nil, err
		}
		bodies = append(bodies, body)
	}
	c := &Config{}
	if len(compose) > 0 {
		if err := c.addCompose(compose, &o); err != nil {
			return nil, err
		}
	}
	if len(bodies) > 0 {
		if err := c.addBodies(bodies, &o); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// isCompose reports whether a file is a compose file: by its suffix, or else by a line that begins
// with the key of its services.
func isCompose(f File) bool {
	name := strings.ToLower(f.Name)
	switch {
	case strings.HasSuffix(name, ".yaml"), strings.HasSuffix(name, ".yml"):
		return true
	case strings.HasSuffix(name, ".json"), strings.HasSuffix(name, ".hcl"):
		return false
	}
	return slices.ContainsFunc(bytes.Split(f.Data, []byte("\n")), func(line []byte) bool {
		return bytes.HasPrefix(line, []byte("services:"))
	})
}

// parseBody parses a file in HCL or its JSON form. A file without a known suffix may be either.
func parseBody(f File) (hcl.Body, error) {
	if err := checkText(f); err != nil {
		return nil, err
	}
	isJSON := strings.HasSuffix(f.Name, ".json")
	if !isJSON && !strings.HasSuffix(f.Name, ".hcl") {
		isJSON = bytes.HasPrefix(bytes.TrimSpace(f.Data), []byte("{"))
	}
	var file *hcl.File
	var err error
	var diags hcl.Diagnostics
	if isJSON {
		err = checkJSONNumbers(f)
		file, diags = hcljson.Parse(f.Data, f.Name)
	} else {
		tokens, _ := hclsyntax.LexConfig(f.Data, f.Name, hcl.InitialPos)
		err = checkNumbers(tokens) // the parser reports other mistakes
		file, diags = hclsyntax.ParseConfig(f.Data, f.Name, hcl.InitialPos)
	}
	if err != nil {
		return nil, err
	}
	if err := failed(diags); err != nil {
		return nil, err
	}
	return file.Body, nil
}

// checkText returns an error for bytes that are not UTF-8. The parsers accept some, in names and
// texts, which the output as JSON cannot have.
func checkText(f File) error {
	line := 1
	for text := range bytes.Lines(f.Data) {
		if !utf8.Valid(text) {
			return &Error{File: f.Name, Start: line, End: line,
				Err: errors.New("the text is not UTF-8")}
		}
		line++
	}
	return nil
}

// checkNesting returns an error for a text that could exhaust the stack of a parser. It also counts
// brackets in strings, because those of JSON contain expressions.
func checkNesting(f File) error {
	depth, operators, line := 0, 0, 1
	for _, c := range f.Data {
		switch c {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth = max(0, depth-1)
		case '+', '-', '*', '/', '%', '!', '?', '=', '<', '>', '&', '|':
			operators++
		case '\n':
			operators = 0
			line++
		}
		if depth > maxNesting || operators > maxOperators {
			return &Error{File: f.Name, Start: line, End: line,
				Err: errors.New("the expressions are nested too deeply")}
		}
	}
	return nil
}

// maxExponent is the number of digits that the exponent of a number may have. The text of a number
// with a large one has as many digits as the exponent says.
const maxExponent = 4

// checkNumbers returns an error for a number that is too large.
func checkNumbers(tokens hclsyntax.Tokens) error {
	for _, t := range tokens {
		if t.Type == hclsyntax.TokenNumberLit && !isModest(string(t.Bytes)) {
			return errorf(t.Range, "the number %.20s is too large", t.Bytes)
		}
	}
	return nil
}

// isModest reports whether the exponent of a number is short.
func isModest(number string) bool {
	i := strings.IndexAny(number, "eE")
	return i < 0 || len(strings.TrimLeft(number[i+1:], "+-0")) <= maxExponent
}

// checkJSONNumbers is like checkNumbers, for the numbers and the templates of a JSON file.
func checkJSONNumbers(f File) error {
	d := json.NewDecoder(bytes.NewReader(f.Data))
	d.UseNumber()
	line, counted := 1, int64(0)
	for {
		token, err := d.Token()
		if err != nil {
			return nil // the parser reports mistakes
		}
		line += bytes.Count(f.Data[counted:d.InputOffset()], []byte("\n"))
		counted = d.InputOffset()
		r := hcl.Range{Filename: f.Name, Start: hcl.Pos{Line: line}, End: hcl.Pos{Line: line}}
		switch token := token.(type) {
		case json.Number:
			if !isModest(string(token)) {
				return errorf(r, "the number %.20s is too large", token)
			}
		case string:
			if !strings.Contains(token, "{") {
				continue
			}
			tokens, _ := hclsyntax.LexTemplate([]byte(token), f.Name, r.Start)
			if err := checkNumbers(tokens); err != nil {
				return err
			}
		}
	}
}

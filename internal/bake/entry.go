package bake

import (
	"encoding/csv"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Entry is a value with several keys, such as an output or the place of a cache. The key type names
// what the entry is.
type Entry map[string]string

// String returns the entry in the form of the flags of build: type=…,KEY=VALUE,….
func (e Entry) String() string {
	var fields []string
	for _, key := range slices.SortedFunc(maps.Keys(e), typeFirst) {
		fields = append(fields, key+"="+e[key])
	}
	return joinFields(fields)
}

// typeFirst orders keys, the key type first.
func typeFirst(a, b string) int {
	if a == "type" || b == "type" {
		return strings.Compare(boolText(b == "type"), boolText(a == "type"))
	}
	return strings.Compare(a, b)
}

func boolText(b bool) string { return strconv.FormatBool(b) }

// joinFields joins fields with commas, and quotes those that have one.
func joinFields(fields []string) string {
	list := slices.Clone(fields)
	for i, f := range list {
		if strings.ContainsAny(f, ",\"") {
			list[i] = `"` + strings.ReplaceAll(f, `"`, `""`) + `"`
		}
	}
	return strings.Join(list, ",")
}

// splitFields splits the fields of a text, which commas separate and which may be quoted.
func splitFields(s string) ([]string, error) {
	r := csv.NewReader(strings.NewReader(s))
	fields, err := r.Read()
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		err = parse.Err
	}
	if err != nil {
		return nil, fmt.Errorf("%q: %w", s, err)
	}
	return fields, nil
}

// parseFields returns the keys and values of KEY=VALUE,….
func parseFields(s string) (Entry, error) {
	fields, err := splitFields(s)
	if err != nil {
		return nil, err
	}
	e := Entry{}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not KEY=VALUE", field)
		}
		e[strings.ToLower(strings.TrimSpace(key))] = value
	}
	return e, nil
}

// entryKind is a kind of entries.
type entryKind struct {
	// parse returns the entries of a text.
	parse func(string) ([]Entry, error)
	// check returns an error for an entry that is not complete; nil: each is.
	check func(Entry) (Entry, error)
	// identity is the key whose values differ in a list: of two entries with the same value the
	// later one is kept. "": only equal entries are the same, and the earlier one is kept.
	identity string
}

var errType = errors.New("the key type is missing")

func needsType(e Entry) (Entry, error) {
	if e["type"] == "" {
		return nil, errType
	}
	return e, nil
}

// kindOf returns the kind of the entries of an attribute.
func kindOf(attribute string) entryKind {
	switch attribute {
	case "cache-from", "cache-to":
		return entryKind{parse: parsePlaces, check: needsType}
	case "output":
		return entryKind{parse: one(parseOutput), check: needsType}
	case "attest":
		return entryKind{parse: one(parseFields), check: checkAttest, identity: "type"}
	case "secret":
		return entryKind{parse: one(parseFields), check: checkSecret, identity: "id"}
	case "policy":
		return entryKind{parse: one(parseFields)}
	}
	panic("unreachable")
}

// one returns a function for a text with one entry.
func one(parse func(string) (Entry, error)) func(string) ([]Entry, error) {
	return func(s string) ([]Entry, error) {
		e, err := parse(s)
		return []Entry{e}, err
	}
}

// parsePlaces parses a place of a cache. A text without "=" has names of images.
func parsePlaces(s string) ([]Entry, error) {
	if strings.Contains(s, "=") {
		return one(parseFields)(s)
	}
	names, err := splitFields(s)
	var list []Entry
	for _, name := range names {
		list = append(list, Entry{"type": "registry", "ref": name})
	}
	return list, err
}

// parseOutput parses an output. A text without "=" is a directory, or - for a tar archive.
func parseOutput(s string) (Entry, error) {
	fields, err := splitFields(s)
	if err != nil {
		return nil, err
	}
	if len(fields) == 1 && fields[0] == s && !strings.HasPrefix(s, "type=") {
		if s == "-" {
			return Entry{"type": "tar", "dest": s}, nil
		}
		return Entry{"type": "local", "dest": s}, nil
	}
	return parseFields(s)
}

// checkAttest checks an attestation, and removes disabled=false.
func checkAttest(e Entry) (Entry, error) {
	if value, ok := e["disabled"]; ok {
		is, err := strconv.ParseBool(value)
		if err != nil {
			return nil, fmt.Errorf("disabled is %q: true or false is expected", value)
		}
		if e["disabled"] = "true"; !is {
			delete(e, "disabled")
		}
	}
	return needsType(e)
}

// checkSecret returns a secret with the keys id, src and env.
func checkSecret(e Entry) (Entry, error) {
	out := Entry{}
	for key, value := range e {
		switch key {
		case "id", "env":
			out[key] = value
		case "src", "source":
			out["src"] = value
		case "type":
			if value != "file" && value != "env" && value != "" {
				return nil, fmt.Errorf("the type is %q: file or env is expected", value)
			}
		default:
			return nil, fmt.Errorf("unknown key %q (known: id, src, env, type)", key)
		}
	}
	if e["type"] == "env" && out["env"] == "" {
		out["env"] = out["src"]
		delete(out, "src")
	}
	maps.DeleteFunc(out, func(_, value string) bool { return value == "" })
	return out, nil
}

// parseEntries returns the entries of texts; empty texts are left out.
func parseEntries(attribute string, texts []string) ([]Entry, error) {
	kind := kindOf(attribute)
	list := []Entry{}
	for _, text := range texts {
		if text == "" {
			continue
		}
		parsed, err := kind.parse(text)
		if err != nil {
			return nil, err
		}
		for _, e := range parsed {
			if e, err = kind.complete(e); err != nil {
				return nil, fmt.Errorf("%q: %w", text, err)
			}
			list = append(list, e)
		}
	}
	return list, nil
}

// complete checks an entry.
func (k *entryKind) complete(e Entry) (Entry, error) {
	if k.check == nil {
		return e, nil
	}
	return k.check(e)
}

// uniqueEntries removes entries that occur again. It keeps the order.
func uniqueEntries(attribute string, list []Entry) []Entry {
	identity := kindOf(attribute).identity
	var out []Entry
	for _, e := range list {
		i := slices.IndexFunc(out, func(other Entry) bool {
			if identity != "" {
				return e[identity] == other[identity]
			}
			return maps.Equal(e, other)
		})
		switch {
		case i < 0:
			out = append(out, e)
		case identity != "":
			out[i] = e
		}
	}
	return out
}

// SSH is an agent, or the files of keys, for RUN --mount=type=ssh.
type SSH struct {
	ID    string   `json:"id,omitempty"`
	Paths []string `json:"paths,omitempty"`
}

// String returns the value in the form of --ssh.
func (s SSH) String() string {
	if len(s.Paths) == 0 {
		return s.ID
	}
	return s.ID + "=" + strings.Join(s.Paths, ",")
}

// parseSSH parses ID[=PATH,…].
func parseSSH(s string) SSH {
	id, paths, ok := strings.Cut(s, "=")
	if !ok {
		return SSH{ID: id}
	}
	return SSH{ID: id, Paths: strings.Split(paths, ",")}
}

// parseSSHs parses several values; empty ones are left out.
func parseSSHs(texts []string) []SSH {
	list := []SSH{}
	for _, text := range texts {
		if text != "" {
			list = append(list, parseSSH(text))
		}
	}
	return list
}

// uniqueSSH keeps, of the values with the same ID, the last one in the place of the first.
func uniqueSSH(list []SSH) []SSH {
	var out []SSH
	for _, s := range list {
		if i := slices.IndexFunc(out, func(o SSH) bool { return o.ID == s.ID }); i >= 0 {
			out[i] = s
			continue
		}
		out = append(out, s)
	}
	return out
}

// uniqueStrings removes empty strings and those that occur again.
func uniqueStrings(list []string) []string {
	var out []string
	for _, s := range list {
		if s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

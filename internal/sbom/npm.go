package sbom

import (
	"bytes"
	"encoding/json"
	"path"
	"strings"
)

func isNPM(at string, _ []byte) bool { return path.Base(at) == "package.json" }

// readNPM reads the description of a Node package. Many packages contain further files of that
// name, for tests or as settings: only one with a name and a version describes a package.
func readNPM(c *content) (findings, error) {
	text, err := c.text()
	if err != nil {
		return findings{}, err
	}
	var d struct {
		Name     jsonText
		Version  jsonText
		License  npmLicense
		Licenses npmLicense
		Author   npmAuthor
	}
	if err := json.Unmarshal(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), &d); err != nil {
		return findings{}, err
	}
	if !isNPMName(string(d.Name)) || d.Version == "" {
		return findings{}, errNotPackage
	}
	return one(Package{Type: NPM, Name: string(d.Name), Version: string(d.Version),
		Supplier: string(d.Author), Licenses: append(d.License, d.Licenses...)})
}

// isNPMName reports whether a text can be the name of a package: "name" or "@scope/name".
func isNPMName(s string) bool {
	scope, name, scoped := strings.Cut(s, "/")
	if !scoped {
		return s != "" && !strings.ContainsAny(s, " @\t\n")
	}
	return len(scope) > 1 && scope[0] == '@' && name != "" && !strings.ContainsAny(name, "/@ ")
}

// jsonText is a text. A value of another type counts as empty.
type jsonText string

// UnmarshalJSON accepts any value.
func (t *jsonText) UnmarshalJSON(data []byte) error {
	var s string
	if json.Unmarshal(data, &s) == nil {
		*t = jsonText(strings.TrimSpace(s))
	}
	return nil
}

// npmLicense is a license in one of the forms that have been in use: a text, an object with a type,
// or a list of them.
type npmLicense []string

// UnmarshalJSON accepts any value.
func (l *npmLicense) UnmarshalJSON(data []byte) error {
	var s, object = jsonText(""), struct{ Type jsonText }{}
	var list []json.RawMessage
	switch {
	case json.Unmarshal(data, &list) == nil:
		for _, one := range list {
			var inner npmLicense
			if len(one) == 0 || one[0] == '[' {
				continue
			}
			if err := inner.UnmarshalJSON(one); err != nil {
				return err
			}
			*l = append(*l, inner...)
		}
		return nil
	case json.Unmarshal(data, &object) == nil && object.Type != "":
		s = object.Type
	default:
		if err := s.UnmarshalJSON(data); err != nil {
			return err
		}
	}
	if s != "" {
		*l = append(*l, string(s))
	}
	return nil
}

// npmAuthor is an author: a text, or an object with a name.
type npmAuthor string

// UnmarshalJSON accepts any value.
func (a *npmAuthor) UnmarshalJSON(data []byte) error {
	var s, object = jsonText(""), struct{ Name jsonText }{}
	if json.Unmarshal(data, &object) == nil {
		s = object.Name
	} else if err := s.UnmarshalJSON(data); err != nil {
		return err
	}
	*a = npmAuthor(oneLine(string(s)))
	return nil
}

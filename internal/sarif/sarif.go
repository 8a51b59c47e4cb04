package sarif

import (
	"net/url"
	"path"
	"path/filepath"
	"strings"
)

// Level is the severity of a result.
type Level string

// The levels (section 3.27.10).
const (
	Error   Level = "error"
	Warning Level = "warning"
	Note    Level = "note"
)

// Log is a log file with one run.
type Log struct {
	Schema  string `json:"$schema"`
	Version string `json:"version"`
	Runs    []Run  `json:"runs"`
}

// Run is one run of a tool. New makes it.
type Run struct {
	Tool        Tool         `json:"tool"`
	Invocations []Invocation `json:"invocations"`
	Results     []Result     `json:"results"`
	// ColumnKind is required where there are columns; readers warn if it is missing.
	ColumnKind string `json:"columnKind"`
}

// Tool holds the program that made the results.
type Tool struct {
	Driver Driver `json:"driver"`
}

// Driver is the program that made the results.
type Driver struct {
	Name           string `json:"name"`
	Version        string `json:"version"`
	InformationURI string `json:"informationUri"`
	Rules          []Rule `json:"rules"`
}

// Rule describes a rule that has results.
type Rule struct {
	ID            string        `json:"id"`
	Description   *Message      `json:"shortDescription,omitempty"`
	HelpURI       string        `json:"helpUri,omitempty"`
	Configuration Configuration `json:"defaultConfiguration"`
}

// Configuration is the default configuration of a rule.
type Configuration struct {
	Level Level `json:"level"`
}

// Invocation tells whether the tool has done its work.
type Invocation struct {
	Successful    bool           `json:"executionSuccessful"`
	Notifications []Notification `json:"toolExecutionNotifications,omitempty"`
}

// Notification is an error that is about the run, and not about a place in a file.
type Notification struct {
	Level   Level   `json:"level"`
	Message Message `json:"message"`
}

// Message is text without formatting.
type Message struct {
	Text string `json:"text"`
}

// Result is one finding.
type Result struct {
	RuleID    string     `json:"ruleId"`
	RuleIndex int        `json:"ruleIndex"`
	Level     Level      `json:"level"`
	Message   Message    `json:"message"`
	Locations []Location `json:"locations,omitempty"`
	// Related are further places.
	Related []Location `json:"relatedLocations,omitempty"`
}

// Location is a place in a file, or in the history of an image.
type Location struct {
	Physical *PhysicalLocation `json:"physicalLocation,omitempty"`
	Logical  []LogicalLocation `json:"logicalLocations,omitempty"`
	Message  *Message          `json:"message,omitempty"`
}

// PhysicalLocation is a place in a file.
type PhysicalLocation struct {
	Artifact ArtifactLocation `json:"artifactLocation"`
	Region   *Region          `json:"region,omitempty"`
}

// ArtifactLocation names a file.
type ArtifactLocation struct {
	URI       string `json:"uri"`
	URIBaseID string `json:"uriBaseId,omitempty"`
}

// Region is a range of lines, from 1.
type Region struct {
	StartLine int `json:"startLine"`
	EndLine   int `json:"endLine,omitempty"`
}

// LogicalLocation names a place that is not in a file.
type LogicalLocation struct {
	Name string `json:"fullyQualifiedName"`
	Kind string `json:"kind"`
}

// New returns a log with a run that has succeeded and has no results.
func New(driver Driver) *Log {
	driver.Rules = []Rule{}
	return &Log{
		Schema:  "https://json.schemastore.org/sarif-2.1.0.json",
		Version: "2.1.0",
		Runs: []Run{{Tool: Tool{driver}, Invocations: []Invocation{{Successful: true}},
			Results: []Result{}, ColumnKind: "utf16CodeUnits"}},
	}
}

// Add adds a result of a rule. The rule is added too if it is new; of the results of one rule, the
// first one determines its description.
func (l *Log) Add(rule Rule, r Result) {
	run := &l.Runs[0]
	rules := &run.Tool.Driver.Rules
	at := 0
	for at < len(*rules) && (*rules)[at].ID != rule.ID {
		at++
	}
	if at == len(*rules) {
		*rules = append(*rules, rule)
	}
	r.RuleID, r.RuleIndex = rule.ID, at
	if r.Level == "" {
		r.Level = rule.Configuration.Level
	}
	run.Results = append(run.Results, r)
}

// Fail records an error that ended the run and has no place in a file.
func (l *Log) Fail(message string) {
	inv := &l.Runs[0].Invocations[0]
	inv.Successful = false
	inv.Notifications = append(inv.Notifications, Notification{Error, Message{message}})
}

// Lines returns the location of lines of a file. A relative name is relative to the root of the
// source tree. end may be 0 or start; without a start the location is the whole file.
func Lines(file string, start, end int) Location {
	p := &PhysicalLocation{Artifact: artifact(file)}
	if start > 0 {
		p.Region = &Region{StartLine: start}
		if end > start {
			p.Region.EndLine = end
		}
	}
	return Location{Physical: p}
}

// isScheme reports whether a text is the scheme of a URI (RFC 3986, section 3.1).
func isScheme(s string) bool {
	for i, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return s != ""
}

// artifact returns the location of a file: the URI of an absolute path or of a remote file, or a
// relative reference (RFC 3986).
func artifact(file string) ArtifactLocation {
	scheme, _, ok := strings.Cut(file, "://")
	if ok && isScheme(scheme) {
		// url.Parse accepts hosts with several colons, which RFC 3986 does not allow.
		if u, err := url.Parse(file); err == nil && (strings.Count(u.Host, ":") < 2 ||
			strings.HasPrefix(u.Host, "[")) {
			return ArtifactLocation{URI: u.String()}
		}
	}
	name := filepath.ToSlash(file)
	if path.IsAbs(name) {
		u := url.URL{Scheme: "file", Path: name}
		return ArtifactLocation{URI: u.String()}
	}
	u := url.URL{Path: path.Clean(name)}
	return ArtifactLocation{URI: u.String(), URIBaseID: "%SRCROOT%"}
}

package cluster

import (
	"bytes"
	"encoding/json"
)

// matrix is a value for strategy.matrix of a job of GitHub Actions.
type matrix struct {
	Include []matrixEntry `json:"include"`
}

type matrixEntry struct {
	Name     string `json:"name"`
	Platform string `json:"platform"`
	Runner   string `json:"runner"`
	Command  string `json:"command"`
}

// GitHub returns matrices for GitHub Actions, as one line of JSON: one for each wave of stages, one
// for the images, and the command that joins them, or "". A job cannot depend on entries of a
// matrix, so each wave waits for all nodes of the one before.
func (p *Plan) GitHub() (string, error) {
	doc := struct {
		Waves  []matrix `json:"waves"`
		Images matrix   `json:"images"`
		Index  string   `json:"index"`
	}{Waves: []matrix{}}
	for _, wave := range Waves(p.Nodes) {
		var m matrix
		for _, i := range wave {
			n := &p.Nodes[i]
			e := matrixEntry{n.Name, n.Platform, runner(n.architecture()), ShellLine(n.Args)}
			switch {
			case n.Target != "":
				m.Include = append(m.Include, e)
			case len(n.Stages) > 0:
				doc.Images.Include = append(doc.Images.Include, e)
			default:
				doc.Index = e.Command
			}
		}
		if len(m.Include) > 0 {
			doc.Waves = append(doc.Waves, m)
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(doc)
	return b.String(), err
}

// runner returns the label of GitHub's runners of an architecture.
func runner(arch string) string {
	if arch == "arm64" {
		return "ubuntu-24.04-arm"
	}
	return "ubuntu-24.04"
}

package main

import (
	"slices"
	"strings"
	"testing"
)

// TestParseGPUs parses values of --gpus of docker and podman.
func TestParseGPUs(t *testing.T) {
	for value, want := range map[string]string{
		"all":                    "all",
		"-1":                     "all",
		"1":                      "0",
		"3":                      "0 1 2",
		"count=2":                "0 1",
		"count=all":              "all",
		"driver=nvidia,count=-1": "all",
		"capabilities=utility":   "all",
		`"capabilities=compute,utility",device=1`: "1",
		"device=1":             "1",
		"device=0,2":           "0 2",
		`"device=0,2"`:         "0 2",
		"device=GPU-12ab":      "GPU-12ab",
		"0,1":                  "0 1", // podman's
		"GPU-12ab":             "GPU-12ab",
		"device=1,driver=cdi":  "1",
		"all,capabilities=gpu": "all",
		"2,capabilities=gpu":   "0 1",
		"":                     "",
		"0":                    "",
		"1001":                 "",
		"count=x":              "",
		"driver=amd":           "",
		"count=1,device=0":     "",
		"options=x":            "",
		`"x`:                   "",
	} {
		got, err := parseGPUs(value)
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], "nvidia.com/gpu=")
		}
		if !slices.Equal(got, strings.Fields(want)) || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v, want %q", value, got, err, want)
		}
	}
}

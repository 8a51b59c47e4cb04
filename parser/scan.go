package parser

import (
	"fmt"
	"strconv"
	"strings"
)

// The arguments that select what a scanner reads besides the files of the image
// (https://github.com/moby/buildkit/blob/v0.34.2/docs/attestations/sbom.md). They never become
// variables.
const (
	scanContextArg = "BUILDKIT_SBOM_SCAN_CONTEXT"
	scanStageArg   = "BUILDKIT_SBOM_SCAN_STAGE"
)

// isScannerArg reports whether an argument is for a scanner that runs in addition to the build.
func isScannerArg(key string) bool { return key == scanContextArg || key == scanStageArg }

// Scans returns what a scanner reads besides the files of the image: stages that the target needs,
// and the main context. All stages must have been walked.
func (p *Plan) Scans() (stages []*Stage, context bool) {
	for _, s := range p.Stages {
		if s != p.Target && s.wantsScan(scanStageArg) {
			stages = append(stages, s)
		}
	}
	return stages, p.Target.wantsScan(scanContextArg)
}

// ScanName returns the name of a stage for a scanner.
func (s *Stage) ScanName() string {
	if s.Name == "" {
		return fmt.Sprintf("stage-%d", s.Index)
	}
	return s.Name
}

// wantsScan reports whether an argument is set for a stage: to true, or to a list of names that has
// the name of the stage. An ARG of the stage, or of the stage below, has precedence over a global
// one.
func (s *Stage) wantsScan(arg string) bool {
	value, _ := s.plan.globals.Get(arg)
	if final := s.final.Load(); final != nil {
		for _, a := range final.args {
			if a.Name == arg && a.Value != "" {
				value = a.Value
			}
		}
	}
	if is, err := strconv.ParseBool(value); err == nil {
		return is
	}
	for name := range strings.SplitSeq(value, ",") {
		if name != "" && strings.EqualFold(name, s.ScanName()) {
			return true
		}
	}
	return false
}

package cluster

import (
	"fmt"
	"strings"
)

// Slurm returns a script for bash that submits a job for each node. It prints the number of the
// last job.
func (p *Plan) Slurm() string {
	var b strings.Builder
	b.WriteString("#!/bin/bash\n")
	p.heading(&b, "", "usage: bash FILE [OPTIONS OF SBATCH]",
		"The number of the last job is printed. LAYERBUILD_SBATCH_ARCH, such as",
		"LAYERBUILD_SBATCH_ARM64='--partition=arm', has options for the nodes of an architecture.",
		"LAYERBUILD_ROOT is a state directory on a disk of each machine. It must not be shared.")
	b.WriteString("set -euo pipefail\n" +
		"export LAYERBUILD_ROOT=\"${LAYERBUILD_ROOT:-/var/tmp/layerbuild-$(id -u)}\"\n")
	for i, n := range p.Nodes {
		fmt.Fprintf(&b, "\njob%d=$(sbatch --parsable --job-name=layerbuild-%s-%s --chdir=%s", i,
			p.ID(), n.Name, shellWord(p.Dir))
		for k, w := range n.Needs {
			if k == 0 {
				b.WriteString(" \\\n\t--kill-on-invalid-dep=yes --dependency=\"afterok")
			}
			fmt.Fprintf(&b, ":${job%d%%%%;*}", w)
			if k == len(n.Needs)-1 {
				b.WriteString("\"")
			}
		}
		arch := strings.ToUpper(strings.ReplaceAll(Label(n.architecture()), "-", "_"))
		fmt.Fprintf(&b, " \\\n\t${LAYERBUILD_SBATCH_%s:-} \"$@\" \\\n\t--wrap=%s)\n", arch,
			shellWord(ShellLine(n.Args)))
	}
	fmt.Fprintf(&b, "\necho \"${job%d%%%%;*}\"\n", len(p.Nodes)-1)
	return b.String()
}

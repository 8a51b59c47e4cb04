#!/bin/bash
# usage: array.sh PLAN.json [OPTIONS OF SBATCH]
# Submits the nodes of a plan (layerbuild plan --format json) to Slurm: a job array for each wave, which waits for the wave before.
# An option such as --array is not possible, but ARRAY_LIMIT=8 limits how many nodes of a wave run at the same time. The number of
# the last job is printed.
#
# All machines need layerbuild, python3, and this directory, the plan and the context at the same paths.
set -euo pipefail
plan=$(realpath "$1")
shift
node=$(dirname "$(realpath "$0")")/node.py
# The state of each machine is on a disk of its own.
export LAYERBUILD_ROOT="${LAYERBUILD_ROOT:-/var/tmp/layerbuild-$(id -u)}"

after= wave=0
for nodes in $(python3 "$node" "$plan"); do
	# The command has only paths and numbers: node.py reads the command line of a node from the plan, and no shell reads it.
	after=$(sbatch --parsable --job-name="layerbuild-wave-$wave" --array="0-$((nodes - 1))${ARRAY_LIMIT:+%$ARRAY_LIMIT}" \
		${after:+--kill-on-invalid-dep=yes --dependency="afterok:$after"} "$@" \
		--wrap="exec python3 $(printf %q "$node") $(printf %q "$plan") $wave \"\$SLURM_ARRAY_TASK_ID\"")
	after=${after%%;*}
	wave=$((wave + 1))
done
echo "$after"

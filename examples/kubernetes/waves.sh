#!/bin/sh
# usage: waves.sh FILE
# Applies the Jobs of a plan (layerbuild plan --format k8s) wave by wave. It ends with status 1 as soon as a Job has failed.
# KUBECTL is the command (kubectl), such as "kubectl --namespace builds".
set -eu
plan=$1
: "${KUBECTL:=kubectl}"

# The labels of the Jobs have the plan and the wave.
id=$(sed -n 's/^  labels: {layerbuild-plan: "\([0-9a-f]*\)".*/\1/p' "$plan" | head -n 1)
last=$(sed -n 's/^  labels: {.*layerbuild-wave: "\([0-9]*\)"}$/\1/p' "$plan" | sort -n | tail -n 1)

# states prints the states of the Jobs of wave $1 that have ended: Complete or Failed.
states() {
	$KUBECTL get job -l "layerbuild-plan=$id,layerbuild-wave=$1" \
		-o 'jsonpath={range .items[*]}{.status.conditions[?(@.status=="True")].type}{"\n"}{end}'
}

wave=0
while [ "$wave" -le "$last" ]; do
	$KUBECTL apply -f "$plan" -l "layerbuild-wave=$wave"
	nodes=$(grep -c "^  labels: {.*layerbuild-wave: \"$wave\"}\$" "$plan")
	while :; do
		now=$(states "$wave")
		case $now in
		*Failed*)
			echo "a Job of wave $wave has failed; see $KUBECTL logs -l layerbuild-plan=$id,layerbuild-wave=$wave" >&2
			exit 1
			;;
		esac
		[ "$(printf '%s\n' "$now" | grep -c Complete)" -lt "$nodes" ] || break
		sleep "${INTERVAL:-5}"
	done
	wave=$((wave + 1))
done

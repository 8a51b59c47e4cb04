#!/bin/bash
# Builds with layerbuild. The inputs are those of action.yml, each in the variable INPUT_NAME. The outputs imageid,
# digest and metadata are appended to $GITHUB_OUTPUT.
set -euo pipefail

work=$(mktemp -d "${RUNNER_TEMP:-/tmp}/layerbuild.XXXXXX")
trap 'rm -rf "$work"' EXIT
args=()

# items prints the items of the list $1, each with a zero byte after it. A line is an item; with $2, commas separate
# items too. An item in double quotes may have several lines, and a doubled quote stands for one.
items() {
	local line item='' open='' quotes
	while IFS= read -r line || [ -n "$line" ]; do
		if [ -n "$open" ]; then item+=$'\n'$line; else item=${line%$'\r'}; fi
		quotes=${item//[^\"]/}
		open=
		if [[ $item == [[:space:]]*\"* || $item == \"* ]] && ((${#quotes} % 2)); then
			open=yes
			continue
		fi
		emit "$item" "${2:-}"
	done <<<"$1"
	if [ -n "$open" ]; then
		echo "::error title=layerbuild::a quote is not closed in a list of inputs" >&2
		return 1
	fi
}

emit() {
	local item=$1 part
	item=${item#"${item%%[![:space:]]*}"}
	item=${item%"${item##*[![:space:]]}"}
	if [[ $item == \"*\" && ${#item} -gt 1 ]]; then
		item=${item:1:-1}
		printf '%s\0' "${item//\"\"/\"}"
	elif [ -n "${2:-}" ]; then
		while IFS= read -r -d , part || [ -n "$part" ]; do
			[ -z "$part" ] || emit "$part"
		done <<<"$item"
	elif [ -n "$item" ]; then
		printf '%s\0' "$item"
	fi
}

# flags adds --$1 VALUE for each item of a list.
flags() {
	local value
	items "${2:-}" "${3:-}" >"$work/list"
	while IFS= read -r -d '' value; do args+=("--$1=$value"); done <"$work/list"
}

# one adds --$1=VALUE if there is a value.
one() { if [ -n "${2:-}" ]; then args+=("--$1=$2"); fi; }

flags add-host "${INPUT_ADD_HOSTS:-}" ,
flags allow "${INPUT_ALLOW:-}" ,
flags annotation "${INPUT_ANNOTATIONS:-}"
flags attest "${INPUT_ATTESTS:-}"
flags build-arg "${INPUT_BUILD_ARGS:-}"
flags build-context "${INPUT_BUILD_CONTEXTS:-}"
one builder "${INPUT_BUILDER:-}"
flags cache "${INPUT_CACHE:-}"
flags cache-from "${INPUT_CACHE_FROM:-}"
flags cache-to "${INPUT_CACHE_TO:-}"
one call "${INPUT_CALL:-}"
one cgroup-parent "${INPUT_CGROUP_PARENT:-}"
one file "${INPUT_FILE:-}"
flags label "${INPUT_LABELS:-}"
one load "${INPUT_LOAD:-false}"
one network "${INPUT_NETWORK:-}"
one no-cache "${INPUT_NO_CACHE:-false}"
flags no-cache-filter "${INPUT_NO_CACHE_FILTERS:-}" ,
flags output "${INPUT_OUTPUTS:-}"
flags platform "${INPUT_PLATFORMS:-}" ,
one provenance "${INPUT_PROVENANCE:-}"
[ "${INPUT_PULL:-false}" != true ] || args+=(--pull)
one push "${INPUT_PUSH:-false}"
one sbom "${INPUT_SBOM:-}"
one shm-size "${INPUT_SHM_SIZE:-}"
flags ssh "${INPUT_SSH:-}" ,
flags tag "${INPUT_TAGS:-}" ,
one target "${INPUT_TARGET:-}"
flags ulimit "${INPUT_ULIMIT:-}"

# Values of secrets are files that only this user can read, and are removed at the end.
umask 077
token=
n=0
items "${INPUT_SECRETS:-}" >"$work/list"
while IFS= read -r -d '' secret; do
	n=$((n + 1))
	printf %s "${secret#*=}" >"$work/secret$n"
	args+=("--secret=id=${secret%%=*},src=$work/secret$n")
	[[ $secret != GIT_AUTH_TOKEN=* ]] || token=given
done <"$work/list"
items "${INPUT_SECRET_ENVS:-}" , >"$work/list"
while IFS= read -r -d '' secret; do args+=("--secret=id=${secret%%=*},env=${secret#*=}"); done <"$work/list"
items "${INPUT_SECRET_FILES:-}" >"$work/list"
while IFS= read -r -d '' secret; do args+=("--secret=id=${secret%%=*},src=${secret#*=}"); done <"$work/list"
umask 022

# Without a context, the repository is fetched at the commit of the workflow.
context=${INPUT_CONTEXT:-}
if [ -z "$context" ]; then
	context=$GITHUB_SERVER_URL/$GITHUB_REPOSITORY.git#$GITHUB_SHA
	if [ -n "${INPUT_GITHUB_TOKEN:-}" ] && [ -z "$token" ]; then
		export LAYERBUILD_GITHUB_TOKEN=$INPUT_GITHUB_TOKEN
		args+=(--secret=id=GIT_AUTH_TOKEN,env=LAYERBUILD_GITHUB_TOKEN)
	fi
fi

[ -z "${RUNNER_DEBUG:-}" ] || printf '%q ' "${INPUT_LAYERBUILD:-layerbuild}" build "${args[@]}" "$context" >&2
"${INPUT_LAYERBUILD:-layerbuild}" build --iidfile="$work/iid" --metadata-file="$work/metadata" "${args[@]}" "$context"

# The check of --call makes no image.
if [ -s "$work/metadata" ]; then
	end=end-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	{
		echo "imageid=$(cat "$work/iid")"
		echo "digest=$(sed -n 's/^ *"containerimage.digest": "\(.*\)",\{0,1\}$/\1/p' "$work/metadata")"
		printf 'metadata<<%s\n%s\n%s\n' "$end" "$(cat "$work/metadata")" "$end"
	} >>"$GITHUB_OUTPUT"
fi

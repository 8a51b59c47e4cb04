#!/bin/sh
# Makes rootfs.tar.zst: a minimal Debian of this machine's release, from this machine's package sources. It needs
# mmdebstrap and zstd, and root or user namespaces.
set -eu
cd "$(dirname "$0")"
. /etc/os-release
include=
set --
for f in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
	if grep -q '^[^#]' "$f" 2>/dev/null; then
		set -- "$@" "$f"
		if grep -q '^[^#]*https://' "$f"; then include=--include=ca-certificates; fi
	fi
done
trap 'rm -f rootfs.tmp.tar.zst' EXIT
mmdebstrap --quiet --variant=minbase $include "${VERSION_CODENAME:-stable}" rootfs.tmp.tar.zst "$@"
mv rootfs.tmp.tar.zst rootfs.tar.zst

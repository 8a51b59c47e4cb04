#!/bin/sh
# usage: rootfs.sh ARCH OUT.tar
# Unpacks the packages of Debian that the ordinary image has, for ARCH, and writes OUT.tar. No program of ARCH runs: packages
# are unpacked and not configured, and this script does what their maintainer scripts would do and the image needs. The times
# of files are limited by SOURCE_DATE_EPOCH. The packages come from this machine's package sources, for its release of Debian.
set -eu
arch=$1 out=$2
packages=base-files,base-passwd,bash,ca-certificates,coreutils,dash,findutils,git,grep,gzip,openssh-client,sed,tar,uidmap
. /etc/os-release
set --
for f in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
	if grep -q '^[^#]' "$f" 2>/dev/null; then set -- "$@" "$f"; fi
done
hook=$(mktemp)
trap 'rm -f "$hook"' EXIT
cat >"$hook" <<'HOOK'
set -eu
cd "$1"
cp usr/share/base-passwd/passwd.master etc/passwd
cp usr/share/base-passwd/group.master etc/group
# The user for containers that do not run as root, with ids for the files of images.
echo 'layerbuild:x:1000:1000::/home/layerbuild:/bin/sh' >>etc/passwd
echo 'layerbuild:x:1000:' >>etc/group
echo layerbuild:100000:65536 >etc/subuid
echo layerbuild:100000:65536 >etc/subgid
mkdir -p home/layerbuild etc/ssl/certs
chown 1000:1000 home/layerbuild
cp usr/share/libc-bin/nsswitch.conf etc/nsswitch.conf 2>/dev/null || printf 'hosts: files dns\n' >etc/nsswitch.conf
cat usr/share/ca-certificates/mozilla/*.crt >etc/ssl/certs/ca-certificates.crt
# The packages, for programs that list them: in the form of images without dpkg.
mkdir -p var/lib/dpkg/status.d
for deb in var/cache/apt/archives/*.deb; do
	name=$(dpkg-deb -f "$deb" Package)
	dpkg-deb -f "$deb" >"var/lib/dpkg/status.d/$name"
done
rm -f etc/apt/sources.list etc/apt/sources.list.d/*
HOOK
mmdebstrap --quiet --variant=extract --architectures="$arch" --include="$packages" --format=tar \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
	--extract-hook="sh $hook \"\$1\"" \
	"${VERSION_CODENAME:-stable}" "$out" "$@"

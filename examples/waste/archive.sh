#!/bin/sh -e
# usage: archive.sh [MB] [FILE]
# Writes an archive of MB megabytes (200) of random bytes, which do not compress, to FILE (app.tar).
mb=${1:-200} file=${2:-app.tar}
dir=$(mktemp -d)
trap 'rm -r "$dir"' EXIT
mkdir "$dir/src"
for part in a b c d; do
    dd if=/dev/urandom of="$dir/src/$part" bs=1000000 count=$((mb / 4)) status=none
done
tar -C "$dir" --sort=name -cf "$file" src

#!/bin/sh -e
# archive.sh [MB] [FILE] writes an archive with so many megabytes of sources that do not compress.
mb=${1:-200} file=${2:-app.tar}
dir=$(mktemp -d)
trap 'rm -r "$dir"' EXIT
mkdir "$dir/src"
for part in a b c d; do
    dd if=/dev/urandom of="$dir/src/$part" bs=1000000 count=$((mb / 4)) status=none
done
tar -C "$dir" --sort=name -cf "$file" src

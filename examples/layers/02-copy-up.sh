#!/bin/sh
# Changing one byte of a file copies the whole file to the upper directory.
. "$(dirname "$0")/lab.sh"
mkdir lower upper work merged
head -c 8M /dev/zero | tr '\0' x >lower/full
truncate -s 1G lower/sparse

mount -t overlay overlay -o $layers,lowerdir=lower,upperdir=upper,workdir=work merged
run 'cat merged/full >/dev/null'
run 'ls upper'
run 'printf y | dd of=merged/full bs=1 seek=4M conv=notrunc status=none'
run 'du -h upper/full'
run 'cmp -l lower/full upper/full | wc -l'
run 'printf y | dd of=merged/sparse bs=1 seek=512M conv=notrunc status=none'
run 'du -h --apparent-size upper/sparse'
run 'du -h upper/sparse'

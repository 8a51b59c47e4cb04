#!/bin/sh
# Changing the mode of a file copies its content too.
. "$(dirname "$0")/lab.sh"
mkdir lower upper work merged
head -c 8M /dev/zero | tr '\0' x >lower/full

mount -t overlay overlay -o $layers,lowerdir=lower,upperdir=upper,workdir=work merged
run 'chmod 600 merged/full'
run 'du -h upper/full'
run 'cmp lower/full upper/full && echo same content'
run 'tar -C upper -cf - full | wc -c'

#!/bin/sh
# Removing a file that is in lower makes a whiteout, a character device 0:0. Removing a file that only upper has leaves nothing.
. "$(dirname "$0")/lab.sh"
mkdir lower upper work merged
echo 1 >lower/old

mount -t overlay overlay -o $layers,lowerdir=lower,upperdir=upper,workdir=work merged
run 'echo 2 >merged/new'
run 'rm merged/old merged/new'
run 'ls merged'
run 'stat -c "%n: %F %t:%T" upper/*'
run 'cat lower/old'
run 'umount merged'
echo 'A whiteout made by hand does the same:'
run 'rm upper/old'
mount -t overlay overlay -o $layers,lowerdir=lower,upperdir=upper,workdir=work merged
run 'ls merged'
run 'umount merged'
run 'mknod upper/old c 0 0'
mount -t overlay overlay -o $layers,lowerdir=lower,upperdir=upper,workdir=work merged
run 'ls merged'

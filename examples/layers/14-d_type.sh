#!/bin/sh
# Without d_type in directory entries overlay lists whiteouts. mkfs.ext4 can make such a file system (package e2fsprogs).
. "$(dirname "$0")/lab.sh"
in_root
PATH=$PATH:/usr/sbin:/sbin
truncate -s 32M image
mkfs.ext4 -q -O ^filetype image
mkdir fs lower merged
mount -o loop image fs
mkdir fs/upper fs/work
echo 1 >lower/old

mount -t overlay overlay -o $layers,lowerdir=lower,upperdir=fs/upper,workdir=fs/work merged
run 'rm merged/old'
run 'stat -c "%n: %F" fs/upper/old'
run 'ls merged'
run 'cat merged/old || true'

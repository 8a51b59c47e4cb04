#!/bin/sh
# With metacopy=on a change of the mode does not copy the content: the file in upper is empty.
. "$(dirname "$0")/lab.sh"
in_root
mkdir lower upper work merged
head -c 8M /dev/zero | tr '\0' x >lower/full

run 'mount -t overlay overlay -o metacopy=on,redirect_dir=on,lowerdir=lower,upperdir=upper,workdir=work merged'
run 'chmod 600 merged/full'
run 'du -h --apparent-size upper/full'
run 'du -h upper/full'
run 'getfattr -d -m overlay.metacopy upper/full'
run 'head -c 4 merged/full; echo'
run 'head -c 4 upper/full | od -An -tx1'
run 'printf y | dd of=merged/full bs=1 conv=notrunc status=none'
run 'du -h upper/full'

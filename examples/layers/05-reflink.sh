#!/bin/sh
# On a file system with reflinks copy-up shares the content. mkfs.btrfs makes such a file system (package btrfs-progs).
. "$(dirname "$0")/lab.sh"
in_root
PATH=$PATH:/usr/sbin:/sbin
truncate -s 128M image
mkfs.btrfs -q image >/dev/null 2>&1
mkdir btrfs merged
mount -o loop image btrfs
mkdir btrfs/lower btrfs/upper btrfs/work
head -c 8M /dev/zero | tr '\0' x >btrfs/lower/full
used() { sync -f btrfs; df -k --output=used btrfs | tail -n 1; }

run 'mount -t overlay overlay -o $layers,lowerdir=btrfs/lower,upperdir=btrfs/upper,workdir=btrfs/work merged'
before=$(used)
run 'printf y | dd of=merged/full bs=1 conv=notrunc status=none'
run 'du -h btrfs/upper/full'
grown=$(($(used) - before))
if [ "$grown" -lt 1024 ]; then
	grown="less than 1024"
fi
echo "The file system has grown by $grown KiB."

#!/bin/sh
# Two overlays on one lower directory share its files on the disk and in the page cache.
. "$(dirname "$0")/lab.sh"
on_disk disk
mkdir -p disk/base a/upper a/work a/merged b/upper b/work b/merged
head -c 4M /dev/zero | tr '\0' x >disk/base/lib

for image in a b; do
	run "mount -t overlay overlay -o \$layers,lowerdir=disk/base,upperdir=$image/upper,workdir=$image/work $image/merged"
done
echo 'Take the file out of the page cache, and count its bytes there:'
run 'dd of=disk/base/lib oflag=nocache conv=notrunc,fdatasync count=0 status=none'
run 'fincore -nro RES disk/base/lib'
echo 'One image reads it:'
run 'cat a/merged/lib >/dev/null'
run 'fincore -nro RES disk/base/lib'
echo 'The other image takes it out:'
run 'dd if=b/merged/lib iflag=nocache count=0 status=none'
run 'fincore -nro RES disk/base/lib'
echo 'On the disk there is one file:'
run 'du -h disk/base/lib; ls a/upper b/upper'

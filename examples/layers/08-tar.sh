#!/bin/sh
# A layer is a tar of the upper directory. Files named .wh.NAME and .wh..wh..opq replace the marks of overlay.
. "$(dirname "$0")/lab.sh"
mkdir -p lower/d upper work merged layer
echo 1 >lower/d/file
echo 2 >lower/old

mount -t overlay overlay -o $layers,lowerdir=lower,upperdir=upper,workdir=work merged
run 'rm -r merged/old merged/d'
run 'mkdir merged/d'
run 'echo 3 >merged/d/new'
umount merged
cp -a upper/. layer
cd layer
echo 'What overlay has:'
run 'find * -printf "%y %p\n" | sort -k2'
find . -type c -printf '%h/.wh.%f\0' | xargs -0 touch
find . -type c -delete
find . -type d | while read -r dir; do
	if getfattr -d -m overlay.opaque "$dir" | grep -q '="y"'; then
		: >"$dir/.wh..wh..opq"
	fi
done
echo 'What a layer has:'
run 'tar --sort=name -cf ../layer.tar *  .wh.*'
run 'tar -tf ../layer.tar'

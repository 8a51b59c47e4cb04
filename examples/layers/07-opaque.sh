#!/bin/sh
# A directory that was removed and made again hides the whole directory of that name in lower.
. "$(dirname "$0")/lab.sh"
mkdir -p lower/d/sub upper work merged
echo 1 >lower/d/file
echo 2 >lower/d/sub/file

mount -t overlay overlay -o $layers,lowerdir=lower,upperdir=upper,workdir=work merged
run 'rm -r merged/d'
run 'stat -c "%n: %F" upper/d'
run 'mkdir merged/d'
run 'stat -c "%n: %F" upper/d'
run 'getfattr -d -m overlay.opaque upper/d'
run 'mkdir merged/d/sub'
run 'find merged | sort'
run 'getfattr -d -m overlay.opaque upper/d/sub'
run 'umount merged'
echo 'Without the attribute the directories are merged:'
run 'setfattr -x '"$([ "$ids" = 4294967295 ] && echo trusted || echo user)"'.overlay.opaque upper/d'
mount -t overlay overlay -o $layers,lowerdir=lower,upperdir=upper,workdir=work merged
run 'find merged | sort'

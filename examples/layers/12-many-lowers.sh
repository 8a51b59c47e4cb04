#!/bin/sh
# The options of mount(2) have to fit one page, 4096 bytes. An overlay takes 500 lower directories at most.
. "$(dirname "$0")/lab.sh"
mkdir upper work merged
mkdir $(seq 501)
echo "from 500" >500/file
mkdir $(seq -f %064.0f 70)
try() {
	if mount -t overlay overlay -o "$layers,lowerdir=$1,upperdir=upper,workdir=work" merged 2>/dev/null; then
		cat merged/file 2>/dev/null || echo mounted
		umount merged
	else
		echo refused
	fi
}

run 'try $(seq -s : 500)'
run 'try $(seq -s : 501)'
run 'seq -s : -f %064.0f 60 | wc -c'
run 'try $(seq -s : -f %064.0f 60)'
run 'seq -s : -f %064.0f 70 | wc -c'
run 'try $(seq -s : -f %064.0f 70)'

#!/bin/sh
# The four directories of an overlay, and where reads and writes go.
. "$(dirname "$0")/lab.sh"
mkdir lower upper work merged
echo "from lower" >lower/a
echo "from lower" >lower/b

run 'mount -t overlay overlay -o $layers,lowerdir=lower,upperdir=upper,workdir=work merged'
run 'ls merged'
run 'ls upper'
run 'echo "written in merged" >merged/b'
run 'echo "written in merged" >merged/c'
run 'grep . merged/*'
run 'grep . upper/*'
run 'grep . lower/*'
run 'umount merged'
run 'grep . lower/* upper/*'

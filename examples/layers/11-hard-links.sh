#!/bin/sh
# Two names of one file become two files when one of them is copied up.
. "$(dirname "$0")/lab.sh"
mkdir lower upper work merged
echo old >lower/a
ln lower/a lower/b

mount -t overlay overlay -o $layers,lowerdir=lower,upperdir=upper,workdir=work merged
run 'stat -c "%n: %h names" merged/*'
run 'echo new >merged/a'
run 'grep . merged/*'
run 'test merged/a -ef merged/b || echo two files'
run 'ls upper'

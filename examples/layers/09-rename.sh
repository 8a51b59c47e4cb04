#!/bin/sh
# A directory in lower cannot be renamed (EXDEV). mv(1) copies it, file by file.
. "$(dirname "$0")/lab.sh"
mkdir -p lower/d upper work merged
head -c 1M /dev/zero | tr '\0' x >lower/d/big

mount -t overlay overlay -o $layers,lowerdir=lower,upperdir=upper,workdir=work merged
run 'mkdir merged/new'
run 'mv -v merged/new merged/newer'
run 'mv -v merged/d merged/e'
run 'stat -c "%n: %F" upper/d upper/e'
run 'du -h upper/e/big'

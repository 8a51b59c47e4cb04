#!/bin/sh
# With redirect_dir=on a directory in lower can be renamed: an attribute of the new directory has the old name.
. "$(dirname "$0")/lab.sh"
in_root
mkdir -p lower/d upper work merged
head -c 1M /dev/zero | tr '\0' x >lower/d/big

run 'mount -t overlay overlay -o redirect_dir=on,lowerdir=lower,upperdir=upper,workdir=work merged'
run 'mv -v merged/d merged/e'
run 'getfattr -d -m overlay.redirect upper/e'
run 'ls merged/e'
run 'ls upper/e'

# Each experiment sources this file first. The file makes an empty directory on a tmpfs, in a new mount namespace, and
# removes the directory at the end. For an ordinary user it also makes a user namespace, with unshare -Urm.
#
# run COMMAND        prints the command and runs it
# in_root            exits with status 77 in a user namespace, where the experiment does not work
# on_disk DIR        makes DIR on the disk: /var/tmp, not the tmpfs
# $layers            mount options with which overlay keeps whole layers; layerbuild uses the same
set -eu
export LC_ALL=C
export LIBMOUNT_FORCE_MOUNT2=always # newer mount(8) would use fsconfig(2), whose values have at most 255 bytes
umask 022

if [ -z "${layers_lab:-}" ]; then
	if [ "$(id -u)" = 0 ]; then
		exec env layers_lab=1 unshare -m --propagation private sh "$0"
	fi
	exec env layers_lab=1 unshare -Urm --propagation private sh "$0"
fi

layers=index=off,redirect_dir=nofollow,metacopy=off
read -r _ _ ids </proc/self/uid_map
if [ "$ids" != 4294967295 ]; then
	layers=$layers,userxattr
fi

lab=$(mktemp -d "${TMPDIR:-/tmp}/layers.XXXXXX")
disk=
clean() {
	cd /
	umount -R "$lab" 2>/dev/null || true
	rmdir "$lab"
	if [ -n "$disk" ]; then
		rm -rf --one-file-system "$disk"
	fi
}
trap clean EXIT
trap 'exit 1' HUP INT TERM
mount -t tmpfs -o size=64m,mode=755 layers "$lab"
cd "$lab"

run() {
	printf '$ %s\n' "$1"
	eval "$1" 2>&1
}

in_root() {
	if [ "$ids" != 4294967295 ]; then
		echo "this experiment needs root" >&2
		exit 77
	fi
}

on_disk() {
	disk=$(mktemp -d /var/tmp/layers.XXXXXX)
	mkdir "$1"
	mount --bind "$disk" "$1"
	if [ "$(stat -f -c %T "$1")" = tmpfs ]; then
		echo "this experiment needs /var/tmp on a disk" >&2
		exit 77
	fi
}

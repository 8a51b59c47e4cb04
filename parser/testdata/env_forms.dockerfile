FROM busybox
ENV V=foobarfoo
ENV A=${UNSET:-default} B=${V:+alternative} C=${UNSET-d} D=${V+a} E=${V#foo} F=${V##*o} G=${V%foo} H=${V%%o*} I=${V/foo/x} J=${V//foo/y} K=${V:?message} L=\$V M='$V' N="$V"

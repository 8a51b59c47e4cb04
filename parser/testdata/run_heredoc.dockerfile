FROM busybox
SHELL ["/bin/ash", "-ec"]
RUN <<EOF
echo one
echo "$two"
EOF
RUN <<-SCRIPT
	#!/usr/bin/env python3
	print("hi")
	SCRIPT
RUN cat <<A > /a && cat <<B > /b
first
A
second
B

FROM busybox
WORKDIR relative
WORKDIR ../up
WORKDIR /
USER app:staff
WORKDIR /abs/../kept

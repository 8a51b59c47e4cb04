# escape=`
FROM busybox
RUN a `
  b
COPY <<EOF /f
line
EOF

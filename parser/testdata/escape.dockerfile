# syntax=docker/dockerfile:1
# escape=`
FROM busybox
RUN echo one `
    two
ENV DIR=C:\dir ESC=`$DIR

ARG BASE=debian-base
FROM $BASE
RUN --mount=type=bind,source=app.tar,target=/tmp/app.tar \
    mkdir /app && tar -xf /tmp/app.tar -C /app && \
    cat /app/src/* | sha256sum >/app/built && \
    rm -r /app/src
CMD ["cat", "/app/built"]

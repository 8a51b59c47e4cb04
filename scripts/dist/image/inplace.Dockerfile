# An image for builds in the file system of the container. Every file of the image is below /layerbuild, so that nothing of
# it gets into an image that is built.
FROM scratch
ARG TARGETARCH VERSION
COPY ${TARGETARCH}/layerbuild /layerbuild/layerbuild
COPY links /layerbuild/
COPY ca-certificates.crt /layerbuild/ca-certificates.crt
ENV PATH=/layerbuild SSL_CERT_FILE=/layerbuild/ca-certificates.crt LAYERBUILD_ROOT=/layerbuild/state
LABEL org.opencontainers.image.title="layerbuild" org.opencontainers.image.version="${VERSION}" \
	org.opencontainers.image.source="https://github.com/layerbuild/layerbuild"
ENTRYPOINT ["/layerbuild/layerbuild"]

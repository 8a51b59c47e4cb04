FROM nowhere AS unused
RUN false
FROM busybox AS Needed
RUN one
FROM busybox AS by-mount
RUN two
FROM scratch AS final
COPY --from=NEEDED /a /a
RUN --mount=from=by-mount,target=/m true
FROM busybox
RUN after the target
# options: --target FINAL

FROM busybox AS a
RUN first
FROM a AS a
RUN second, based on the first
FROM a
COPY --from=a x y

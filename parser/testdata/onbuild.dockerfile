FROM trig AS image
RUN own

FROM busybox AS tools
RUN make tools

FROM busybox AS base
ONBUILD ARG WHO=nobody
ONBUILD COPY --from=tools /t /t
ONBUILD RUN echo $WHO

FROM base AS child
RUN after

# A grandchild fires nothing.
FROM child
COPY --from=image /x /x

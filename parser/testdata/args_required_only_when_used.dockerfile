FROM busybox
ARG WITH_DEFAULT="${NOT_THERE:?never expanded, a value was given}"
RUN echo $WITH_DEFAULT
# options: --build-arg WITH_DEFAULT=x

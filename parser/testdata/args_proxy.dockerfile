FROM busybox
RUN wget http://example.com
ARG HTTP_PROXY
RUN echo $HTTP_PROXY
# options: --build-arg http_proxy=http://lower --build-arg HTTP_PROXY=http://upper --build-arg NO_PROXY=localhost

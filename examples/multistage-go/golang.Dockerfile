# A base with the Go toolchain of this machine: the context is GOROOT.
FROM debian-base
COPY . /usr/local/go
ENV PATH=/usr/local/go/bin:$PATH GOTOOLCHAIN=local

FROM busybox AS src
FROM busybox
WORKDIR /srv
ENV D=dir U=3
COPY a b* $D/
COPY ["with space", "to here/"]
COPY --chown=$U:root --chmod=u=rwX,go-w --link . .
COPY --from=src /x /y
COPY --from=0 /x ../y/.
COPY --from=docker.io/library/alpine:3.20 /etc/os-release /
COPY --from=named --parents a/./b/c d/
COPY --exclude=*.md --exclude=docs/** . /src
ADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 https://example.com/f.tar.gz /dl/
ADD --keep-git-dir=true https://example.com/repo.git#v1:sub /git
ADD git@example.com:repo.git?commit=0123456789012345678901234567890123456789 /git2
ADD --unpack=false archive.tar.gz /raw/
COPY <<one <<"two" /inline/
expanded $D
one
literal $D
two
# options: --build-context named

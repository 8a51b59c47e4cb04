FROM rich
MAINTAINER Jane <jane@example.com>
ENV A=1 B="two words" C=three\ words FOO=$FOO:more
ENV OLD the whole rest
LABEL one=1 "key with space"='single $A' multi="line \
continues"
EXPOSE 8080/udp 80 3000-3002 ${PORT:-9090}
USER ${A}:2
VOLUME /data "$A"
VOLUME ["/json"]
STOPSIGNAL SIGRTMIN+3
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENTRYPOINT start me
CMD ["a", "$A"]
HEALTHCHECK --interval=5m --timeout=3s --start-period=10s --start-interval=1s --retries=2 CMD curl -f http://localhost/ || exit 1
# options: --label one=override --label extra=x=y

# check=experimental=all;skip=SecretsUsedInArgOrEnv
# Something about the stage
FROM --platform=linux/amd64 busybox as Build
ENV password hunter2
run echo $TYPO
WORKDIR rel
EXPOSE 80/TCP 127.0.0.1:80:80
# check=skip=JSONArgsRecommended
CMD first
CMD second
MAINTAINER me
COPY node_modules /
FROM --platform=$TARGETPLATFORM ${BASEE:-busybox} AS scratch
RUN a \

  b
# options: --ignore node_modules --all yes

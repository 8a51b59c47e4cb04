ARG BASE=busybox
ARG TAG=${MISSING:-latest}
ARG GLOBAL=from-global
FROM ${BASE}:$TAG AS one
# A global argument is visible in a stage only after it is declared there.
RUN echo "$GLOBAL"
ARG GLOBAL
ARG LOCAL=${GLOBAL}-local GIVEN=default
RUN echo $LOCAL $GIVEN
ENV LOCAL=env-wins
RUN echo $LOCAL

# Arguments carry on into a stage that is based on this one.
FROM one
RUN echo $LOCAL $GIVEN
# options: --build-arg GIVEN=given --build-arg UNUSED=x

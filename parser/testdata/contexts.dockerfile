FROM alpine AS base
RUN base
FROM base AS dep
RUN never run, the context takes its place
FROM dep
COPY --from=other a b
RUN --mount=from=dep,target=/dep true
# options: --build-context dep --build-context other --build-context docker.io/library/alpine:latest

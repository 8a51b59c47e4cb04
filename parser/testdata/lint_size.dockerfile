# check=experimental=all
FROM busybox
RUN apt-get update && apt-get install -y curl
RUN apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*
RUN --mount=type=cache,target=/var/lib/apt apt-get update
RUN apk add curl
RUN apk add --no-cache curl
COPY app.tar.gz src/ /opt/app/
RUN tar -C /opt/app -xzf /opt/app/app.tar.gz
RUN chown -R app:app /opt/app && chmod 755 /opt/app
RUN chmod -R 755 /tmp/made-here
ADD local.tar.gz /
RUN tar xf local.tar.gz

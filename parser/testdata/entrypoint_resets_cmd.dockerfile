FROM busybox AS inherited
ENTRYPOINT ["entry"]
FROM busybox AS own
CMD ["mine"]
ENTRYPOINT ["entry"]
FROM own
ENTRYPOINT ["again"]

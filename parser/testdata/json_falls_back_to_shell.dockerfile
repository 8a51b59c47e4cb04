FROM busybox
RUN ['not', 'json']
CMD ["half"

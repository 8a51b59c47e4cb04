FROM debian-base
RUN echo "in both images" > /common
RUN echo "only in a" > /own

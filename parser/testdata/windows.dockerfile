# escape=`
FROM win
WORKDIR app\bin
COPY a C:\dest\
CMD run
# options: --platform windows/amd64

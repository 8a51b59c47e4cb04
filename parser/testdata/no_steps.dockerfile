FROM scratch
# options: --label a=b

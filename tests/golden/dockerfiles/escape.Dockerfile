# escape=`
# syntax=docker/dockerfile:1

FROM windows
RUN dir c:\ `
    && echo done
COPY a.txt c:\dir\
ENV p=c:\x q=a` b

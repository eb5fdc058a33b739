from alpine
env legacy form  of   value
env single=
label "a b"="c d" com.x='y z' e=$F
Label multi="line \
continued"
expose 80 443/tcp 8000-8002/udp $PORTS
volume /data "/with space" /c
VOLUME ["/json", "/two words"]
user model:users
workdir /path with spaces
StopSignal SIGINT
shell ["/bin/bash", "-o", "pipefail", "-c"]
entrypoint exec python
cmd
CMD ["a", "b\tc", "ü"]
RUN ["single"]
RUN ['not json']
RUN ["not", json]
healthcheck none
HEALTHCHECK CMD curl -f http://localhost/ || exit 1
maintainer A Person <a@example.com>
onbuild run echo $x
ONBUILD ENV a=b
COPY ["with space", "/dst dir/"]
ARG q="a b" r

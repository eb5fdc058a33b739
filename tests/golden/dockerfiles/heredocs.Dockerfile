# syntax=docker/dockerfile:1
# check=skip=all;error=true
FROM base
RUN <<EOF
set -e
# a comment of the script
echo "\
"
EOF
RUN <<-"STOP" python3
	import os
	print("$HOME")
	STOP
COPY <<one.txt <<'two.txt' --from-nothing.txt /dst/
first $x
one.txt
second $x
two.txt
RUN cat <<A - <<B
a <<C
A
b
B
RUN 3<<EOF cat <&3
three
EOF
RUN echo $((1<<2)) <<<word "<<NO" x<<NO
ONBUILD COPY <<EOF /later
later
EOF
ADD --chown=1:2 <<EOF /x
EOF

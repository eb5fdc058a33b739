#syntax=x
FROM a
RUN b \
  c
RUN <<EOF
line
EOF

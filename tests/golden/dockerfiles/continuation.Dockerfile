FROM scratch
RUN one && \
    # a comment between
      two && \   
# a comment at the margin

    three
RUN a\
b
RUN echo back\\
RUN # not a comment
  ENV  x=1   y="two words" \
    z=three\ words   
   COPY  a   b\ c   "d e"  /dst/
RUN echo 'a \
  b'

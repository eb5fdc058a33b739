ARG VERSION=3.11
ARG BASE
ARG A=1 B="two words"
FROM --platform=$BUILDPLATFORM python:${VERSION}-slim AS Build
ARG VERSION
ARG extra=${VERSION:-none}
RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked --network=none \
    pip wheel -w /wheels .
FROM ${BASE:-busybox} as final.stage-2
COPY --from=Build --chown=model:model --chmod=0755 --link /wheels/*.whl /wheels/
COPY --from=0 --parents --exclude=*.pyc --exclude=tests ./src/./a /app/
FROM scratch
ADD --checksum=sha256:aa --keep-git-dir=false --unpack=false x.tar /

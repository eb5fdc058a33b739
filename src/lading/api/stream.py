"""What goes out in pieces: Docker's multiplexed frames and JSON lines. Owns the two formats; sends nothing itself."""

from __future__ import annotations

import struct
from typing import Any

from lading.api.render.json import dumps
from lading.base.errors import LadingError

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
STDIN, STDOUT, STDERR = 0, 1, 2
_HEADER = struct.Struct(">BxxxL")


def frame(stream: int, data: bytes) -> bytes:
    """`data` behind the eight bytes that name its stream and length (Docker Engine API, ContainerAttach)."""
    return _HEADER.pack(stream, len(data)) + data


def content_type(framed: bool, version: int) -> str:
    """The media type of a stream. Before API 1.42 clients were told raw-stream for both kinds."""
    return MULTIPLEXED if framed and version >= 42 else RAW


def line(value: dict[str, Any]) -> bytes:
    """One JSON line of a progress stream; the reference engine ends lines with CR LF."""
    return dumps(value) + b"\r\n"


def error_line(error: LadingError) -> bytes:
    """The line that tells, inside a stream already begun, that it failed."""
    text = str(error)
    return line({"errorDetail": {"message": text}, "error": text})

"""What happens in a build, as values: a vertex for each step, chunks of its output, notices, the result.

Owns the values and their JSON form; never prints and never formats for people (`classic` and the CLI do).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Vertex:
    """One step of the build. It is sent again, whole, whenever something in it changed; `id` ties the
    sendings together.

    First sending: `started_ns` set, `completed_ns` 0. `container` appears when a RUN step starts. Last
    sending: `completed_ns` set and either `error`, or `result`. A cached step is sent started, then
    completed with `cached`.
    """

    id: str
    name: str  # the instruction as written, on one line: "RUN pip install -r requirements.txt"
    number: int  # 1-based among the steps this build performs
    total: int
    stage: str = ""  # "" where the file has one stage, else its name or number
    started_ns: int = 0
    completed_ns: int = 0
    cached: bool = False
    error: str = ""
    container: str = ""  # 64 hex digits
    result: str = ""  # digest that identifies the state after the step


@dataclass(frozen=True)
class Log:
    """Raw output of a running step; `stream` is stdout or stderr. Chunks may cut lines and characters."""

    vertex: str
    stream: str
    data: bytes
    ns: int


@dataclass(frozen=True)
class Notice:
    """A line for the user that belongs to no step: host trust is on, a lint warning."""

    text: str
    kind: str = "info"  # info, warning


@dataclass(frozen=True)
class Finished:
    """The build succeeded; `tags` are full references as stored."""

    image_id: str  # config digest "sha256:<hex>"
    tags: tuple[str, ...] = ()


Progress = Vertex | Log | Notice | Finished


def to_json(event: Progress) -> dict[str, Any]:
    """The JSON line of `POST /build?progress=vertex`: {"vertex": {...}} | {"log": {...}} | {"notice": ...} |
    {"finished": ...}.

    A log's bytes go as text when they are UTF-8, else as {"base64": ...}, so that no byte is lost.
    """
    match event:
        case Vertex():
            return {
                "vertex": {
                    "id": event.id,
                    "name": event.name,
                    "number": event.number,
                    "total": event.total,
                    "stage": event.stage,
                    "started_ns": event.started_ns,
                    "completed_ns": event.completed_ns,
                    "cached": event.cached,
                    "error": event.error,
                    "container": event.container,
                    "result": event.result,
                }
            }
        case Log():
            body: dict[str, Any] = {"vertex": event.vertex, "stream": event.stream, "ns": event.ns}
            try:
                body["text"] = event.data.decode()
            except UnicodeDecodeError:
                body["base64"] = base64.b64encode(event.data).decode()
            return {"log": body}
        case Notice():
            return {"notice": {"text": event.text, "kind": event.kind}}
        case Finished():
            return {"finished": {"image_id": event.image_id, "tags": list(event.tags)}}

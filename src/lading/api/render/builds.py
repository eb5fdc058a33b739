"""A build's progress as the classic builder's stream. Owns its wording and what was said of which step; sends nothing."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Any

from lading.base.ids import short
from lading.build.progress import Finished, Log, Notice, Progress, Vertex
from lading.image import reference


def _say(text: str) -> dict[str, Any]:
    return {"stream": text}


class Classic:
    """Feeds on progress events in order, gives the JSON lines that classic clients print as they come."""

    def __init__(self) -> None:
        self._announced: set[str] = set()
        self._in_container: set[str] = set()
        self._decoders: dict[tuple[str, str], codecs.IncrementalDecoder] = {}

    def feed(self, event: Progress) -> Iterator[dict[str, Any]]:
        match event:
            case Vertex():
                yield from self._vertex(event)
            case Log():
                text = self._text(event)
                if text:
                    yield _say(text)
            case Notice():
                mark = "[Warning] " if event.kind == "warning" else ""
                yield _say(f"{mark}{event.text}\n")
            case Finished():
                yield {"aux": {"ID": event.image_id}}
                yield _say(f"Successfully built {short(event.image_id)}\n")
                for tag in event.tags:
                    yield _say(f"Successfully tagged {reference.parse(tag).familiar}\n")

    def _vertex(self, step: Vertex) -> Iterator[dict[str, Any]]:
        if step.id not in self._announced:
            self._announced.add(step.id)
            yield _say(f"Step {step.number}/{step.total} : {step.name}")
            yield _say("\n")
        if step.container and not step.completed_ns and step.id not in self._in_container:
            self._in_container.add(step.id)
            yield _say(f" ---> Running in {short(step.container)}\n")
        if step.completed_ns and not step.error:
            if step.cached:
                yield _say(" ---> Using cache\n")
            if step.container:
                yield _say(f"Removing intermediate container {short(step.container)}\n")
            if step.result:
                yield _say(f" ---> {short(step.result)}\n")

    def _text(self, log: Log) -> str:
        """Chunks cut characters anywhere; each stream of each step has its own decoder."""
        key = (log.vertex, log.stream)
        decoder = self._decoders.get(key)
        if decoder is None:
            decoder = self._decoders[key] = codecs.getincrementaldecoder("utf-8")("replace")
        return decoder.decode(log.data)

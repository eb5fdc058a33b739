"""What happened, told to whoever listens. Owns the recent past in memory and the queues of subscribers.

Never blocks who publishes: a subscriber that does not read loses the oldest of its events.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping

from lading.base import clock
from lading.engine import filters as filtering
from lading.engine.model import Event

_KEPT = 1024
_QUEUE = 8192


class Events:
    """A ring of recent events and live subscriptions."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._recent: deque[Event] = deque(maxlen=_KEPT)
        self._queues: list[deque[Event]] = []
        self._closed = False

    def publish(self, event: Event) -> None:
        """Record an event and wake the subscribers."""
        with self._changed:
            self._recent.append(event)
            if self._queues:
                for queue in self._queues:
                    queue.append(event)
                self._changed.notify_all()

    def say(self, type_: str, action: str, actor: str, attributes: Mapping[str, str] | None = None) -> None:
        """Publish something that happens now."""
        self.publish(Event(type_, action, actor, attributes or {}, clock.now_ns()))

    def subscribe(
        self,
        since: int = 0,
        until: int = 0,
        filters: Mapping[str, tuple[str, ...]] | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[Event]:
        """Past events from `since` (0: none of the past), then live ones until the time `until` (0: for ever).

        `stop`, when set, ends the iteration within a quarter of a second.
        """
        wanted = filters or {}
        check(wanted)
        queue: deque[Event] = deque(maxlen=_QUEUE)
        with self._changed:
            if since:
                queue.extend(event for event in self._recent if event.ns >= since)
            self._queues.append(queue)
        return self._deliver(queue, until, wanted, stop)

    def _deliver(
        self,
        queue: deque[Event],
        until: int,
        wanted: Mapping[str, tuple[str, ...]],
        stop: threading.Event | None,
    ) -> Iterator[Event]:
        try:
            while True:
                with self._changed:
                    while not queue:
                        if self._closed or (stop is not None and stop.is_set()):
                            return
                        if until and clock.now_ns() >= until:
                            return
                        self._changed.wait(0.25)
                    event = queue.popleft()
                if until and event.ns > until:
                    return
                if matches(event, wanted):
                    yield event
        finally:
            with self._changed:
                # By identity: two deques with the same events are equal.
                self._queues = [other for other in self._queues if other is not queue]

    def close(self) -> None:
        """End every subscription."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


_KEYS = ("type", "event", "container", "image", "volume", "network", "label", "daemon", "scope", "plugin")


def check(wanted: Mapping[str, tuple[str, ...]]) -> None:
    """Invalid for a filter events do not have."""
    filtering.known(wanted, (*_KEYS, "config", "node", "secret", "service"))


def matches(event: Event, wanted: Mapping[str, tuple[str, ...]]) -> bool:
    """Docker's rule: any value of one key, and all keys."""
    for key, values in wanted.items():
        if not values:
            continue
        if key == "type":
            good = event.type in values
        elif key == "event":
            good = any(event.action == value or event.action.startswith(value + ":") for value in values)
        elif key == "label":
            good = filtering.labels(event.attributes, values)
        elif key == "scope":
            good = event.scope in values
        else:
            name = event.attributes.get("name", "")
            good = event.type == key and any(
                value == name or event.actor.removeprefix("sha256:").startswith(value.removeprefix("sha256:"))
                for value in values
            )
            if key == "image" and event.type == "container":
                good = event.attributes.get("image", "") in values
        if not good:
            return False
    return True

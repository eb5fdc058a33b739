"""Counters and the access log. Owns Prometheus' text format and the log's line; knows no request's meaning.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass

from lading.base import clock

BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))


@dataclass(frozen=True, slots=True)
class Done:
    """One answered request."""

    remote: str
    user: str
    method: str
    path: str
    status: int
    received: int
    sent: int
    seconds: float
    agent: str


class Metrics:
    """What has happened since the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._seconds: dict[str, float] = {}
        self._received = 0
        self._sent = 0

    def add(self, done: Done) -> None:
        method = done.method if done.method in _METHODS else "other"
        with self._lock:
            self._requests[method, done.status] += 1
            self._seconds[method] = self._seconds.get(method, 0.0) + done.seconds
            for bound in BUCKETS:
                if done.seconds <= bound:
                    self._buckets[method, bound] += 1
            self._received += done.received
            self._sent += done.sent

    def text(self, gauges: dict[str, tuple[str, int]]) -> str:
        """The page. `gauges`: name to help and value."""
        with self._lock:
            requests, buckets = dict(self._requests), dict(self._buckets)
            seconds, received, sent = dict(self._seconds), self._received, self._sent
        lines = _head("requests_total", "counter", "Requests answered.")
        for (method, status), count in sorted(requests.items()):
            lines.append(f'lading_registry_requests_total{{method="{method}",status="{status}"}} {count}')
        for name, text, value in (
            ("received_bytes_total", "Bytes of request bodies.", received),
            ("sent_bytes_total", "Bytes of response bodies.", sent),
        ):
            lines += [*_head(name, "counter", text), f"lading_registry_{name} {value}"]
        lines += _head(
            "request_duration_seconds", "histogram", "Time from a request's head to its answer's end."
        )
        for method in sorted(seconds):
            total = sum(count for (name, _), count in requests.items() if name == method)
            for bound in BUCKETS:
                lines.append(
                    f'lading_registry_request_duration_seconds_bucket{{method="{method}",le="{bound}"}}'
                    f" {buckets.get((method, bound), 0)}"
                )
            lines += [
                f'lading_registry_request_duration_seconds_bucket{{method="{method}",le="+Inf"}} {total}',
                f'lading_registry_request_duration_seconds_sum{{method="{method}"}} {seconds[method]:.6f}',
                f'lading_registry_request_duration_seconds_count{{method="{method}"}} {total}',
            ]
        for name, (text, value) in gauges.items():
            lines += [*_head(name, "gauge", text), f"lading_registry_{name} {value}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP lading_registry_{name} {text}", f"# TYPE lading_registry_{name} {kind}"]


def line(done: Done) -> str:
    """One line of the access log: a JSON object, in which a hostile path or agent cannot break out of its string."""
    return json.dumps(
        {
            "time": clock.rfc3339(clock.now_ns()),
            "remote": done.remote,
            "user": done.user,
            "method": done.method,
            "path": done.path[:1000],
            "status": done.status,
            "in": done.received,
            "out": done.sent,
            "ms": round(done.seconds * 1000, 3),
            "agent": done.agent[:300],
        }
    )

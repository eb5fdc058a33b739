"""/containers streams: attach, wait, logs, stats. Owns how each begins, ends and notices that its client has gone."""

from __future__ import annotations

import socket
import threading

from lading.api import hijack, stream
from lading.api.exchange import Exchange
from lading.api.ports import Engine
from lading.api.router import Route
from lading.base import clock
from lading.base.errors import Invalid, LadingError, NotFound
from lading.engine.model import ContainerView, LogRecord

_STATS_PERIOD = 1.0


def attach(engine: Engine, x: Exchange) -> None:
    """The connection becomes the container's stdio; the container may be started only afterwards."""
    ref = x.params["id"]
    stdin, stdout, stderr = x.flag("stdin"), x.flag("stdout"), x.flag("stderr")
    view = engine.containers.inspect(ref)
    framed = not view.config.tty
    keys = hijack.keys_of(x, tty=view.config.tty, stdin=stdin and view.config.open_stdin)
    stream_on, logs_on = x.flag("stream"), x.flag("logs")

    def take(fd: int) -> None:
        if stream_on:
            engine.containers.attach(view.id, fd, stdin, stdout, stderr, logs_on, framed, keys)
        elif logs_on:
            _replay(engine, x.connection.sock, view, stdout, stderr, framed)

    # One that runs, or whose past output is wanted, writes at once: the head must be out before.
    silent = view.state.status == "created" or (view.state.status == "exited" and not logs_on)
    hijack.hand_over(x, take, framed=framed, before=stream_on and silent)


def _replay(
    engine: Engine, sock: socket.socket, view: ContainerView, stdout: bool, stderr: bool, framed: bool
) -> None:
    never = threading.Event()
    for record in engine.containers.logs(view.id, stdout, stderr, False, 0, 0, None, never):
        sock.sendall(_piece(record, framed, False))


def _piece(record: LogRecord, framed: bool, stamped: bool) -> bytes:
    text = record.text
    if stamped:
        text = clock.rfc3339(record.ns).encode("ascii") + b" " + text
    if not framed:
        return text
    return stream.frame(stream.STDERR if record.stream == "stderr" else stream.STDOUT, text)


def moment(x: Exchange, name: str) -> int:
    """A time of the query in nanoseconds: "1700000000.123456789", RFC 3339, or 0 when absent."""
    text = x.text(name)
    if not text or text == "0":
        return 0
    try:
        if "T" in text or "t" in text:
            return clock.parse_rfc3339(text)
        whole, _, fraction = text.partition(".")
        if len(whole) > 12 or not (fraction + "0").isdigit():
            raise ValueError(text)
        return int(whole) * 1_000_000_000 + int((fraction + "000000000")[:9])
    except (ValueError, OverflowError):
        raise Invalid(
            f'invalid value "{text[:40]}" for {name}',
            why="It must be seconds since 1970, or an RFC 3339 time.",
        ) from None


def _tail(x: Exchange) -> int | None:
    text = x.text("tail")
    if not text or text == "all":
        return None
    count = x.integer("tail")
    return None if count < 0 else count


def logs(engine: Engine, x: Exchange) -> None:
    stdout, stderr = x.flag("stdout"), x.flag("stderr")
    if not (stdout or stderr):
        raise Invalid("you must choose at least one stream", hint="Ask for stdout=1, stderr=1 or both.")
    view = engine.containers.inspect(x.params["id"])
    framed, stamped, follow = not view.config.tty, x.flag("timestamps"), x.flag("follow")
    stop = threading.Event()
    records = engine.containers.logs(
        view.id, stdout, stderr, follow, moment(x, "since"), moment(x, "until"), _tail(x), stop
    )
    out = x.stream(stream.content_type(framed, x.version))
    with x.hangups.watch(x.connection.sock, stop.set):
        if follow:
            out.start()
        batch = bytearray()
        partial: set[str] = set()
        for record in records:
            # A long line comes in pieces; only its first one carries the time.
            batch += _piece(record, framed, stamped and record.stream not in partial)
            if record.text.endswith(b"\n"):
                partial.discard(record.stream)
            else:
                partial.add(record.stream)
            if follow or len(batch) >= 64 << 10:
                out.write(batch)
                batch.clear()
        if batch:
            out.write(batch)
    out.end()


def wait(engine: Engine, x: Exchange) -> None:
    condition = x.text("condition") or "not-running"
    if condition not in ("not-running", "next-exit", "removed"):
        raise Invalid(
            f'invalid condition "{condition[:40]}"', why="It must be not-running, next-exit or removed."
        )
    future = engine.containers.wait(x.params["id"], condition)
    out = x.stream("application/json")
    if not future.done():
        out.start()  # `docker run` starts the container only when it has seen that this waits
    try:
        ended = x.wait_for(future)
        answer = {"StatusCode": ended.code}
        if ended.error:
            answer["Error"] = {"Message": ended.error}
        if ended.hint:  # lading's own: advice, where Error would make a client end with 125
            answer["Hint"] = ended.hint
    except NotFound as error:
        answer = {"StatusCode": -1, "Error": {"Message": str(error)}}
    out.line(answer)
    out.end()


def stats(engine: Engine, x: Exchange) -> None:
    ref = x.params["id"]
    first = engine.containers.stats(ref)
    if not x.flag("stream", True):
        if x.flag("one-shot"):
            x.json(first)
            return
        gone = threading.Event()
        with x.hangups.watch(x.connection.sock, gone.set):
            gone.wait(_STATS_PERIOD)
        x.json(_after(first, engine.containers.stats(ref)))
        return
    out = x.stream("application/json")
    gone = threading.Event()
    with x.hangups.watch(x.connection.sock, gone.set):
        out.line(first)
        while not gone.wait(_STATS_PERIOD):
            try:
                sample = engine.containers.stats(ref)
            except LadingError:
                break  # removed meanwhile: the stream simply ends
            out.line(_after(first, sample))
            first = sample
    if not gone.is_set():
        out.end()


def _after(before: dict[str, object], sample: dict[str, object]) -> dict[str, object]:
    """The sample with the earlier one's CPU times beside it, from which clients compute a percentage."""
    return {**sample, "precpu_stats": before.get("cpu_stats", {}), "preread": before.get("read", clock.ZERO)}


ROUTES = [
    Route("POST", "/containers/{id}/attach", attach),
    Route("GET", "/containers/{id}/logs", logs),
    Route("POST", "/containers/{id}/wait", wait),
    Route("GET", "/containers/{id}/stats", stats),
]

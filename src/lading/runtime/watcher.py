"""One thread that waits for the ends of all containers and execs on their monitors' sockets. Owns no other state."""

from __future__ import annotations

import json
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable

from lading.runtime import wire
from lading.runtime.model import Exit

_log = logging.getLogger(__name__)


class Watcher:
    """Callbacks run in the watcher's thread, one after the other; they must be short."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._channels: dict[str, socket.socket] = {}
        self._callbacks: dict[str, list[Callable[[Exit], None]]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, identifier: str, channel: socket.socket, run_dir: str) -> None:
        """Watch `channel`, a monitor's socket, for the end of `identifier`."""
        with self._lock:
            if identifier in self._channels or self._closed:
                channel.close()
                return
            self._channels[identifier] = channel
            self._callbacks.setdefault(identifier, [])
            self._selector.register(channel, selectors.EVENT_READ, (identifier, run_dir))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lading-watcher", daemon=True)
                self._thread.start()

    def subscribe(self, identifier: str, callback: Callable[[Exit], None]) -> bool:
        """Add a callback to a watched identifier; False when it is not watched (ended or never added)."""
        with self._lock:
            if identifier not in self._channels:
                return False
            self._callbacks[identifier].append(callback)
            return True

    def forget(self, identifier: str) -> None:
        """Stop watching; its callbacks are not called."""
        with self._lock:
            self._callbacks.pop(identifier, None)
            channel = self._channels.pop(identifier, None)
            if channel is not None:
                self._selector.unregister(channel)
                channel.close()

    def _run(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select():
                if key.data is None:
                    os.read(self._wake_read, 64)
                    continue
                identifier, run_dir = key.data
                self._event(identifier, run_dir)

    def _event(self, identifier: str, run_dir: str) -> None:
        with self._lock:
            channel = self._channels.get(identifier)
        if channel is None:
            return
        try:
            message, _ = wire.receive(channel, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            message = None
        if message is not None and message[0] != "exited":
            return
        ended = Exit(*message[1:5]) if message is not None else self.lost(identifier, run_dir)
        with self._lock:
            callbacks = self._callbacks.pop(identifier, [])
            if self._channels.pop(identifier, None) is not None:
                self._selector.unregister(channel)
                channel.close()
        for callback in callbacks:
            try:
                callback(ended)
            except Exception:
                _log.exception("a callback for the end of %s failed", identifier)

    @staticmethod
    def lost(identifier: str, run_dir: str) -> Exit:
        """The end of one whose monitor went silent: its exit file if it wrote one, else a guess, as for SIGKILL."""
        try:
            with open(f"{run_dir}/exit", "rb") as file:
                value = json.loads(file.read(4096))
            return Exit(value["code"], value["signal"], value["oom"], value["finished_ns"])
        except (OSError, ValueError, KeyError):
            return Exit(137, 9, False, time.time_ns(), lost=True)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            pass
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        with self._lock:
            for channel in self._channels.values():
                channel.close()
            self._channels.clear()
            self._selector.close()
            os.close(self._wake_read)
            os.close(self._wake_write)

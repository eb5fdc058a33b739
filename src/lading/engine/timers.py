"""Things to do later, on one sleeping thread. Owns the order; the work itself runs on the engine's pool.

The thread exists only while something is planned, so that an idle daemon has nothing that wakes.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor


class Timer:
    """One planned call; `cancel` is final unless the call has begun."""

    __slots__ = ("cancelled", "due", "order", "work")

    def __init__(self, due: float, order: int, work: Callable[[], None]) -> None:
        self.due, self.order, self.work, self.cancelled = due, order, work, False

    def cancel(self) -> None:
        self.cancelled = True

    def __lt__(self, other: Timer) -> bool:
        return (self.due, self.order) < (other.due, other.order)


class Timers:
    """Runs callables on `pool` at their time."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._changed = threading.Condition()
        self._heap: list[Timer] = []
        self._count = itertools.count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def after(self, seconds: float, work: Callable[[], None]) -> Timer:
        """Call `work` on the pool after `seconds`."""
        timer = Timer(time.monotonic() + seconds, next(self._count), work)
        with self._changed:
            heapq.heappush(self._heap, timer)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="timers", daemon=True)
                self._thread.start()
            self._changed.notify()
        return timer

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._heap and self._heap[0].cancelled:
                    heapq.heappop(self._heap)
                if self._closed or not self._heap:
                    self._thread = None
                    return
                left = self._heap[0].due - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                timer = heapq.heappop(self._heap)
            if not timer.cancelled:
                try:
                    self._pool.submit(timer.work)
                except RuntimeError:
                    return  # the pool is shut: the engine closes

    def close(self) -> None:
        """Forget everything planned."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify()

"""Watches over the table: what somebody else takes out of it is put back at once.

A firewall that is reloaded flushes the ruleset, ours with it, and containers would be without ports and without
isolation until the next change. Owns a thread that hears of nftables' changes (NFNLGRP_NFTABLES); what the table says
is not known here.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from lading.base.errors import LadingError
from lading.linux import netlink_nft as nft
from lading.linux.netlink import NETFILTER, Listener, Notice, attributes

log = logging.getLogger(__name__)

_REST = 0.2
"""Seconds between two repairs, should somebody insist."""


class Guard:
    """Calls `mend()` when anything of `table` was deleted by another socket than `own`."""

    def __init__(self, table: str, own: int, mend: Callable[[], None]) -> None:
        self._table, self._own, self._mend = os.fsencode(table), own, mend
        self._listener = Listener(NETFILTER, nft.GROUP)
        self._lock, self._open = threading.Lock(), True
        self._thread = threading.Thread(target=self._watch, name="rules", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """May be called while a repair waits for the caller's lock: it does not wait for the thread."""
        with self._lock:
            if self._open:
                self._listener.stop()

    def _watch(self) -> None:
        hurt, rested = False, 0.0
        try:
            while (
                found := self._listener.wait(max(0.0, rested - time.monotonic()) if hurt else None)
            ) is not None:
                hurt = hurt or any(map(self._hurts, found))
                if hurt and time.monotonic() >= rested:
                    self._repair()
                    hurt, rested = False, time.monotonic() + _REST
        finally:
            with self._lock:
                self._open = False
                self._listener.close()

    def _repair(self) -> None:
        try:
            self._mend()
        except LadingError as error:
            log.warning("%s", error)
        else:
            words = "another program changed the nftables table %s; it is whole again"
            log.warning(words, self._table.decode())

    def _hurts(self, notice: Notice) -> bool:
        if notice.kind == 0:
            return True
        if notice.kind not in nft.DELETIONS or notice.port == self._own:
            return False
        return attributes(notice.body, 4).get(1, b"").rstrip(b"\0") == self._table

"""The user's terminal in raw mode, its size, and the detach key sequence. Talks to no daemon."""

from __future__ import annotations

import os

from lading.cli.flags import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DETACH = b"\x10\x11"
"""ctrl-p ctrl-q."""


class Raw:
    """`with Raw(fd):` the terminal gives every key as it is pressed; left as it was found."""

    __slots__ = ("fd", "saved")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.saved: list[Any] | None = None

    def __enter__(self) -> Raw:
        if os.isatty(self.fd):
            import termios

            self.saved = termios.tcgetattr(self.fd)
            mode = termios.tcgetattr(self.fd)
            # cfmakeraw(3), which is what docker's client does too
            mode[0] &= ~(
                termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
                | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
            )  # fmt: skip
            mode[1] &= ~termios.OPOST
            mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
            mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
            mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self.fd, termios.TCSANOW, mode)
        return self

    def __exit__(self, *_: object) -> None:
        if self.saved is not None:
            import termios

            termios.tcsetattr(self.fd, termios.TCSANOW, self.saved)


def size(*fds: int) -> tuple[int, int] | None:
    """(height, width) of the first of `fds` that is a terminal."""
    for fd in fds:
        try:
            columns, rows = os.get_terminal_size(fd)
        except OSError:
            continue
        if columns and rows:
            return rows, columns
    return None


def detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` or `a,ctrl-[` as bytes; the default for ""."""
    if not text:
        return DETACH
    out = b""
    for key in text.split(","):
        letter = key.removeprefix("ctrl-")
        if key != letter and len(letter) == 1 and letter.lower() in "@abcdefghijklmnopqrstuvwxyz[\\]^_":
            out += bytes([ord(letter.upper()) & 0x1F])
        elif key == letter and len(key) == 1 and key.isascii():
            out += key.encode()
        else:
            raise UsageError(
                f"invalid detach keys: unknown character {key!r}", hint="Write for example ctrl-p,ctrl-q."
            )
    return out


class Keys:
    """Watches typed bytes for the detach sequence; bytes that may begin it are held back until it is known."""

    __slots__ = ("held", "sequence")

    def __init__(self, sequence: bytes) -> None:
        self.sequence = sequence
        self.held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence is complete."""
        data, self.held = self.held + data, b""
        at = data.find(self.sequence)
        if at >= 0:
            return data[:at], True
        for length in range(min(len(self.sequence) - 1, len(data)), 0, -1):
            if self.sequence.startswith(data[-length:]):
                self.held = data[-length:]
                return data[:-length], False
        return data, False

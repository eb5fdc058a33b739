"""Terminals of the command line: a master handed to a console socket, or relayed between it and our own terminal."""

from __future__ import annotations

import _socket
import fcntl
import os

from lading.base.errors import Invalid

if False:  # names for the type checker only; the command line must not import typing
    from typing import Any

_TIOCSWINSZ, _TIOCGWINSZ = 0x5414, 0x5413


def resize(master: int, size: dict[str, Any] | None) -> None:
    """consoleSize, in characters."""
    if size:
        rows, columns = size["height"], size["width"]
        fcntl.ioctl(
            master, _TIOCSWINSZ, rows.to_bytes(2, "little") + columns.to_bytes(2, "little") + bytes(4)
        )


def send_descriptor(path: str, fd: int, data: bytes) -> None:
    """Connect to a stream socket and send one descriptor with `data`."""
    channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            channel.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        finally:
            os.close(folder)
        sent = channel.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, "little"))])
        channel.sendall(data[sent:])
    finally:
        channel.close()


def hand_over(path: str, master: int) -> None:
    """Send the terminal's master to whoever listens on the console socket."""
    try:
        send_descriptor(path, master, b"/dev/ptmx")
    except OSError as error:
        raise Invalid(f"--console-socket: {path} cannot be reached", why=error.strerror or "") from None


def relay(master: int, pidfd: int, wake: int) -> None:
    """Copy between our own terminal and the container's until its process ends and nothing is left to read.

    `wake` becomes readable when a signal came; a change of size is passed on.
    """
    import select
    import termios

    saved = None
    if os.isatty(0):
        saved = termios.tcgetattr(0)
        raw = termios.tcgetattr(0)
        # cfmakeraw(3)
        raw[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
        raw[1] &= ~termios.OPOST
        raw[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
        termios.tcsetattr(0, termios.TCSADRAIN, raw)
        follow_size(master)
    waiter = select.poll()
    for fd in (0, master, pidfd, wake):
        waiter.register(fd, select.POLLIN)
    try:
        ended = False
        while not ended:
            for fd, events in waiter.poll():
                if fd == wake:
                    os.read(wake, 64)
                    follow_size(master)
                elif fd == 0:
                    data = os.read(0, 65536)
                    if data:
                        os.write(master, data)
                    else:
                        waiter.unregister(0)
                        os.write(master, b"\x04")
                elif fd == master:
                    if not _copy(master) and not events & select.POLLIN:
                        waiter.unregister(master)
                else:
                    ended = True
        os.set_blocking(master, False)
        while _copy(master):
            pass
    finally:
        if saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, saved)


def follow_size(master: int) -> None:
    """Give the container's terminal the size of ours."""
    try:
        fcntl.ioctl(master, _TIOCSWINSZ, fcntl.ioctl(0, _TIOCGWINSZ, bytes(8)))
    except OSError:
        pass  # standard input is no terminal


def _copy(master: int) -> bool:
    try:
        data = os.read(master, 65536)
    except OSError:  # EIO: nobody holds the other side; EAGAIN: nothing there
        return False
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
    return bool(data)

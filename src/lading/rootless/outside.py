"""The way out of the namespace's network: pasta(1) or slirp4netns(1), whichever the host has. Owns their arguments.

Neither lets containers reach the host's loopback, and neither forwards a port: published ports are `ports`' matter.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping

from lading.linux import netns, process

TAP = "tap0"
_CHOICE = "LADING_ROOTLESS_NET"
_TUN = "/dev/net/tun"
_PATIENCE = 6.0
_MTU = "65520"


def command(program: str, netns_path: str) -> list[str]:
    """The program's argument list for the network namespace at `netns_path`."""
    if os.path.basename(program) == "pasta":
        none = [word for flag in ("-t", "-u", "-T", "-U") for word in (flag, "none")]
        return [
            program, "--foreground", "--quiet", "--config-net", "--no-map-gw", "--ns-ifname", TAP, "--mtu", _MTU,
            *none, "--netns", netns_path,
        ]  # fmt: skip
    return [
        program, "--configure", f"--mtu={_MTU}", "--disable-host-loopback", "--netns-type=path", netns_path, TAP,
    ]  # fmt: skip


def find(environ: Mapping[str, str]) -> list[str]:
    """The programs that are there, the better one first. LADING_ROOTLESS_NET=none|pasta|slirp4netns chooses."""
    chosen = environ.get(_CHOICE, "")
    names = ("pasta", "slirp4netns") if not chosen else (chosen,)
    folders = [*(environ.get("PATH") or "").split(":"), "/usr/bin", "/usr/local/bin"]
    found = []
    for name in names:
        for folder in folders:
            if folder.startswith("/") and name != "none" and os.access(f"{folder}/{name}", os.X_OK):
                found.append(f"{folder}/{name}")
                break
    return found


class Way:
    """The running program. `reason` says why there is none."""

    def __init__(self, fd: int, environ: Mapping[str, str], log: str) -> None:
        self.name = ""
        self._process: subprocess.Popen[bytes] | None = None
        programs = find(environ)
        chosen = environ.get(_CHOICE, "")
        lacking = f"{_CHOICE} is {chosen}" if chosen else "neither pasta nor slirp4netns is installed"
        failed = [] if programs else [lacking]
        if programs and not os.access(_TUN, os.R_OK | os.W_OK):
            programs, failed = [], [f"{_TUN} is not this user's to open"]
        for program in programs:
            reason = self._begin(program, fd, log)
            if not reason:
                self.name = os.path.basename(program)
                break
            failed.append(reason)
        self.reason = "" if self.name else "; ".join(failed)

    def _begin(self, program: str, fd: int, log: str) -> str:
        before = os.path.getsize(log) if os.path.exists(log) else 0
        with open(log, "ab") as words:
            try:
                self._process = subprocess.Popen(
                    command(program, f"/proc/self/fd/{fd}"),
                    stdin=subprocess.DEVNULL, stdout=words, stderr=words, cwd="/", pass_fds=(fd,),
                    preexec_fn=_die_with_keeper,
                )  # fmt: skip
            except OSError as error:
                return f"{program}: {error.strerror}"
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            if netns.inside(fd, _connected):
                return ""
            time.sleep(0.01)
        self.end()
        with open(log, "rb") as said:
            said.seek(before)
            text = said.read(2000).decode("utf-8", "replace").strip().splitlines()
        return f"{os.path.basename(program)}: {text[-1][:200] if text else 'it made no interface'}"

    def end(self) -> None:
        """Stop it and wait for its end."""
        child, self._process = self._process, None
        if child is None:
            return
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(3)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _die_with_keeper() -> None:
    """Runs in the child, whose parent has one thread: a keeper that is killed leaves no program behind."""
    process.prctl(process.PR_SET_PDEATHSIG, process.SIGKILL)


def _connected() -> bool:
    """Whether the tap device is there and a packet would have a way (connecting a datagram socket sends none)."""
    if not any(name == TAP for _, name in socket.if_nameindex()):
        return False
    for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            try:
                probe.connect((address, 9))
                return True
            except OSError:
                continue
    return False

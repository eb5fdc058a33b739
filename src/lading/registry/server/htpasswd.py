"""HTTP basic authentication against an htpasswd file (RFC 7617). Owns reading the file, checking and remembering.

Takes the hashes that the machine's libcrypt knows: bcrypt (`htpasswd -B`), yescrypt, SHA-512. Unsalted {SHA}, Apache's own
MD5 and plain text are refused when the file is read, since whoever reads such a file has the passwords.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import threading

from lading.base import errors
from lading.linux import crypt

_CRYPTS = ("$2y$", "$2b$", "$2a$", "$y$", "$6$", "$5$", "$7$")
_FILE_LIMIT = 4 << 20
_AT_ONCE = 2  # a check is slow on purpose; guesses must not take every core
_REMEMBERED = 1024


class Htpasswd:
    """The users of one file, which is read again whenever it changes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._checks = threading.Semaphore(_AT_ONCE)
        self._stamp: tuple[int, int, int] | None = None
        self._users: dict[str, str] = {}
        self._key = os.urandom(32)
        self._known: set[bytes] = set()
        users = self._load()
        if not users:
            raise errors.Invalid(f"{path} names no user", hint="Add one with htpasswd -B.")
        self._probe(next(iter(users.values())))

    def _probe(self, hashed: str) -> None:
        try:
            crypt.crypt(b"", hashed.encode())
        except OSError as error:
            raise errors.Unsupported(
                f"passwords of {self._path} cannot be checked here",
                why=f"{error.strerror or error}.",
                hint="Make the file with another method, such as mkpasswd -m sha-512.",
            ) from None

    def _load(self) -> dict[str, str]:
        """The users now; a file that has become unreadable or wrong keeps nobody in."""
        try:
            found = os.stat(self._path)
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            with self._lock:
                if stamp == self._stamp:
                    return self._users
            with open(self._path, "rb") as stream:
                users = parse(stream.read(_FILE_LIMIT), self._path)
        except OSError as error:
            raise errors.Unavailable(f"cannot read {self._path}", why=f"{error.strerror}.") from None
        with self._lock:
            self._stamp, self._users = stamp, users
            self._known.clear()
        return users

    def check(self, header: str) -> str:
        """The user that an Authorization header proves; Unauthenticated otherwise."""
        scheme, _, encoded = header.strip().partition(" ")
        try:
            if scheme.lower() != "basic":
                raise ValueError
            user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
            if not colon or "\0" in password:
                raise ValueError
        except (ValueError, binascii.Error):
            raise errors.Unauthenticated("authentication is required", hint="Log in first.") from None
        users = self._load()
        hashed = users.get(user)
        # For an unknown user somebody's hash is computed all the same, so that the time tells nothing.
        setting = hashed if hashed is not None else next(iter(users.values()), "")
        token = hmac.digest(self._key, f"{user}\0{password}\0{setting}".encode(), hashlib.sha256)
        with self._lock:
            if token in self._known:
                return user
        if not setting or not self._matches(password, setting) or hashed is None:
            raise errors.Unauthenticated("unknown user or wrong password")
        with self._lock:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known.add(token)
        return user

    def _matches(self, password: str, setting: str) -> bool:
        with self._checks:
            try:
                made = crypt.crypt(password.encode(), setting.encode())
            except OSError:
                return False
        return hmac.compare_digest(made, setting.encode())


def parse(data: bytes, path: str) -> dict[str, str]:
    """User to hash. Invalid names the first line whose hash is none that protects the password."""
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise errors.Invalid(f"{path} is not UTF-8") from None
    users: dict[str, str] = {}
    for number, text in enumerate(lines, 1):
        if not text.strip() or text.startswith("#"):
            continue
        user, colon, hashed = text.strip().partition(":")
        if not colon or not user or "\0" in hashed or not hashed.startswith(_CRYPTS):
            raise errors.Invalid(
                f"{path} line {number} has no password hash that lading accepts",
                why="MD5, {SHA} and plain text give the passwords away to whoever reads the file.",
                hint="Use htpasswd -B.",
            )
        users[user] = hashed
    return users

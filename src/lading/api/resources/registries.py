"""Registries: push, log-in check, what a name is there; and the credentials that come with a request.

Owns the two headers: X-Registry-Auth, one registry's, and X-Registry-Config, several by registry.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lading.api.exchange import Exchange, Output
from lading.api.ports import Engine
from lading.api.router import Route
from lading.api.stream import error_line
from lading.base.errors import Invalid, LadingError
from lading.engine.access import Access
from lading.http.connection import ClientGone
from lading.image import fields, reference

_AUTH = b"x-registry-auth"
_CONFIG = b"x-registry-config"
_WORDS = ("username", "password", "identitytoken", "registrytoken", "serveraddress")


def progressing(x: Exchange, work: Callable[[Output], None]) -> None:
    """Run `work` with a JSON-lines body. An error before the first line is an answer of its own, later it is a line."""
    out = x.stream("application/json")
    try:
        work(out)
    except LadingError as error:
        if not out.started:
            raise
        out.write(error_line(error))
    out.end()


def _decoded(x: Exchange, name: bytes) -> dict[str, Any]:
    """A header of base64url JSON (RFC 4648, 5); {} where it is absent."""
    raw = x.headers.get(name, b"").strip()
    if not raw:
        return {}
    try:
        data = base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Invalid(f"the header {name.decode()} is not base64") from None
    if data in (b"null", b'""'):
        return {}
    return fields.load(data, f"the header {name.decode()}")


def _config(said: Mapping[str, Any]) -> dict[str, str]:
    """One AuthConfig; `auth` is user:password in base64."""
    found = {word: text for word in _WORDS if (text := fields.text(said, word))}
    packed = fields.text(said, "auth")
    if packed and "username" not in found:
        try:
            user, _, password = base64.b64decode(packed, validate=True).decode().partition(":")
        except ValueError:
            raise Invalid("credentials are not base64 of user:password") from None
        found |= {"username": user, "password": password}
    return found


def carried(x: Exchange, domain: str = "") -> Access:
    """The request's credentials; those of X-Registry-Auth are for `domain`."""
    auths = {key: _config(fields.mapping(value, "an entry")) for key, value in _decoded(x, _CONFIG).items()}
    if domain and (one := _config(_decoded(x, _AUTH))):
        auths[domain] = one
    return Access(auths)


@contextlib.contextmanager
def access(x: Exchange, domain: str = "") -> Iterator[Access]:
    """The same, for a transfer that ends when the client hangs up."""
    found = carried(x, domain)
    with x.hangups.watch(x.connection.sock, found.cancel):
        try:
            yield found
        except LadingError as error:
            if found.cancelled.is_set():
                raise ClientGone from error
            raise


def push(engine: Engine, x: Exchange) -> None:
    name = x.params["name"]

    def work(out: Output) -> None:
        with access(x, reference.parse(name).domain) as found:
            engine.registry.push(name, x.text("tag"), out.line, found)

    progressing(x, work)


def auth(engine: Engine, x: Exchange) -> None:
    with access(x) as found:
        engine.registry.login(_config(x.json_body()), found)
    x.json({"Status": "Login Succeeded", "IdentityToken": ""})


def distribution(engine: Engine, x: Exchange) -> None:
    name = x.params["name"]
    with access(x, reference.parse(name).domain) as found:
        x.json(engine.registry.distribution(name, found))


ROUTES = [
    Route("POST", "/auth", auth),
    Route("GET", "/distribution/{name...}/json", distribution),
    Route("POST", "/images/{name...}/push", push),
]

"""Credentials to headers: basic and bearer (the token endpoint of the distribution project's auth specification).

Owns which host a password or token may be shown to: the registry's own origin, and the realm it names when that is
reached by HTTPS and belongs to it. Never logs either.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterable
from urllib.parse import urlencode

from lading.base import errors
from lading.image import fields
from lading.registry.client import challenge, origin
from lading.registry.client.challenge import Challenge
from lading.registry.client.origin import Origin, Url
from lading.registry.client.ports import Credentials
from lading.registry.client.wire import Body, Response

_CLIENT = "lading"
_ANSWER_LIMIT = 1 << 20
_TOKEN_LIMIT = 256 << 10
_LIFETIME = 60  # seconds a token is good for when nothing is said

Send = Callable[[str, Url, dict[str, str], Body], Response]
"""Sends one request, without following redirects."""


class Authorizer:
    """Authorization for one registry. Thread-safe."""

    def __init__(
        self, home: Origin, credentials: Credentials, send: Send, *, realms: Iterable[str] = ()
    ) -> None:
        self._home, self._credentials, self._send = home, credentials, send
        self._realms = frozenset(realms)
        self._basic = False
        self._asked: Challenge | None = None
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def header(self, url: Url, scopes: tuple[str, ...]) -> str:
        """The Authorization for a request; "" when none is known, or when `url` is not the registry's own."""
        if url.origin != self._home:
            return ""
        with self._lock:
            if self._credentials.registry_token:
                return f"Bearer {_printable(self._credentials.registry_token)}"
            if self._basic:
                return self._basic_header()
            if self._asked is None:
                return ""
            token, until = self._tokens.get(scopes, ("", 0.0))
            if not token or time.monotonic() > until:
                token = self._fetch(self._asked, scopes)
            return f"Bearer {token}"

    def learn(self, response: Response, scopes: tuple[str, ...], used: str) -> bool:
        """Take in a 401; whether it is worth asking once more."""
        if response.url.origin != self._home:
            return False  # another host wants a password: not ours to give
        challenges = challenge.parse(response.headers.get_all("WWW-Authenticate") or ())
        with self._lock:
            bearer = next((one for one in challenges if one.scheme == "bearer"), None)
            if bearer is not None and not self._credentials.registry_token:
                self._asked = bearer
                self._tokens.pop(scopes, None)  # refused, or run out
                return True
            basic = any(one.scheme == "basic" for one in challenges)
            if basic and self._credentials.username and not used:
                self._basic = True
                return True
            return False

    def _basic_header(self) -> str:
        pair = f"{self._credentials.username}:{self._credentials.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()

    def _fetch(self, asked: Challenge, scopes: tuple[str, ...]) -> str:
        """A token from the realm."""
        realm = self._realm(asked)
        service = asked.parameters.get("service", "")
        pairs = ([("service", service)] if service else []) + [("scope", scope) for scope in scopes]
        headers = {"Accept": "application/json"}
        if self._credentials.identity_token:
            form = [("grant_type", "refresh_token"), ("client_id", _CLIENT)]
            form += [("refresh_token", self._credentials.identity_token), ("service", service)]
            form += [("scope", " ".join(scopes))]
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            response = self._send("POST", realm, headers, urlencode(form).encode())
        else:
            if self._credentials.username:
                headers["Authorization"] = self._basic_header()
                pairs = [("account", self._credentials.username), *pairs]
            joined = f"{realm.target}{'&' if '?' in realm.target else '?'}{urlencode(pairs)}"
            response = self._send("GET", Url(realm.origin, joined), headers, None)
        with response:
            token, lifetime = self._token(response, realm)
        self._tokens[scopes] = (token, time.monotonic() + max(lifetime - 10, 10))
        return token

    def _realm(self, asked: Challenge) -> Url:
        """The token endpoint, when it may be asked."""
        realm = origin.parse(asked.parameters.get("realm", ""))
        home = self._home
        local = origin.is_loopback(home.host) and origin.is_loopback(realm.origin.host)
        if home.secure and not realm.origin.secure:
            raise errors.Denied(
                f"registry {home.netloc} sends us to plain HTTP for a token",
                why=f"Its realm is {realm.shown}.",
            )
        if origin.is_local(realm.origin.host) and not local:
            raise errors.Denied(
                f"registry {home.netloc} sends us to this host for a token",
                why=f"Its realm is {realm.shown}.",
            )
        if self._credentials and not local:
            known = origin.related(home.host, realm.origin.host) or realm.origin.host in self._realms
            if not known or not (realm.origin.secure or realm.origin.host == home.host):
                raise errors.Denied(
                    f"registry {home.netloc} wants its password sent to {realm.origin}",
                    hint=f'If that is right, add "{home.netloc}" = ["{realm.origin.host}"] below [realms] in '
                    "/etc/lading/registries.toml.",
                )
        return realm

    def _token(self, response: Response, realm: Url) -> tuple[str, float]:
        where = f"the token endpoint {realm.shown}"
        if response.status in (401, 403, 400):
            raise errors.Unauthenticated(
                f"{where} refuses the credentials"
                if self._credentials
                else f"{where} refuses to give a token",
                hint=f"Log in with `lading login {self._home.netloc}`.",
            )
        if response.status != 200:
            raise errors.Unavailable(f"{where} answers with status {response.status}")
        answer = fields.load(response.text(_ANSWER_LIMIT), f"the answer of {where}")
        token = fields.text(answer, "token") or fields.text(answer, "access_token")
        if not token or len(token) > _TOKEN_LIMIT:
            raise errors.Invalid(f"{where} gives no usable token")
        lifetime = answer.get("expires_in")
        usable = isinstance(lifetime, int) and not isinstance(lifetime, bool) and 0 < lifetime < 1 << 31
        return _printable(token), float(lifetime if usable and lifetime is not None else _LIFETIME)


def _printable(token: str) -> str:
    """A token that can stand in a header (RFC 6750, b64token and a little more)."""
    if not token.isascii() or not all(33 <= ord(char) < 127 for char in token):
        raise errors.Invalid("a token holds characters that no header may hold")
    return token

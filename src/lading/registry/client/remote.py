"""One repository at one registry: requests with credentials, redirects, retries, and the errors registries give.

Owns the rules of one exchange (distribution-spec 1.1, "API"); `documents` of an image and the order of a pull are
`pull.py`'s, of a push `push.py`'s.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from email.message import Message

from lading.base import errors
from lading.image import descriptor, fields
from lading.image import digest as digests
from lading.image.descriptor import Descriptor
from lading.registry.client import documents, origin
from lading.registry.client.auth import Authorizer
from lading.registry.client.origin import Url
from lading.registry.client.wire import Body, Broken, Response, Unreachable, Wire

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({429, 500, 502, 503, 504})
_MOST_REDIRECTS = 5
_LONGEST_WAIT = 60.0
_ERROR_LIMIT = 64 << 10
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
ACCEPT = ", ".join(
    (descriptor.OCI_INDEX, descriptor.DOCKER_INDEX, descriptor.OCI_MANIFEST, descriptor.DOCKER_MANIFEST)
)

BodyMaker = Callable[[], Body]
"""Makes the body anew for every attempt."""


class Repository:
    """`path` at one registry. Thread-safe."""

    def __init__(
        self,
        wire: Wire,
        home: origin.Origin,
        path: str,
        auth: Authorizer,
        *,
        actions: str = "pull",
        insecure: bool = False,
        cancelled: threading.Event | None = None,
    ) -> None:
        self._wire, self.home, self.path, self._auth = wire, home, path, auth
        self._insecure = insecure
        self._scopes: tuple[str, ...] = (f"repository:{path}:{actions}",)
        self.cancelled = cancelled or threading.Event()

    def __str__(self) -> str:
        return f"{self.home.netloc}/{self.path}"

    def url(self, rest: str) -> Url:
        return Url(self.home, f"/v2/{self.path}/{rest}")

    def may_also_read(self, paths: Iterable[str]) -> None:
        """Ask for tokens that can read other repositories too, for cross-repository mounts."""
        more = tuple(f"repository:{path}:pull" for path in sorted(set(paths)))
        self._scopes = (*self._scopes[:1], *more)

    # --- one exchange ---

    def exchange(
        self,
        method: str,
        url: Url,
        expected: Iterable[int],
        headers: dict[str, str] | None = None,
        body: BodyMaker | None = None,
        *,
        what: str = "",
        attempts: int = 0,
        patient: bool = False,
    ) -> Response:
        """An answer whose status is one of `expected`; tried again, with growing pauses, while the trouble may pass.

        A registry that cannot be reached at all is tried again only where work is under way already (`patient`).
        """
        wanted, most = frozenset(expected), attempts or self._wire.patience.attempts
        for attempt in range(1, most + 1):
            self.check()
            pause = self._wire.patience.backoff * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
            try:
                response = self._authorized(method, url, headers or {}, body)
            except Broken as error:
                self.check()
                if attempt == most or (isinstance(error, Unreachable) and not patient):
                    raise
            else:
                if response.status in wanted:
                    return response
                with response:
                    if response.status not in _TRANSIENT or attempt == most:
                        raise self._refusal(response, what or f"{method} {url.shown}")
                    after = response.header("Retry-After")
                    if after.isascii() and after.isdigit() and len(after) < 9:
                        pause = max(pause, min(int(after), _LONGEST_WAIT))
            self.cancelled.wait(pause)
        raise errors.Internal("a request was neither answered nor given up")

    def check(self) -> None:
        if self.cancelled.is_set():
            raise errors.Cancelled("the transfer was cancelled")

    def _authorized(self, method: str, url: Url, headers: dict[str, str], body: BodyMaker | None) -> Response:
        """Once more with a token or password when that is asked for."""
        used = self._auth.header(url, self._scopes)
        response = self._followed(method, url, headers, body, used)
        if response.status == 401:
            if not self._auth.learn(response, self._scopes, used):
                return response
            response.text(_ERROR_LIMIT)
            response.close()
            response = self._followed(method, url, headers, body, self._auth.header(url, self._scopes))
        return response

    def _followed(
        self, method: str, url: Url, headers: dict[str, str], body: BodyMaker | None, authorization: str
    ) -> Response:
        """Redirects of reads are followed; another origin never sees the Authorization (CVE-2018-18074 of requests)."""
        seen = url
        for _ in range(_MOST_REDIRECTS + 1):
            sent = dict(headers)
            if authorization and seen.origin == self.home:
                sent["Authorization"] = authorization
            response = self._wire.request(method, seen, sent, body() if body else None)
            if response.status not in _REDIRECTS or method not in ("GET", "HEAD"):
                return response
            location = response.header("Location")
            response.close()
            if not location:
                raise errors.Invalid(f"{seen.shown} redirects to nowhere")
            seen = origin.follow(seen, location, insecure=self._insecure)
        raise errors.Unavailable(f"{url.shown} redirects more than {_MOST_REDIRECTS} times")

    def _refusal(self, response: Response, what: str) -> errors.LadingError:
        """What a status outside the expected ones means."""
        said = _said(response)
        where = f"registry {self.home.netloc}"
        login = f"Log in with `lading login {self.home.netloc}`, or check the name."
        if response.status == 401:
            return errors.Unauthenticated(f"{where} refuses {what}", why=said, hint=login)
        if response.status == 403:
            return errors.Denied(f"{where} denies {what}", why=said, hint=login)
        if response.status == 404:
            return errors.NotFound(f"{where} has no {what}", why=said)
        if response.status == 429:
            return errors.Unavailable(
                f"{where} limits how often it is asked", why=said, hint="Try again later."
            )
        if response.status >= 500:
            return Broken(f"{where} fails at {what}", why=f"Status {response.status}. {said}".strip())
        refused = Refused(f"{where} refuses {what}", why=f"Status {response.status}. {said}".strip())
        refused.status = response.status
        return refused

    # --- reading ---

    def manifest(self, reference: str) -> documents.Document:
        """The manifest or index under a tag or digest, verified."""
        what = f"manifest of {self.path}{'@' if ':' in reference else ':'}{reference}"
        for attempt in (1, 2, 3):
            with self.exchange(
                "GET", self.url(f"manifests/{reference}"), (200,), {"Accept": ACCEPT}, what=what
            ) as response:
                try:
                    data = response.text(fields.LIMIT)
                except Broken:
                    self.check()
                    if attempt == 3:
                        raise
                    continue
                return documents.checked(
                    data,
                    content_type=response.header("Content-Type"),
                    stated=response.header("Docker-Content-Digest"),
                    wanted=reference if ":" in reference else "",
                    name=f"{self}{'@' if ':' in reference else ':'}{reference}",
                )
        raise errors.Internal("a manifest was neither read nor given up")

    def blob(self, wanted: Descriptor) -> bytes:
        """A small blob, such as a config, verified."""
        if wanted.size > fields.LIMIT:
            raise errors.Invalid(f"blob {wanted.digest[:19]} is too large for a config")
        data = b"".join(self.chunks(wanted))
        hasher = digests.hasher(wanted.digest)
        hasher.update(data)
        if hasher.hexdigest() != digests.encoded(wanted.digest):
            raise errors.Invalid(f"{self} sent other content than {wanted.digest[:19]}")
        return data

    def chunks(self, wanted: Descriptor) -> Iterator[bytes]:
        """A blob's bytes, exactly as many as its descriptor says; a broken transfer goes on where it broke.

        The digest is the caller's to check.
        """
        got, failures = 0, 0
        while got < wanted.size:
            before = got
            try:
                with self._from(wanted, got) as response:
                    skip = got if response.status == 200 else 0
                    while got < wanted.size and (data := response.read()):
                        self.check()
                        if skip:
                            dropped = min(skip, len(data))
                            skip, data = skip - dropped, data[dropped:]
                        if got + len(data) > wanted.size:
                            raise errors.Invalid(
                                f"{self} sends more than the {wanted.size} bytes of {wanted.digest[:19]}"
                            )
                        got += len(data)
                        if data:
                            yield data
                    if got == wanted.size:
                        if response.length is None and response.read(1):
                            raise errors.Invalid(
                                f"{self} sends more than the {wanted.size} bytes of {wanted.digest[:19]}"
                            )
                        return
                broken = Broken(
                    f"{self} ends blob {wanted.digest[:19]} early", why=f"{got} of {wanted.size} bytes came."
                )
            except Broken as error:
                broken = error
            self.check()
            failures = 1 if got > before else failures + 1
            if failures >= self._wire.patience.attempts:
                raise broken
            self.cancelled.wait(self._wire.patience.backoff * 2 ** (failures - 1))

    def _from(self, wanted: Descriptor, start: int) -> Response:
        """The answer that brings the blob from byte `start` on, or all of it (status 200)."""
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-{wanted.size - 1}"
        what = f"blob {wanted.digest[:19]} of {self.path}"
        response = self.exchange(
            "GET", self.url(f"blobs/{wanted.digest}"), (200, 206), headers, what=what, patient=bool(start)
        )
        try:
            if response.header("Content-Encoding") not in ("", "identity"):
                raise errors.Invalid(f"{self} sends a blob encoded, though nobody asked for that")
            expected = wanted.size
            if response.status == 206:
                place = _RANGE.fullmatch(response.header("Content-Range"))
                if place is None or int(place[1]) != start:
                    raise errors.Invalid(
                        f"{self} sends another part of {wanted.digest[:19]} than was asked for"
                    )
                expected -= start
            if response.length is not None and response.length != expected:
                raise errors.Invalid(
                    f"{self} sends {response.length} bytes for blob {wanted.digest[:19]}",
                    why=f"Its descriptor says {wanted.size}.",
                )
        except BaseException:
            response.close()
            raise
        return response

    def has(self, path: str) -> bool:
        """Whether `blobs/…` or `manifests/…` is there (HEAD)."""
        headers = {"Accept": ACCEPT} if path.startswith("manifests/") else {}
        with self.exchange("HEAD", self.url(path), (200, 404), headers) as response:
            return response.status == 200


class Refused(errors.Invalid):
    """A registry's 4xx that has no class of its own."""

    status = 400


def _said(response: Response) -> str:
    """The registry's own words, made fit to be shown: `errors[0]` of the distribution spec."""
    try:
        data = response.text(_ERROR_LIMIT)
    except errors.LadingError:
        return ""
    text = ""
    try:
        listed = fields.items(fields.load(data, "error"), "errors")
        if listed and isinstance(listed[0], dict):
            text = str(listed[0].get("message") or listed[0].get("code") or "")
    except errors.LadingError:
        if _is_text(response.headers):
            text = data[:200].decode("utf-8", "replace")
    shown = "".join(char if char.isprintable() else " " for char in text[:300]).strip()
    return f"It says: {json.dumps(shown, ensure_ascii=False)[1:-1]}." if shown else ""


def _is_text(headers: Message) -> bool:
    return headers.get_content_type() == "text/plain"

"""The door of this room: pull, push, log in, look at. Owns what all transfers of a daemon share: the host's settings,
the layers on their way, and the bound on transfers from one host.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from lading.base import errors
from lading.image.descriptor import Descriptor, Platform, host_platform, parse_platform
from lading.image.manifest import Index, Manifest
from lading.image.reference import DEFAULT_DOMAIN, Reference
from lading.registry.client import origin, settings
from lading.registry.client.auth import Authorizer
from lading.registry.client.documents import Document
from lading.registry.client.fetch import Flights
from lading.registry.client.origin import Origin, Url
from lading.registry.client.ports import NOBODY, Blobs, Credentials, Report, Snapshots
from lading.registry.client.pull import Pull, Pulled
from lading.registry.client.push import PIECE, Push
from lading.registry.client.remote import Repository
from lading.registry.client.settings import Settings
from lading.registry.client.wire import PATIENCE, Body, Broken, Patience, Response, Wire

PER_HOST = 4
Credit = Callable[[str], Credentials]
"""Gives the credentials for a registry's domain; NOBODY where there are none."""


def anonymous(domain: str) -> Credentials:
    """Nobody's credentials."""
    return NOBODY


@dataclass
class Session:
    """The connections of one transfer; `cancel` ends it from any thread."""

    wire: Wire
    cancelled: threading.Event

    def cancel(self) -> None:
        self.cancelled.set()
        self.wire.abort()


class Client:
    """One per daemon. Thread-safe."""

    def __init__(self, told: Settings, patience: Patience = PATIENCE, *, piece: int = PIECE) -> None:
        self._settings, self._patience, self._piece = told, patience, piece
        self._flights = Flights()
        self._lock = threading.Lock()
        self._slots: dict[Origin, threading.BoundedSemaphore] = {}
        self._schemes: dict[str, str] = {}  # insecure registries: what they were found to speak
        self._contexts: dict[str, ssl.SSLContext] = {}

    # --- the verbs ---

    def pull(
        self,
        session: Session,
        ref: Reference,
        platform: str,
        credit: Credit,
        *,
        blobs: Blobs,
        snapshots: Snapshots,
        report: Report,
        keep: Callable[..., None],
        made: set[str],
    ) -> Pulled:
        """Bring an image into the store. `made` gets the names of all that may have come into being."""
        wanted = parse_platform(platform) if platform else host_platform()
        pull = Pull(
            self._sources(session, ref, credit), blobs, snapshots,
            flights=self._flights, slots=self._slot, report=report, keep=keep,
        )  # fmt: skip
        pull.made = made
        top = pull.find(ref.digest or ref.tag)
        document, manifest, conf = pull.resolve(top, wanted, bool(platform))
        report({"status": f"Pulling from {ref.path}", "id": ref.digest or ref.tag})
        fetched = pull.layers(manifest, conf)
        made.add(document.digest)
        blobs.put(document.data)
        return Pulled(top, document, conf, fetched, made)

    def push(
        self,
        session: Session,
        ref: Reference,
        document: Document,
        manifest: Manifest,
        credit: Credit,
        *,
        blobs: Blobs,
        report: Report,
        elsewhere: Mapping[str, tuple[str, ...]],
    ) -> None:
        """Bring an image to a registry under the reference's tag."""
        repository = self._repository(session, ref.domain, ref.path, credit(ref.domain), "pull,push")
        Push(repository, blobs, slots=self._slot, report=report, elsewhere=elsewhere, piece=self._piece).run(
            document, manifest, ref.tag or ref.digest
        )

    def document(self, session: Session, ref: Reference, credit: Credit) -> Document:
        """What a reference names, without its layers."""
        repository = self._repository(session, ref.domain, ref.path, credit(ref.domain), "pull")
        return repository.manifest(ref.digest or ref.tag)

    def content(self, session: Session, ref: Reference, digest: str, credit: Credit) -> Iterator[bytes]:
        """The bytes of one blob of the reference's repository; the digest is the caller's to check."""
        repository = self._repository(session, ref.domain, ref.path, credit(ref.domain), "pull")
        url, what = repository.url(f"blobs/{digest}"), f"blob {digest[:19]} of {ref.path}"
        with repository.exchange("HEAD", url, (200,), what=what) as response:
            size = response.header("Content-Length")
        if not (size.isascii() and size.isdigit()):
            raise errors.Unavailable(f"{repository} does not say how long blob {digest[:19]} is")
        yield from repository.chunks(Descriptor("application/octet-stream", digest, int(size[:19])))

    def platforms(
        self, session: Session, ref: Reference, document: Document, credit: Credit
    ) -> list[Platform]:
        """The platforms that a document is for; a single image's is in its config."""
        if isinstance(document.value, Index):
            return [entry.platform for entry in document.value.manifests if entry.platform]
        from lading.image import config

        repository = self._repository(session, ref.domain, ref.path, credit(ref.domain), "pull")
        conf = config.parse(repository.blob(document.value.config))
        return [Platform(conf.os, conf.architecture, conf.variant)]

    def login(self, session: Session, domain: str, credentials: Credentials) -> None:
        """Check credentials; Unauthenticated when the registry does not take them."""
        repository = self._repository(session, domain, "", credentials, "")
        repository.exchange("GET", Url(repository.home, "/v2/"), (200,), what="the log-in").close()

    def repository(self, session: Session, ref: Reference, credit: Credit, actions: str) -> Repository:
        """The repository a reference names, for requests of the caller's own."""
        return self._repository(session, ref.domain, ref.path, credit(ref.domain), actions)

    @contextlib.contextmanager
    def session(self, cancelled: threading.Event | None = None) -> Iterator[Session]:
        """Connections for one transfer."""
        wire = Wire(self._context, self._settings.proxy, self._patience)
        try:
            yield Session(wire, cancelled or threading.Event())
        finally:
            wire.close()

    # --- where a registry is ---

    def _sources(self, session: Session, ref: Reference, credit: Credit) -> list[Repository]:
        """Mirrors first; they never see the registry's credentials."""
        found = []
        for text in self._settings.mirrors.get(ref.domain, ()):
            url = origin.parse(text)
            domain = url.origin.netloc
            path = f"{url.target.strip('/')}/{ref.path}".lstrip("/")
            found.append(self._at(session, url.origin, domain, path, credit(domain), "pull"))
        found.append(self._repository(session, ref.domain, ref.path, credit(ref.domain), "pull"))
        return found

    def _repository(
        self, session: Session, domain: str, path: str, credentials: Credentials, actions: str
    ) -> Repository:
        home = origin.of_domain(domain, self._scheme(session, domain))
        return self._at(session, home, domain, path, credentials, actions)

    def _at(
        self, session: Session, home: Origin, domain: str, path: str, credentials: Credentials, actions: str
    ) -> Repository:
        wire = session.wire

        def send(method: str, url: Url, headers: dict[str, str], body: Body) -> Response:
            for attempt in (1, 2, 3):
                try:
                    return wire.request(method, url, headers, body)
                except Broken:
                    if attempt == 3 or session.cancelled.wait(self._patience.backoff * attempt):
                        raise
            raise errors.Internal("a token was neither given nor refused")

        auth = Authorizer(home, credentials, send, realms=self._settings.realms.get(domain, ()))
        return Repository(
            wire, home, path, auth,
            actions=actions, insecure=self._settings.is_insecure(domain), cancelled=session.cancelled,
        )  # fmt: skip

    def _scheme(self, session: Session, domain: str) -> str:
        """https, but for insecure registries, which are asked without credentials what they speak. On the loopback
        plain HTTP comes first, elsewhere TLS; one with a certs.d directory speaks TLS.
        """
        if not self._settings.is_insecure(domain) or self._settings.certificates(domain):
            return "https"
        known = self._schemes.get(domain)
        if known is not None:
            return known
        local = origin.is_loopback(origin.of_domain(domain).host)
        failure: errors.LadingError | None = None
        for scheme in ("http", "https") if local else ("https", "http"):
            home = origin.of_domain(domain, scheme)
            try:
                with session.wire.request("GET", Url(home, "/v2/"), {}) as response:
                    # A TLS server that is spoken to in plain HTTP answers 400 at best (Go's net/http does).
                    spoken = response.status != 400
                    response.text(1 << 20)
            except errors.Unavailable as error:
                failure = failure or error
                continue
            if spoken:
                self._schemes[domain] = scheme
                return scheme
        raise failure or errors.Unavailable(f"{domain} does not answer as a registry")

    def _context(self, home: Origin) -> ssl.SSLContext:
        """TLS for an origin; what is insecure by configuration and has no CA of its own is not verified."""
        domain = DEFAULT_DOMAIN if home == origin.of_domain(DEFAULT_DOMAIN) else home.netloc
        with self._lock:
            made = self._contexts.get(domain)
            if made is None:
                verify = not self._settings.is_insecure(domain) or bool(self._settings.certificates(domain))
                made = self._contexts[domain] = settings.context(self._settings, domain, verify=verify)
            return made

    @contextlib.contextmanager
    def _slot(self, repository: Repository) -> Iterator[None]:
        """One of the few transfers that one host is asked for at a time."""
        with self._lock:
            slot = self._slots.setdefault(repository.home, threading.BoundedSemaphore(PER_HOST))
        while not slot.acquire(timeout=0.5):
            repository.check()
        try:
            yield
        finally:
            slot.release()

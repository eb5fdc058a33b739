"""`lading registry serve|gc`: a registry of one's own. Owns the flags, and joins the registry's room to the store's."""

from __future__ import annotations

import os

from lading.base.errors import Conflict, Denied, Invalid, Unavailable
from lading.cli.flags import Flags, UsageError, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterator

    from lading.cli.context import Context
    from lading.image.reference import Reference
    from lading.registry.client.client import Client
    from lading.registry.server.content import Content
    from lading.registry.server.htpasswd import Htpasswd
    from lading.registry.server.mirror import Mirror

USUAL = "127.0.0.1:5000"
_HOUR = 3600.0


def _content(context: Context, flags: Flags, *, local: bool, make: bool = True) -> Content:
    """The registry's root: its own blob store and database. `local`: with links from the engine's own blobs."""
    from lading.base import paths
    from lading.registry.server.content import Content
    from lading.store.blobs import Blobs
    from lading.store.database import Database

    engine = paths.from_environment(context.environ, context.uid)
    usual = f"{engine.root}/{'mirror' if flags.text('mirror') else 'registry'}"
    root = context.absolute(flags.text("root")) if flags.text("root") else usual
    if not make and not os.path.isdir(f"{root}/blobs"):
        raise Invalid(f"{root} holds no registry", hint="Name its directory with --root.")
    try:
        if local:
            os.makedirs(engine.root, mode=0o711, exist_ok=True)
        else:
            os.makedirs(root, mode=0o700, exist_ok=True)
        own = Blobs(f"{root}/blobs")
        if make:
            own.recover()
        theirs = Blobs(engine.blobs) if local else None
        return Content(own, Database(f"{root}/registry.db"), theirs)
    except PermissionError as error:
        raise Denied(
            f"lading cannot use {error.filename or root}",
            why=f"{error.strerror}.",
            hint="Name another --root.",
        ) from None
    except OSError as error:
        raise Unavailable(f"lading cannot use {error.filename or root}", why=f"{error.strerror}.") from None


def _address(text: str) -> tuple[str, int]:
    import ipaddress

    name, colon, port = text.rpartition(":")
    address = {"": "0.0.0.0", "localhost": "127.0.0.1"}.get(name, name.removeprefix("[").removesuffix("]"))
    try:
        ipaddress.ip_address(address)
        if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError
    except ValueError:
        raise UsageError(
            f'cannot listen on "{text[:80]}"', hint=f"Write ADDRESS:PORT, as in {USUAL}.", code=1
        ) from None
    return address, int(port)


def _listen(address: tuple[str, int]) -> socket.socket:
    import socket

    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=128)
    except OSError as error:
        raise Conflict(
            f"cannot listen on {address[0]}:{address[1]}", why=f"{error.strerror or error}."
        ) from None


def _tls(context: Context, flags: Flags) -> ssl.SSLContext | None:
    cert, key = flags.text("tls-cert"), flags.text("tls-key")
    if not cert and not key:
        return None
    if not cert or not key:
        raise UsageError("--tls-cert and --tls-key go together", code=1)
    import ssl

    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    try:
        made.load_cert_chain(context.absolute(cert), context.absolute(key))
    except OSError as error:  # ssl.SSLError is one
        raise Invalid(
            "the certificate and the key cannot be used", why=f"{error.strerror or error}."
        ) from None
    return made


def _users(context: Context, flags: Flags) -> Htpasswd | None:
    text = flags.text("auth")
    if not text:
        return None
    kind, _, path = text.partition(":")
    if kind != "htpasswd" or not path:
        raise UsageError(f'unknown --auth "{text[:80]}"', hint="Write htpasswd:FILE.", code=1)
    from lading.registry.server.htpasswd import Htpasswd

    return Htpasswd(context.absolute(path))


def _serve(context: Context, flags: Flags) -> int:
    import ipaddress
    import logging
    import signal

    from lading.linux import memory
    from lading.registry.server.server import Server
    from lading.registry.server.service import Service

    memory.few_arenas(2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    address = _address(flags.text("addr") or USUAL)
    tls, users = _tls(context, flags), _users(context, flags)
    loopback = ipaddress.ip_address(address[0]).is_loopback
    read_only = flags.on("read-only")
    if not loopback and users is None:
        write = "" if read_only else " and write"
        context.complain(
            f"warning: whoever reaches {address[0]} may read{write} here; --auth asks for a password"
        )
    if not loopback and users is not None and tls is None:
        context.complain("warning: passwords cross the network in the clear without --tls-cert and --tls-key")
    listener = _listen(address)
    # Linking a blob shows it to whoever knows its digest. That is meant for this machine's own users.
    content = _content(context, flags, local=loopback and not read_only and not flags.text("root"))
    mirror = _mirror(context, flags.text("mirror"), content) if flags.text("mirror") else None
    service = Service(
        content, read_only=read_only, users=users, mirror=mirror, log=_access_log(context, flags)
    )
    every = _HOUR if not read_only else 0.0
    server = Server(service, listener, tls=tls, sweep_every=every)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.shutdown())
    shown = f"[{server.address[0]}]" if ":" in server.address[0] else server.address[0]
    context.complain(
        f"serving {content.blobs.root} on {'https' if tls else 'http'}://{shown}:{server.address[1]}/v2/"
    )
    server.serve()
    return 0


def _mirror(context: Context, text: str, content: Content) -> Mirror:
    """A mirror of the registry at a URL, asked with the credentials of the user who serves it."""
    from dataclasses import replace

    from lading.registry.client import origin, settings
    from lading.registry.client.client import Client
    from lading.registry.server.mirror import Mirror

    url = origin.parse(text)
    told = settings.load(context.environ, context.uid)
    if url.origin.scheme == "http":
        told = replace(told, insecure=(*told.insecure, url.origin.netloc))
    return Mirror(content, _Upstream(Client(told), url.origin.netloc, url.target.strip("/"), context))


class _Upstream:
    """The registry client, as the mirror wants it."""

    def __init__(self, client: Client, domain: str, prefix: str, context: Context) -> None:
        from lading.registry.client.credentials import Keyring

        self._client, self._domain, self._prefix = client, domain, prefix
        self._credit = Keyring(context.environ).find

    def _reference(self, repo: str, reference: str) -> Reference:
        from lading.image.reference import Reference

        path = f"{self._prefix}/{repo}".lstrip("/")
        by_digest = ":" in reference
        return Reference(self._domain, path, "" if by_digest else reference, reference if by_digest else "")

    def manifest(self, repo: str, reference: str) -> tuple[bytes, str]:
        with self._client.session() as session:
            found = self._client.document(session, self._reference(repo, reference), self._credit)
        return found.data, found.media_type

    def blob(self, repo: str, digest: str) -> Iterator[bytes]:
        with self._client.session() as session:
            yield from self._client.content(session, self._reference(repo, digest), digest, self._credit)


def _access_log(context: Context, flags: Flags) -> Callable[[str], None]:
    if flags.on("quiet"):
        return lambda line: None
    fd = context.err.fd

    def log(line: str) -> None:
        try:
            os.write(fd, line.encode("utf-8", "replace") + b"\n")  # one write: lines of threads do not mix
        except OSError:
            pass  # nobody reads the log any more; the registry serves on

    return log


def _gc(context: Context, flags: Flags) -> int:
    from lading.cli.human import size
    from lading.cli.units import parse_duration
    from lading.registry.server import sweep

    age = max(parse_duration(flags.text("age")), 0) / 1e9 if flags.given("age") else sweep.AGE
    content = _content(context, flags, local=False, make=False)
    done = sweep.sweep(content, age=age, untagged=flags.on("untagged"))
    context.out.line(f"Removed {done.manifests} manifests, {done.blobs} blobs; reclaimed {size(done.size)}")
    return 0


SERVE = Verb(
    "serve [OPTIONS]",
    (
        ("addr", "", "string", f'Address and port to listen on (default "{USUAL}")'),
        ("auth", "", "string", "Ask for a password: htpasswd:FILE (bcrypt, yescrypt or SHA-512 hashes)"),
        (
            "mirror",
            "",
            "string",
            "Fetch what is asked for from the registry at this URL, and keep it; takes no pushes",
        ),
        ("quiet", "q", "bool", "Write no access log"),
        ("read-only", "", "bool", "Refuse pushes and deletions"),
        (
            "root",
            "",
            "string",
            "Directory of the registry (default: registry, or mirror, below the data root)",
        ),
        ("tls-cert", "", "string", "Certificate chain of the server, a PEM file"),
        ("tls-key", "", "string", "Private key of the certificate, a PEM file"),
    ),
    _serve,
    notes="The registry runs in the foreground and writes a JSON line a request to the standard error; figures for\n"
    "Prometheus are at /metrics. What no manifest has needed for a day is removed while it serves.\n"
    "On a loopback address and in its usual directory it links blobs of local images instead of storing them twice.",
)
GC = Verb(
    "gc [OPTIONS]",
    (
        ("age", "", "duration", "Spare what was used within this time (default 24h)"),
        ("root", "", "string", "Directory of the registry (default: registry below the data root)"),
        ("untagged", "", "bool", "Also remove manifests that no tag leads to"),
    ),
    _gc,
    notes="Safe beside a registry that serves; a push that takes longer than --age between a blob and its manifest fails.",
)

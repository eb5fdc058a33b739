"""Verbs that talk to registries: pull, push, login, logout. Owns whose credentials go along and how progress is shown."""

from __future__ import annotations

import base64
import os

from lading.base.errors import LadingError, Unavailable
from lading.cli.flags import Flags, UsageError, Verb
from lading.client.wire import dumps, quote
from lading.registry.client import authfiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from lading.cli.context import Context, Output
    from lading.registry.client.ports import Credentials

_KEEP = b"/:@"


def split(image: str) -> tuple[str, str]:
    """(repository, tag or digest) of a reference; the second may be ""."""
    name, at, digest = image.partition("@")
    if at:
        return name, digest
    repository, colon, tag = image.rpartition(":")
    return (image, "") if not colon or "/" in tag else (repository, tag)


def header(context: Context, image: str, *, always: bool = False) -> dict[str, str]:
    """X-Registry-Auth for an image's registry, where the user has credentials for it."""
    if not authfiles.present(context.environ):
        return {"X-Registry-Auth": "e30="} if always else {}
    from lading.image import reference
    from lading.registry.client.credentials import Keyring

    keyring = Keyring(context.environ)

    parsed = reference.parse(image)
    found = keyring.find(parsed.domain, parsed.path)
    if not found and not always:
        return {}
    return {"X-Registry-Auth": packed(auth_config(found))}


def config_header(context: Context) -> dict[str, str]:
    """X-Registry-Config: all of the user's credentials, for a build, whose registries only the daemon will know."""
    from lading.registry.client.credentials import Keyring

    every = {domain: auth_config(found) for domain, found in Keyring(context.environ).every().items()}
    return {"X-Registry-Config": packed(every)} if every else {}


def auth_config(found: Credentials) -> dict[str, str]:
    """Credentials in Docker's AuthConfig words."""
    said = {
        "username": found.username,
        "password": found.password,
        "identitytoken": found.identity_token,
        "registrytoken": found.registry_token,
    }
    return {key: value for key, value in said.items() if value}


def packed(value: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(dumps(dict(value)).encode()).decode()


def pull(context: Context, image: str, platform: str = "", *, quiet: bool, out: Output) -> None:
    """POST /images/create with its progress on `out`; the daemon's refusal is the error."""
    repository, tag = split(image)
    query = {"fromImage": repository, "tag": tag or "latest", "platform": platform}
    show(context.client.lines("POST", "/images/create", query, None, header(context, image)), out, quiet)


def show(events: Any, out: Output, quiet: bool) -> dict[str, Any]:
    """Print a progress stream as it comes; gives the last `aux` value. Its error is raised."""
    from lading.cli.bars import Bars, Lines

    shown = None if quiet else Bars(out) if out.is_terminal() else Lines(out)
    aux: dict[str, Any] = {}
    for event in events:
        if not isinstance(event, dict):
            continue
        if event.get("error"):
            raise Unavailable(str(event["error"]))
        if isinstance(event.get("aux"), dict):
            aux = event["aux"]
        elif shown is not None:
            shown.feed(event)
    return aux


def _pull(context: Context, flags: Flags) -> int:
    if flags.on("all-tags"):
        raise UsageError("--all-tags is not supported", hint="Name the tags one by one.")
    pull(context, flags.args[0], flags.text("platform"), quiet=flags.on("quiet"), out=context.out)
    if flags.on("quiet"):
        context.out.line(flags.args[0])
    return 0


def _push(context: Context, flags: Flags) -> int:
    image = flags.args[0]
    if "@" in image:
        raise UsageError("a digest cannot be pushed", hint="Name a tag.")
    repository, tag = split(image)
    if tag and flags.on("all-tags"):
        raise UsageError("a tag can't be used with --all-tags/-a")
    if not flags.on("all-tags"):
        tag = tag or "latest"
    path = f"/images/{quote(repository, _KEEP)}/push"
    headers = header(context, image, always=True)
    aux = show(
        context.client.lines("POST", path, {"tag": tag}, None, headers), context.out, flags.on("quiet")
    )
    if flags.on("quiet") and aux:
        context.out.line(image)
    return 0


def _login(context: Context, flags: Flags) -> int:
    from lading.engine.access import domain_of
    from lading.registry.client.credentials import Keyring
    from lading.registry.client.ports import Credentials

    address = flags.args[0] if flags.args else ""
    domain = domain_of(address)
    user, password = flags.text("username"), flags.text("password")
    if flags.on("password-stdin"):
        if password:
            raise UsageError("--password and --password-stdin are mutually exclusive")
        if not user:
            raise UsageError("must provide --username with --password-stdin")
        password = _stdin(context).rstrip("\r\n")
    elif password:
        context.complain(
            "warning: a password on the command line can be read by others; use --password-stdin."
        )
    keyring = Keyring(context.environ)
    stored = keyring.find(domain) if not user and not password else None
    given = stored or Credentials(*_asked(context, user, password))
    said = {**auth_config(given), "serveraddress": address}
    context.client.call("POST", "/auth", None, said)
    where = keyring.save(domain, given) if not stored else ""
    if where.startswith("/") or where.startswith("."):
        context.complain(
            f"warning: the password is kept unencrypted in {where}; a credential helper would hide it."
        )
    context.out.line("Login Succeeded")
    return 0


def _asked(context: Context, user: str, password: str) -> tuple[str, str]:
    """User name and password, asked for where they are missing and there is a terminal."""
    if (not user or not password) and not os.isatty(context.stdin):
        raise UsageError("cannot ask for a password: there is no terminal", hint="Use --password-stdin.")
    if not user:
        context.out.write("Username: ")
        context.out.flush()
        user = os.read(context.stdin, 1024).decode("utf-8", "replace").strip()
    if not password:
        import getpass

        password = getpass.getpass("Password: ")
    if not user or not password:
        raise UsageError("a user name and a password are needed")
    return user, password


def _stdin(context: Context) -> str:
    data = b""
    while len(data) < 1 << 16 and (more := os.read(context.stdin, 1 << 16)):
        data += more
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise LadingError("the password on standard input is not UTF-8") from None


def _logout(context: Context, flags: Flags) -> int:
    from lading.engine.access import domain_of
    from lading.registry.client.credentials import Keyring

    domain = domain_of(flags.args[0] if flags.args else "")
    context.out.line(f"Removing login credentials for {domain}")
    if not Keyring(context.environ).forget(domain):
        context.complain(f"warning: there were none for {domain}")
    return 0


PULL = Verb(
    "pull [OPTIONS] NAME[:TAG|@DIGEST]",
    (
        ("all-tags", "a", "bool", "Download all tagged images in the repository"),
        ("disable-content-trust", "", "bool", ""),
        ("platform", "", "string", "Set platform if server is multi-platform capable"),
        ("quiet", "q", "bool", "Suppress verbose output"),
    ),
    _pull,
    least=1,
    most=1,
)
PUSH = Verb(
    "push [OPTIONS] NAME[:TAG]",
    (
        ("all-tags", "a", "bool", "Push all tags of an image to the repository"),
        ("disable-content-trust", "", "bool", ""),
        ("quiet", "q", "bool", "Suppress verbose output"),
    ),
    _push,
    least=1,
    most=1,
)
LOGIN = Verb(
    "login [OPTIONS] [SERVER]",
    (
        ("password", "p", "string", "Password"),
        ("password-stdin", "", "bool", "Take the password from stdin"),
        ("username", "u", "string", "Username"),
    ),
    _login,
    most=1,
)
LOGOUT = Verb("logout [SERVER]", (), _logout, most=1)

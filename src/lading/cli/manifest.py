"""`lading manifest`: lists of images for several platforms. Speaks to registries itself, as the user; needs no daemon."""

from __future__ import annotations

from dataclasses import replace

from lading.cli.flags import Flags, UsageError, Verb
from lading.image import reference
from lading.image.reference import Reference
from lading.registry.client import indexes
from lading.registry.client.client import Client
from lading.registry.client.credentials import Keyring
from lading.registry.client.ports import Credentials
from lading.registry.client.settings import Settings, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lading.cli.context import Context


def _client(context: Context, flags: Flags, *names: Reference) -> tuple[Client, Callable[[str], Credentials]]:
    told: Settings = load(context.environ, context.uid)
    if flags.on("insecure"):
        told = replace(told, insecure=(*told.insecure, *(name.domain for name in names)))
    return Client(told), Keyring(context.environ).find


def _lists(context: Context) -> indexes.Lists:
    home = context.environ.get("HOME", "")
    data = context.environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    return indexes.Lists(f"{data}/lading/manifests")


def _parse(text: str) -> Reference:
    return reference.parse(text).with_default_tag()


def _create(context: Context, flags: Flags) -> int:
    name, *images = map(_parse, flags.args)
    lists = _lists(context)
    there = lists.exists(name)
    if there and not flags.on("amend"):
        raise UsageError(f"refusing to amend an existing manifest list {name.familiar} with no --amend flag")
    entries = {one.descriptor.digest: one for one in (lists.load(name) if there else ())}
    client, credit = _client(context, flags, *images)
    with client.session() as session:
        for image in images:
            one = indexes.entry(client, session, image, credit)
            entries[one.descriptor.digest] = one
    lists.save(name, entries.values())
    context.out.line(f"Created manifest list {name}")
    return 0


def _annotate(context: Context, flags: Flags) -> int:
    name, image = map(_parse, flags.args)
    lists = _lists(context)
    entries = lists.load(name)
    found = image.digest
    if not found:
        client, credit = _client(context, flags, image)
        with client.session() as session:
            found = client.document(session, image, credit).digest
    changed = []
    for one in entries:
        if one.descriptor.digest == found and one.descriptor.platform:
            platform = one.descriptor.platform
            platform = replace(
                platform,
                os=flags.text("os") or platform.os,
                architecture=flags.text("arch") or platform.architecture,
                variant=flags.text("variant") or platform.variant,
            )
            one = replace(one, descriptor=replace(one.descriptor, platform=platform))
        changed.append(one)
    if not any(one.descriptor.digest == found for one in entries):
        raise UsageError(f"{image.familiar} is not in the manifest list {name.familiar}", code=1)
    lists.save(name, changed)
    return 0


def _inspect(context: Context, flags: Flags) -> int:
    name = _parse(flags.args[-1])
    if len(flags.args) == 1 and _lists(context).exists(name):
        document = indexes.index(_lists(context).load(name))
    else:
        client, credit = _client(context, flags, name)
        with client.session() as session:
            document = client.document(session, name, credit)
    import json

    shown = json.loads(document.data)
    if flags.on("verbose"):
        descriptor = {"mediaType": document.media_type, "digest": document.digest, "size": len(document.data)}
        shown = {"Ref": str(name), "Descriptor": descriptor, "Manifest": shown}
    context.out.line(json.dumps(shown, indent=4, ensure_ascii=False))
    return 0


def _push(context: Context, flags: Flags) -> int:
    name = _parse(flags.args[0])
    lists = _lists(context)
    entries = lists.load(name)
    client, credit = _client(context, flags, name)
    with client.session() as session:
        document = indexes.push(client, session, name, entries, credit)
    if flags.on("purge"):
        lists.remove(name)
    context.out.line(document.digest)
    return 0


def _rm(context: Context, flags: Flags) -> int:
    return context.each(flags.args, lambda text: _lists(context).remove(_parse(text)))


_INSECURE = ("insecure", "", "bool", "Allow communication with an insecure registry")

CREATE = Verb(
    "manifest create [OPTIONS] MANIFEST_LIST MANIFEST [MANIFEST...]",
    (("amend", "a", "bool", "Amend an existing manifest list"), _INSECURE),
    _create,
    least=2,
    most=-1,
)
ANNOTATE = Verb(
    "manifest annotate [OPTIONS] MANIFEST_LIST MANIFEST",
    (
        ("arch", "", "string", "Set architecture"),
        _INSECURE,
        ("os", "", "string", "Set operating system"),
        ("variant", "", "string", "Set architecture variant"),
    ),
    _annotate,
    least=2,
    most=2,
)
INSPECT = Verb(
    "manifest inspect [OPTIONS] [MANIFEST_LIST] MANIFEST",
    (_INSECURE, ("verbose", "v", "bool", "Output additional info including the digest")),
    _inspect,
    least=1,
    most=2,
)
PUSH = Verb(
    "manifest push [OPTIONS] MANIFEST_LIST",
    (_INSECURE, ("purge", "p", "bool", "Remove the local manifest list after push")),
    _push,
    least=1,
    most=1,
)
RM = Verb("manifest rm MANIFEST_LIST [MANIFEST_LIST...]", (), _rm, least=1, most=-1)

"""`lading cdi list|show|generate`: the device specs of this machine. Owns their output.

Works without a daemon, since specs are files of the machine, and are often made before anything runs on it.
"""

from __future__ import annotations

import os

from lading.base.errors import Invalid, LadingError
from lading.cli.flags import Flags, UsageError, Verb
from lading.cli.table import Listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context
    from lading.device.catalog import Catalog

COLUMNS = Listing(
    (
        ("Name", "NAME", lambda row: row["Name"]),
        ("Kind", "KIND", lambda row: row["Name"].partition("=")[0]),
        ("Spec", "SPEC", lambda row: row["Spec"]),
    ),
    ("Name", "Spec"),
)


def _known(context: Context) -> tuple[Catalog, str]:
    from lading.base import paths
    from lading.engine.accelerators import Accelerators

    return Accelerators(paths.from_environment(context.environ, context.uid)).everything()


def _list(context: Context, flags: Flags) -> int:
    known, missing = _known(context)
    rows = [{"Name": name, "Spec": known.find(name)[0].origin} for name in known.names()]
    if flags.on("quiet"):
        for row in rows:
            context.out.line(row["Name"])
    else:
        COLUMNS.show(context, rows, flags.text("format"))
    for path, text in known.errors.items():
        context.complain(f"warning: {path} is not usable: {text}")
    for name, files in known.conflicts.items():
        context.complain(f"warning: {name} is not usable: {' and '.join(files)} both claim it")
    if missing:
        context.complain(f"warning: {missing}")
    return 0


def _show(context: Context, flags: Flags) -> int:
    from lading.device import edits

    known, missing = _known(context)
    out: list[dict[str, Any]] = []
    try:
        for name in flags.args:
            spec, device = known.find(name)
            merged = edits.as_document(edits.merge([(spec, device)]))
            found = {"Name": name, "Spec": spec.origin, "CDIVersion": spec.version, "ContainerEdits": merged}
            out.append(found)
    except LadingError as error:
        if missing and not isinstance(error, Invalid):
            context.complain(f"warning: {missing}")
        raise
    context.out.write(pretty(out))
    return 0


def pretty(document: object) -> str:
    import json

    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _generate(context: Context, flags: Flags) -> int:
    from lading.device import generate, inventory

    what, paths = flags.args[0], flags.args[1:]
    if what == "nvidia":
        if paths or flags.given("vendor") or flags.given("class") or flags.given("common"):
            raise UsageError("`lading cdi generate nvidia` takes no paths, vendor or class", code=1)
        document = generate.nvidia(inventory.look())
    elif what == "generic":
        if not paths:
            raise UsageError(
                "`lading cdi generate generic` needs device nodes", hint="Name their paths.", code=1
            )
        document = generate.generic(
            [context.absolute(path) for path in paths],
            flags.text("vendor"),
            flags.text("class"),
            [context.absolute(path) for path in flags.many("common")],
        )
    else:
        raise UsageError(f"unknown kind of spec: {what!r}", hint="It is nvidia or generic.", code=1)
    target = flags.text("output")
    if target in ("", "-"):
        context.out.write(pretty(document))
        return 0
    if not target.endswith((".json", ".yaml")):
        raise UsageError("--output must end in .json or .yaml", why="Engines read no other files.", code=1)
    _write(context.absolute(target), pretty(document))
    names = [f"{document['kind']}={device['name']}" for device in document["devices"]]
    context.complain(f"{target} names {', '.join(names[:20])}{' and more' if len(names) > 20 else ''}")
    return 0


def _write(path: str, text: str) -> None:
    """JSON is YAML too, so that either ending is right."""
    from lading.base.atomic import write_file

    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    write_file(path, text.encode(), mode=0o644)


LIST = Verb(
    "list [OPTIONS]",
    (
        ("format", "", "string", "Format output: 'table', 'json' or a Go TEMPLATE"),
        ("quiet", "q", "bool", "Only display names"),
    ),
    _list,
    notes="Specs are read from /etc/cdi, /var/run/cdi and the run directory's cdi; a later directory wins.",
)
SHOW = Verb("show NAME [NAME...]", (), _show, least=1, most=-1)
GENERATE = Verb(
    "generate [OPTIONS] nvidia | generic PATH [PATH...]",
    (
        ("class", "", "string", 'Class of generic devices (default "device")'),
        ("common", "", "list", "Device node that goes with every generic device, such as /dev/kfd"),
        ("output", "o", "string", "Write the spec to this file instead of the standard output"),
        ("vendor", "", "string", 'Vendor of generic devices (default "lading.host")'),
    ),
    _generate,
    least=1,
    most=-1,
    notes="nvidia: every GPU and MIG device with the driver's libraries, by NVML (pip install 'lading[gpu]').\n"
    "generic: each PATH by number and by its name, such as\n"
    "  lading cdi generate generic --vendor amd.com --class gpu --common /dev/kfd -o /etc/cdi/amd.json /dev/dri/renderD*",
)

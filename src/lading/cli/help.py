"""Help pages, from the same tables that the parser reads. Owns their layout."""

from __future__ import annotations

from lading.cli.entry import load
from lading.cli.verbs import COMMON, GROUPS, VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lading.cli.flags import Row

_METAVAR = {"bool": "", "decimal": "decimal"}
_WIDTH = 80

_GLOBAL = (
    ("here", "", "bool", "Run the engine inside this command instead of asking a daemon"),
    ("host", "H", "string", "Daemon socket to connect to (unix:///path or tcp://host:port)"),
    ("version", "v", "bool", "Print version information and quit"),
)


def page(name: str) -> str:
    """The page of a verb, of a group of verbs, or (for anything else) of the whole command."""
    if name in VERBS:
        return _verb(name)
    if name in GROUPS:
        return _group(name)
    return _top()


def _verb(name: str) -> str:
    entry = VERBS[name]
    verb = load(entry)
    out = [f"Usage:  lading {' '.join([*name.split()[:-1], verb.usage])}\n", entry[2]]
    if verb.notes:
        out += ["", verb.notes]
    same = sorted(
        other for other, (module, attribute, _) in VERBS.items() if (module, attribute) == entry[:2]
    )
    if len(same) > 1:
        out += ["", "Aliases:", "  " + ", ".join(f"lading {other}" for other in same)]
    if any(row[3] for row in verb.rows):
        out += ["", "Options:", *_options(verb.rows)]
    return "\n".join(out) + "\n"


def _options(rows: Sequence[Row]) -> list[str]:
    shown = []
    for long, short, kind, about in sorted(rows):
        if not about:
            continue
        metavar = _METAVAR.get(kind, kind)
        left = (f"  -{short}, " if short else "      ") + f"--{long}" + (f" {metavar}" if metavar else "")
        shown.append((left, about))
    return _columns(shown, gap=3)


def _group(name: str) -> str:
    members = [
        (verb.partition(" ")[2], entry) for verb, entry in VERBS.items() if verb.startswith(name + " ")
    ]
    rows = []
    seen = set()
    for verb, entry in sorted(members, key=lambda member: (member[0] in ("list", "remove", "ps"), member[0])):
        if entry[:2] not in seen:
            seen.add(entry[:2])
            rows.append((f"  {verb}", entry[2]))
    body = "\n".join(_columns(sorted(rows), gap=2))
    return (
        f"Usage:  lading {name} COMMAND\n\n{GROUPS[name]}\n\nCommands:\n{body}\n\n"
        f"Run 'lading {name} COMMAND --help' for more information on a command.\n"
    )


def _top() -> str:
    common = [(f"  {name}", VERBS[name][2]) for name in COMMON]
    groups = [(f"  {name}", about) for name, about in GROUPS.items()]
    others = [
        (f"  {name}", entry[2]) for name, entry in VERBS.items() if " " not in name and name not in COMMON
    ]
    return "\n".join(
        [
            "Usage:  lading [OPTIONS] COMMAND\n",
            "A container engine for machine learning\n",
            "Common Commands:",
            *_columns(common, gap=2, least=12),
            "\nManagement Commands:",
            *_columns(groups, gap=2, least=12),
            "\nCommands:",
            *_columns(others, gap=2, least=12),
            "\nGlobal Options:",
            *_options(_GLOBAL),
            "\nRun 'lading COMMAND --help' for more information on a command.\n",
        ]
    )


def _columns(rows: Iterable[tuple[str, str]], gap: int, least: int = 0) -> list[str]:
    """Two columns; the right one is wrapped at word ends."""
    rows = list(rows)
    left = max([least, *(len(row[0]) for row in rows)]) + gap
    room = max(30, _WIDTH - left)
    out = []
    for head, text in rows:
        line = ""
        lines = []
        for word in text.split():
            if line and len(line) + 1 + len(word) > room:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
        out.append(head.ljust(left) + lines[0])
        out += [" " * left + more for more in lines[1:]]
    return out

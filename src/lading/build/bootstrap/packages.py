"""What is installed in an image: name, version, architecture, source. Owns reading dpkg's status.

The list itself travels in the image (/var/lib/dpkg/status), where every scanner looks; its digest is a label.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

FORMAT = "${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n"
_SOURCE = re.compile(r"^(\S+)(?:\s+\((\S+)\))?$")


@dataclass(frozen=True, order=True)
class Package:
    """One installed binary package and the source it was built from (advisories name sources)."""

    name: str
    version: str
    architecture: str
    source: str
    source_version: str


def parse_query(text: str) -> tuple[Package, ...]:
    """Output of dpkg-query or dpkg-deb with `FORMAT`."""
    rows = (line.split("\t") for line in text.splitlines() if line.count("\t") == 4)
    return tuple(sorted(Package(*row) for row in rows))


def parse_status(text: str) -> tuple[Package, ...]:
    """/var/lib/dpkg/status: the stanzas of packages that are really installed (deb-control(5))."""
    found = []
    for stanza in text.split("\n\n"):
        fields = {
            k: v.strip() for k, _, v in (line.partition(":") for line in stanza.splitlines()) if k[:1] != " "
        }
        if fields.get("Status", "").split()[-1:] != ["installed"]:
            continue
        name, version = fields.get("Package", ""), fields.get("Version", "")
        source = _SOURCE.match(fields.get("Source", "")) or _SOURCE.match(name)
        if not name or not version or source is None:
            continue
        found.append(Package(name, version, fields.get("Architecture", ""), source[1], source[2] or version))
    return tuple(sorted(found))


def list_digest(packages: Iterable[Package]) -> str:
    """Digest of the sorted list: equal for equal package sets."""
    text = "".join(f"{p.name} {p.version} {p.architecture}\n" for p in sorted(packages))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

"""The table as another program reads it: our bytes mean the same as golden/network_ruleset.nft, in nft's
language.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from network_world import FAR, INNER, NEAR, world

from lading.network import Forward

GOLDEN = Path(__file__).parent.parent / "golden" / "network_ruleset.nft"


def listed(table: str) -> str:
    """What `nft` prints of a table, elements in order: the kernel keeps them by hash."""
    command = ["nft", "--numeric", "list", "table", "inet", table]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def ordered(match: re.Match[str]) -> str:
        return "{ " + ", ".join(sorted(element.strip() for element in match[1].split(","))) + " }"

    return re.sub(r"(?<=elements = )\{([^}]*)\}", ordered, found).replace(table, "TABLE")


@pytest.mark.skipif(not shutil.which("nft"), reason="needs the nft program to read the table back")
def test_the_ruleset_means_what_it_should(tmp_path: Path) -> None:
    with world(str(tmp_path)) as lab:
        six = Forward("tcp", "2001:db8:5::1", 443, "fd5a:213::2", 8443)
        web = (Forward("tcp", "", 18080, "10.213.0.2", 80), Forward("udp", "::", 53, "fd5a:213::2", 53))
        db = Forward("tcp", "127.0.0.1", 15432, "10.213.1.2", 5432)
        lab.networks.rebuild((NEAR, FAR, INNER), {"web": web, "db": (db,), "six": (six,)})
        ours = listed(lab.networks.table)
        subprocess.run(["nft", "-f", str(GOLDEN)], check=True)
        theirs = listed("golden")
    assert ours == theirs
    assert "dnat ip to" in ours

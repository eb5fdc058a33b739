"""What a caller brings to a registry: credentials, and a way to stop. Owns nothing else; imports no client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lading.image import reference

HUB_KEY = "https://index.docker.io/v1/"
"""What clients call docker.io where they keep or send credentials."""


@dataclass(frozen=True)
class Access:
    """Credentials by registry, in Docker's AuthConfig words, and a flag that stops what is under way."""

    auths: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    cancelled: threading.Event = field(default_factory=threading.Event)
    _acts: list[Callable[[], None]] = field(default_factory=list, repr=False)

    def on_cancel(self, act: Callable[[], None]) -> None:
        """Have `act` called by `cancel`."""
        self._acts.append(act)
        if self.cancelled.is_set():
            act()

    def cancel(self) -> None:
        """Stop what is under way, from any thread."""
        self.cancelled.set()
        for act in self._acts:
            act()

    def of(self, domain: str) -> Mapping[str, str] | None:
        """What is there for `domain`, and no other's."""
        found = self.auths.get(domain)
        if found is None and domain == reference.DEFAULT_DOMAIN:
            found = self.auths.get(HUB_KEY, self.auths.get("index.docker.io"))
        return found


def domain_of(address: str) -> str:
    """The registry that a server address of a log-in means: `https://index.docker.io/v1/`, `host:port`, a URL."""
    bare = address.partition("://")[2] or address
    bare = bare.partition("/")[0]
    if bare in ("", "index.docker.io", "registry-1.docker.io"):
        return reference.DEFAULT_DOMAIN
    return reference.parse(f"{bare}/x").domain if "." in bare or ":" in bare or bare == "localhost" else bare

"""A container's configuration made to fit an engine that is root of a user namespace only. Owns what is left out and why.

`Confined` holds the facts of this process; its methods are pure, and change nothing for root of the host.
Sources: user_namespaces(7), mount_namespaces(7) "Restrictions on mount namespaces", devpts(5).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from lading.base.errors import Invalid, Unsupported
from lading.linux import identity

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Confined:
    """(first, count) of the ids that mean somebody here, whether groups may be set, and whether pids can be limited."""

    active: bool
    uids: Ranges
    gids: Ranges
    may_set_groups: bool
    counts_pids: bool

    @property
    def groups(self) -> dict[str, Any]:
        """What init is told of its supplementary groups: that it must keep them, where none may be set."""
        return {} if self.may_set_groups else {"keep_groups": True}

    def fit(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """The configuration without what a user namespace cannot do."""
        if not self.active:
            return spec
        linux = dict(spec.get("linux") or {})
        kinds = {entry.get("type") for entry in linux.get("namespaces") or ()}
        if "user" in kinds:
            raise Unsupported(
                "a container of an ordinary user has no further user namespace",
                why="The engine runs in one already: root in its containers is this user outside.",
                hint="Leave --userns out.",
            )
        resources = dict(linux.get("resources") or {})
        resources.pop(
            "devices", None
        )  # only the host's root sets such rules; here a node that opens is the user's own
        if not self.counts_pids:
            resources.pop("pids", None)  # the engine's default; what users ask for is checked before
        linux["resources"] = resources
        fitted: dict[str, Any] = {**spec, "linux": linux}
        fitted["mounts"] = [
            self._mount(entry, kinds)
            for entry in spec.get("mounts") or ()
            if entry.get("type") != "mqueue"
            or "ipc" in kinds  # the host's queues are not this user's to mount
        ]
        if spec.get("process"):
            fitted["process"] = self.fit_process(spec["process"])
        return fitted

    def _mount(self, entry: Mapping[str, Any], kinds: Collection[Any]) -> Mapping[str, Any]:
        options = [str(option) for option in entry.get("options") or ()]
        # They show a network namespace and a pid namespace, and only its owner may mount them.
        for kind, namespace, source in (("sysfs", "network", "/sys"), ("proc", "pid", "/proc")):
            if entry.get("type") == kind and namespace not in kinds:
                options = ["rbind", "rslave", *(option for option in options if option != "relatime")]
                return {**entry, "type": "bind", "source": source, "options": options}
        if entry.get("type") == "devpts":
            options = [
                option
                for option in options
                if not option.startswith("gid=") or _within(self.gids, option[4:])
            ]
            return {**entry, "options": options}
        return entry

    def fit_process(self, process: Mapping[str, Any]) -> Mapping[str, Any]:
        """The process as a user and with groups that there are. Invalid for a user that does not exist here."""
        if not self.active:
            return process
        user = dict(process.get("user") or {})
        for kind, key, ranges in (("user", "uid", self.uids), ("group", "gid", self.gids)):
            if not _within(ranges, str(user.get(key) or 0)):
                raise Invalid(
                    f"{kind} {user[key]} does not exist in this engine's user namespace",
                    why=f"It has {sum(count for _, count in ranges)} of the {kind} ids.",
                    hint="Run as root inside (--user 0), which is you outside, or have the administrator install "
                    "newuidmap and give you ids in /etc/subuid and /etc/subgid.",
                )
        groups = user.get("additionalGids") or ()
        user["additionalGids"] = [
            gid for gid in groups if self.may_set_groups and _within(self.gids, str(gid))
        ]
        return {**process, "user": user}


def here(counts_pids: bool) -> Confined:
    """The facts of this process."""
    active = os.geteuid() == 0 and not identity.host_root()
    uids, gids = (
        tuple((inside, count) for inside, _, count in identity.ranges(kind)) for kind in ("uid", "gid")
    )
    return Confined(active, uids, gids, identity.may_set_groups(), counts_pids)


def _within(ranges: Ranges, number: str) -> bool:
    return number.isdigit() and any(first <= int(number) < first + count for first, count in ranges)

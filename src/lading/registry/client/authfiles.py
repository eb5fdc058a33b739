"""Where a user's credentials for registries lie. Imports nothing, so that looking costs nothing where there are none."""

from __future__ import annotations

import os

if False:  # the command line imports this file and pays for every import
    from collections.abc import Mapping


def docker(environ: Mapping[str, str]) -> str:
    """docker's config.json; "" where the user has no home."""
    home = environ.get("HOME", "")
    directory = environ.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else "")
    return f"{directory}/config.json" if directory else ""


def podman(environ: Mapping[str, str]) -> list[str]:
    """podman's files, the most particular first (containers-auth.json(5))."""
    home, run = environ.get("HOME", ""), environ.get("XDG_RUNTIME_DIR", "")
    own = environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")
    paths = [environ.get("REGISTRY_AUTH_FILE", "")]
    paths += [f"{directory}/containers/auth.json" for directory in (run, own) if directory]
    return [path for path in paths if path]


def present(environ: Mapping[str, str]) -> bool:
    """Whether any of them is there."""
    return any(os.path.exists(path) for path in (docker(environ), *podman(environ)) if path)

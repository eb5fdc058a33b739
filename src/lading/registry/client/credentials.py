"""The user's credentials: docker's config.json, podman's auth.json, and credential helpers.

Owns reading and writing those files as their tools do; what is not ours in them stays as it was. Runs as the user, in
the command line, never in the daemon.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from lading.base import atomic, errors
from lading.image import fields, reference
from lading.registry.client import authfiles
from lading.registry.client.ports import NOBODY, Credentials

HUB_KEY = "https://index.docker.io/v1/"
_LIMIT = 4 << 20
_PATIENCE = 60.0
_TOKEN_USER = "<token>"  # a helper's way to say that the secret is an identity token


class Keyring:
    """The credentials of the user whose environment is given."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.path = authfiles.docker(environ)
        self._podman = authfiles.podman(environ)

    def _paths(self) -> list[str]:
        return [*([self.path] if self.path else []), *self._podman]

    def find(self, domain: str, path: str = "") -> Credentials:
        """What the files and helpers have for a registry; NOBODY when nothing. `path` finds podman's entries by
        repository.
        """
        for file in self._paths():
            said = _read(file)
            helper = self._helper(said, domain)
            keys = [*_prefixes(domain, path), *_keys(domain)]
            found = self._ask(helper, domain) if helper else _listed(said, keys, file)
            if found:
                return found
        return NOBODY

    def every(self) -> dict[str, Credentials]:
        """All that the files hold, by domain; helpers are asked for the registries that are named."""
        found: dict[str, Credentials] = {}
        for file in self._paths():
            said = _read(file)
            for key in [*_table(said, "auths", file), *_table(said, "credHelpers", file)]:
                domain = _domain(key)
                if domain and domain not in found and (one := self.find(domain)):
                    found[domain] = one
        return found

    def save(self, domain: str, given: Credentials) -> str:
        """Keep credentials: with the helper where one is configured, else in the file; says where."""
        if not self.path:
            raise errors.Unavailable("there is no place for credentials", hint="Set HOME or DOCKER_CONFIG.")
        said = _read(self.path)
        helper = self._helper(said, domain)
        key = HUB_KEY if domain == reference.DEFAULT_DOMAIN else domain
        entry: dict[str, Any] = {}
        if helper:
            secret = given.identity_token or given.password
            user = _TOKEN_USER if given.identity_token else given.username
            asked = {"ServerURL": key, "Username": user, "Secret": secret}
            self._run(helper, "store", json.dumps(asked))
        else:
            pair = f"{given.username}:{given.password}".encode()
            entry["auth"] = base64.b64encode(pair).decode()
            if given.identity_token:
                entry["identitytoken"] = given.identity_token
        said["auths"] = {**_table(said, "auths", self.path), key: entry}
        self._write(said)
        return f"helper docker-credential-{helper}" if helper else self.path

    def forget(self, domain: str) -> bool:
        """Remove credentials from docker's file and its helper; whether there were any."""
        said = _read(self.path) if self.path else {}
        helper = self._helper(said, domain)
        listed = _table(said, "auths", self.path)
        keys = [key for key in _keys(domain) if key in listed]
        gone = bool(keys)
        if helper and self._ask(helper, domain):
            self._run(helper, "erase", HUB_KEY if domain == reference.DEFAULT_DOMAIN else domain)
            gone = True
        for key in keys:
            del listed[key]
        if keys:
            self._write(said)
        return gone

    def _write(self, said: dict[str, Any]) -> None:
        path = os.path.realpath(self.path)  # a link stays a link
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            atomic.write_file(path, json.dumps(said, indent="\t").encode(), mode=0o600)
        except OSError as error:
            raise errors.Unavailable(f"{self.path} cannot be written", why=error.strerror or "") from None

    # --- helpers ---

    def _helper(self, said: Mapping[str, Any], domain: str) -> str:
        """The helper for a registry; "" for none."""
        chosen = _table(said, "credHelpers", self.path)
        name: object = next(
            (chosen[key] for key in _keys(domain) if key in chosen), said.get("credsStore", "")
        )
        if not isinstance(name, str):
            raise errors.Invalid(f"{self.path}: a credential helper's name must be a string")
        if name and not all(char.isalnum() or char in "._-" for char in name):
            raise errors.Invalid(f"{self.path}: {name[:60]!r} is no name of a credential helper")
        return name

    def _ask(self, helper: str, domain: str) -> Credentials:
        key = HUB_KEY if domain == reference.DEFAULT_DOMAIN else domain
        text = self._run(helper, "get", key, absent=True)
        if not text:
            return NOBODY
        answer = fields.load(text, f"the answer of docker-credential-{helper}")
        user, secret = fields.text(answer, "Username"), fields.text(answer, "Secret")
        return Credentials(identity_token=secret) if user == _TOKEN_USER else Credentials(user, secret)

    def _run(self, helper: str, verb: str, data: str, *, absent: bool = False) -> bytes:
        """Run a helper; b"" where `absent` and it says that it has nothing."""
        program = f"docker-credential-{helper}"
        try:
            done = subprocess.run(
                [program, verb], input=data.encode(), capture_output=True, timeout=_PATIENCE, env=dict(self._environ)
            )  # fmt: skip
        except FileNotFoundError:
            raise errors.Unavailable(
                f"the credential helper {program} is not installed",
                hint=f"Install it, or take it out of {self.path}.",
            ) from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise errors.Unavailable(f"{program} {verb} failed", why=str(error)[:200]) from None
        said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
        if done.returncode == 0:
            return done.stdout
        if absent and "not found" in said:
            return b""
        raise errors.Unavailable(f"{program} {verb} failed", why=f"{said[:200]}" if verb == "get" else "")


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise errors.Unavailable(f"{path} cannot be read", why=error.strerror or "") from None
    return fields.load(data, path) if data.strip() else {}


def _table(said: Mapping[str, Any], name: str, path: str) -> dict[str, Any]:
    value = said.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise errors.Invalid(f"{path}: {name} must be an object")
    return value


def _keys(domain: str) -> list[str]:
    """The ways a registry is written in these files."""
    if domain == reference.DEFAULT_DOMAIN:
        return [
            HUB_KEY,
            "index.docker.io",
            "docker.io",
            "registry-1.docker.io",
            "https://index.docker.io/v2/",
        ]
    return [
        domain,
        *(
            f"{scheme}{domain}{end}"
            for scheme in ("https://", "http://", "")
            for end in ("", "/", "/v1/", "/v2/")
            if scheme or end
        ),
    ]


def _prefixes(domain: str, path: str) -> list[str]:
    """podman's keys of a repository and its parents, the longest first (containers-auth.json(5))."""
    parts = path.split("/") if path else []
    return [f"{domain}/{'/'.join(parts[:count])}" for count in range(len(parts), 0, -1)]


def _domain(key: str) -> str:
    bare = key.partition("://")[2] or key
    bare = bare.partition("/")[0]
    return (
        reference.DEFAULT_DOMAIN if bare in ("index.docker.io", "docker.io", "registry-1.docker.io") else bare
    )


def _listed(said: Mapping[str, Any], keys: list[str], path: str) -> Credentials:
    listed = _table(said, "auths", path)
    for key in keys:
        if key not in listed:
            continue
        entry = fields.mapping(listed[key], f"{path}: the entry {key!r}")
        user, password = fields.text(entry, "username"), fields.text(entry, "password")
        packed = fields.text(entry, "auth")
        if packed:
            try:
                user, _, password = base64.b64decode(packed, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise errors.Invalid(f"{path}: the entry {key!r} is not base64 of user:password") from None
        return Credentials(
            user,
            password.rstrip("\0"),
            fields.text(entry, "identitytoken"),
            fields.text(entry, "registrytoken"),
        )
    return NOBODY

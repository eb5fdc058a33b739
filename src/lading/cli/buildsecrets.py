"""`build --secret`: values from files and variables, put before the request's body. Owns that form's client side.

A secret is no part of the query or of a header, which servers and proxies write into logs.
"""

from __future__ import annotations

import os
from binascii import b2a_base64

from lading.base.errors import Invalid, NotFound
from lading.cli.flags import UsageError
from lading.client.wire import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lading.cli.context import Context

LIMIT = 500 << 10
"""Of one secret, as BuildKit has it."""

_KEYS = ("id", "src", "source", "env", "type")


def preamble(context: Context, values: list[str]) -> bytes:
    """The JSON object (id to base64) of all `--secret` flags; b"" when there is none."""
    found: dict[str, str] = {}
    for text in values:
        name, content = _one(context, text)
        if name in found:
            raise UsageError(f'the secret "{name}" is given twice', verb="build")
        found[name] = b2a_base64(content, newline=False).decode()
    return dumps(found).encode() if found else b""


def _one(context: Context, text: str) -> tuple[str, bytes]:
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, mark, value = part.partition("=")
        if not mark or key not in _KEYS:
            raise UsageError(
                f'invalid argument "{key}" for "--secret" flag',
                hint="It is id=NAME,src=FILE or id=NAME,env=VARIABLE.",
                verb="build",
            )
        fields["src" if key == "source" else key] = value
    name, source, variable = fields.get("id", ""), fields.get("src", ""), fields.get("env", "")
    kind = fields.get("type", "")
    if kind not in ("", "file", "env"):
        raise UsageError('the type of a secret is "file" or "env"', verb="build")
    if kind == "env" and not variable:
        variable, source = source or name, ""
    if not name or (source and variable):
        raise UsageError(
            "a secret has an id, and comes from one place",
            hint="Write id=NAME,src=FILE or id=NAME,env=VARIABLE.",
            verb="build",
        )
    if not source and not variable and kind != "file" and name in context.environ:
        variable = name  # docker's rule: an id alone is a variable of that name, or else a file
    if variable:
        given = context.environ.get(variable)
        if given is None:
            raise NotFound(f'the secret "{name}" is not there', why=f"The variable {variable} is not set.")
        content = os.fsencode(given)
    else:
        content = _file(name, context.absolute(source or name))
    if len(content) > LIMIT:
        raise Invalid(f'the secret "{name}" is longer than {LIMIT >> 10} KiB')
    return name, content


def _file(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(LIMIT + 1)
    except OSError as error:
        raise NotFound(f'the secret "{name}" cannot be read from {path}', why=f"{error.strerror}.") from None

"""The door of `lading-runtime`: flags, the verb, and errors as runc's callers read them. Loads only what the verb needs."""

from __future__ import annotations

import os
import time

from lading import __version__
from lading.base import jsontext
from lading.base.errors import Internal, Invalid, LadingError, Unsupported
from lading.runtime.oci import flags

if False:  # names for the type checker only; the command line must not import typing
    from typing import Any

_MAKERS = ("create", "run")


class Context:
    """What every verb gets: where state lives, and where words go."""

    def __init__(self, options: dict[str, Any]) -> None:
        if options.get("log-format", "text") not in ("text", "json"):
            raise Invalid(f"--log-format: {options['log-format']!r} is not text or json")
        self.root = os.path.abspath(options.get("root") or default_root())
        self.json = options.get("log-format") == "json"
        self.log = options.get("log") or ""
        self.debug = bool(options.get("debug"))

    def say(self, level: str, message: str) -> None:
        """One record to --log, or to standard error without it; as logrus writes them, which callers parse."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self.json:
            text = jsontext.dumps({"level": level, "msg": message, "time": at})
        else:
            text = f'time="{at}" level={level} msg={jsontext.dumps(message)}'
        try:
            fd = (
                os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                if self.log
                else 2
            )
            os.write(fd, text.encode("utf-8", "backslashreplace") + b"\n")
            if fd != 2:
                os.close(fd)
        except OSError:
            pass  # nobody to tell

    def warn(self, message: str) -> None:
        self.say("warning", message)


def default_root() -> str:
    """/run/lading-runtime, or below the user's own run directory."""
    if os.geteuid() == 0:
        return "/run/lading-runtime"
    return f"{os.environ.get('XDG_RUNTIME_DIR') or f'/tmp/lading-runtime-{os.geteuid()}'}/lading-runtime"


def main(words: list[str]) -> int:
    """The exit code; errors are told, never raised."""
    context = Context({})
    try:
        before, verb, options, arguments = flags.verb(words)
        context = Context(before)
        if before.get("version"):
            return write(f"lading-runtime version {__version__}\nspec: 1.2.0\n")
        if verb in ("", "help") or before.get("help"):
            return write(
                f"usage: lading-runtime [--root DIR] [--log FILE] VERB\nverbs: {', '.join(flags.VERBS)}\n"
            )
        return _run(context, verb, options, arguments)
    except LadingError as error:
        return _failed(context, str(error), error.exit_code)
    except OSError as error:
        return _failed(context, f"{error.strerror}: {error.filename}" if error.filename else str(error), 1)
    except RecursionError:
        return _failed(context, str(Internal("the configuration is nested too deep")), 1)


def _failed(context: Context, message: str, code: int) -> int:
    context.say("error", message)
    if context.log:
        os.write(2, message.encode("utf-8", "backslashreplace") + b"\n")
    # 125 is the engine's; runtimes end with 1, and with the shell's codes where the command is at fault.
    return 1 if code == 125 else code


def _run(context: Context, verb: str, options: dict[str, Any], arguments: list[str]) -> int:
    if verb in ("checkpoint", "restore"):
        raise Unsupported(f"{verb} is not supported", why="lading-runtime cannot freeze processes to disk")
    wanted = 0 if verb in ("list", "spec", "features") else 2 if verb == "kill" else 1
    if len(arguments) < min(wanted, 1) or (len(arguments) > wanted and verb != "exec"):
        raise Invalid(f"{verb}: {'a container id is' if wanted else 'no argument is'} wanted")
    if verb in _MAKERS:
        from lading.runtime.oci import making

        return making.create(context, options, arguments[0], run=verb == "run")
    if verb == "start":
        from lading.runtime.oci import making

        return making.start(context, arguments[0])
    if verb == "exec":
        from lading.runtime.oci import joining

        return joining.execute(context, options, arguments[0], arguments[1:])
    if verb in ("spec", "features"):
        from lading.runtime.oci import describe

        return describe.spec(options) if verb == "spec" else describe.features()
    from lading.runtime.oci import life

    names = {"list": "listing", "state": "state_"}
    return int(getattr(life, names.get(verb, verb))(context, options, arguments))


def write(text: str) -> int:
    """To standard output, whole."""
    view = memoryview(text.encode("utf-8", "backslashreplace"))
    while view:
        view = view[os.write(1, view) :]
    return 0

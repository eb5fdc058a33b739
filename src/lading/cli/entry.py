"""The door of the command line: global flags, the choice of the verb, and every way a verb can end.

Owns exit codes of failures and the form of error messages; a user never sees a traceback of an expected failure.
"""

from __future__ import annotations

import os
import sys

from lading.base.errors import LadingError
from lading.cli.context import Context, write_all
from lading.cli.flags import HelpWanted, UsageError, parse
from lading.cli.verbs import VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lading.cli.flags import Verb

GLOBAL = {
    "-H": "host",
    "--host": "host",
    "--here": "here",
    "-v": "version",
    "--version": "version",
    "--help": "help",
}


def run_process() -> int:
    """Run as a process: argv and environment from `sys` and `os`, and an exit that skips the interpreter's tidying up."""
    try:
        code = run(sys.argv[1:], Context(os.environ))
    except KeyboardInterrupt:
        code = 130
    except OSError:
        code = 141  # not even the message could be written: nobody reads our output any more
    os._exit(code)


def run(argv: Sequence[str], context: Context) -> int:
    """Run one command line and return its exit status."""
    try:
        try:
            return _dispatch(argv, context)
        finally:
            context.close()
            context.out.flush()
            context.err.flush()
    except HelpWanted:
        from lading.cli import help as pages

        context.out.write(pages.page(context.verb))
        context.out.flush()
        return 0
    except UsageError as error:
        where = f"lading {error.verb or context.verb}".strip() + " --help"
        context.complain(f"{error}\n\nRun '{where}' for more information.")
        return error.code
    except LadingError as error:
        context.complain(str(error))
        return _code(error, context.verb)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away: end as the signal would have ended us.
        return 141
    except OSError as error:
        name = f" {os.fsdecode(error.filename)!r}" if isinstance(error.filename, str | bytes) else ""
        context.complain(f"{error.strerror or error}{name}")
        return 125 if context.verb in ("run", "container run") else 1
    except Exception as error:
        if context.environ.get("LADING_TRACEBACK"):
            raise
        write_all(
            context.err.fd,
            f"lading: a fault in lading itself: {type(error).__name__}: {error}\n"
            "Run the command again with LADING_TRACEBACK=1 and report what it prints.\n".encode(),
        )
        return 125 if context.verb in ("run", "container run") else 1


def _code(error: LadingError, verb: str) -> int:
    """126 and 127 as they are; lading's own failure is 125 in run and 1 elsewhere, as docker's."""
    return error.exit_code if error.exit_code != 125 or verb in ("run", "container run") else 1


def _dispatch(argv: Sequence[str], context: Context) -> int:
    at = _globals(argv, context)
    if at < 0:
        return 0
    words = argv[at : at + 2]
    if not words:
        raise HelpWanted
    if words[0] == "help":
        context.verb = " ".join(argv[at + 1 : at + 3])
        raise HelpWanted
    name = " ".join(words)
    entry = VERBS.get(name)
    if entry is None:
        name = words[0]
        entry = VERBS.get(name)
        at -= 1
    context.verb = name
    if entry is None:
        return _no_verb(argv[at + 1 :], context)
    verb = load(entry)
    return verb.act(context, parse(name, verb, argv[at + 2 :]))


def _globals(argv: Sequence[str], context: Context) -> int:
    """Take the flags before the verb; the index of the verb, or -1 when there is nothing more to do."""
    at = 0
    while at < len(argv) and argv[at].startswith("-") and argv[at] != "-":
        key, mark, value = argv[at].partition("=")
        if key[:2] == "-H" and len(key) > 2:
            key, mark, value = "-H", "=", argv[at][2:].removeprefix("=")
        at += 1
        flag = GLOBAL.get(key)
        if flag == "host":
            if not mark:
                if at >= len(argv):
                    raise UsageError(f"flag needs an argument: {key}")
                value = argv[at]
                at += 1
            context.host = value
        elif flag == "here":
            context.here = True
        elif flag == "version":
            from lading import __version__

            context.out.line(f"lading version {__version__}")
            return -1
        elif flag == "help" or key == "-h":
            raise HelpWanted
        else:
            from lading.cli.suggest import closest

            guess = closest(key, GLOBAL)
            raise UsageError(f"unknown flag: {key}", hint=f"Did you mean {guess}?" if guess else "")
    return at


def load(entry: tuple[str, str, str]) -> Verb:
    """The verb that a row of `VERBS` names; imports its file."""
    module = __import__(f"lading.cli.{entry[0]}", fromlist=("",))
    verb: Verb = getattr(module, entry[1])
    return verb


def _no_verb(words: Sequence[str], context: Context) -> int:
    group = words[0]
    members = [name for name in VERBS if name.startswith(group + " ")]
    from lading.cli.suggest import closest

    if members:
        if len(words) == 1 or words[1].startswith("-"):
            context.verb = group
            raise HelpWanted
        guess = closest(words[1], [name.partition(" ")[2] for name in members])
        wrong = f"{group} {words[1]}"
        guess = f"{group} {guess}" if guess else ""
    else:
        wrong = group
        guess = closest(group, sorted({name.partition(" ")[0] for name in VERBS}))
    context.verb = group if members else ""
    raise UsageError(
        f"unknown command: lading {wrong}",
        hint=f"Did you mean 'lading {guess}'?" if guess else "",
        verb=context.verb,
        code=1,
    )

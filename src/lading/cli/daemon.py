"""`lading daemon`: join the rooms into an engine and serve its API until told to stop. Owns the flags, nothing else."""

from __future__ import annotations

from lading.cli.flags import Flags, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lading.cli.context import Context


def _daemon(context: Context, flags: Flags) -> int:
    import logging

    from lading.assemble import run_daemon
    from lading.base import paths

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    environ = dict(context.environ)
    for flag, variable in (("root", "LADING_ROOT"), ("run", "LADING_RUN")):
        if flags.text(flag):
            environ[variable] = context.absolute(flags.text(flag))
    return run_daemon(
        paths.from_environment(environ, context.uid),
        environ,
        hosts=tuple(flags.many("host")),
        group=flags.text("group"),
        idle_exit=flags.integer("idle-exit") or None,
    )


DAEMON = Verb(
    "daemon [OPTIONS]",
    (
        ("idle-exit", "", "uint", "End after so many seconds without work (0: never)"),
        ("root", "", "string", "Directory of images, volumes and containers (default /var/lib/lading)"),
        ("run", "", "string", "Directory of the socket and the live state (default /run/lading)"),
        ("host", "H", "list", "Listen there as well (unix:///path or tcp://host:port)"),
        ("group", "G", "string", "Group that may use the socket"),
    ),
    _daemon,
    notes="The daemon runs in the foreground; other commands start one in the background when none is there.",
)

"""`lading build`: the context, the query, and which renderer shows the progress. Rendering is in `progress*`."""

from __future__ import annotations

import os

from lading.base.errors import Invalid, LadingError, Unavailable
from lading.cli.archive import TAR, read_pieces
from lading.cli.flags import Flags, UsageError, Verb
from lading.cli.values import hosts, pairs, ulimits
from lading.client.http import CHUNK
from lading.client.wire import dumps
from lading.registry.client import authfiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from lading.cli.context import Context

_TEXT = {"Content-Type": "text/plain"}
_DOCKERFILE_LIMIT = 1 << 20
_MODES = ("auto", "plain", "tty", "quiet", "rawjson")

# flag: (query key, accessor)
_PLAIN = {
    "target": ("target", "text"),
    "network": ("networkmode", "text"),
    "platform": ("platform", "text"),
    "cgroup-parent": ("cgroupparent", "text"),
    "cpuset-cpus": ("cpusetcpus", "text"),
    "cpuset-mems": ("cpusetmems", "text"),
    "compression": ("compression", "text"),
    "tag": ("t", "many"),
    "cpu-period": ("cpuperiod", "integer"),
    "cpu-quota": ("cpuquota", "integer"),
    "cpu-shares": ("cpushares", "integer"),
    "memory": ("memory", "size"),
    "memory-swap": ("memswap", "size"),
    "shm-size": ("shmsize", "size"),
    "no-cache": ("nocache", "on"),
    "pull": ("pull", "on"),
    "host-trust": ("hosttrust", "on"),
}


class Source:
    """What is built: a directory of this host, or a tar stream; and the Dockerfile, by name or as text."""

    __slots__ = ("body", "directory", "dockerfile", "secrets", "text")

    def __init__(self, directory: str = "", dockerfile: str = "", text: bytes | None = None) -> None:
        self.directory = directory
        self.dockerfile = dockerfile
        self.text = text
        self.body: Iterable[bytes] | None = None
        self.secrets = b""


def _build(context: Context, flags: Flags) -> int:
    if flags.on("check"):
        from lading.cli.lint import check_before_build

        return check_before_build(context, flags)
    mode = _mode(context, flags)
    source = find_source(context, flags)
    query = build_query(context, flags)
    if flags.given("secret"):
        from lading.cli.buildsecrets import preamble

        source.secrets = preamble(context, flags.many("secret"))
    iidfile = flags.text("iidfile")
    if iidfile and os.path.lexists(iidfile):
        os.unlink(iidfile)  # an old id must not be taken for the new one when the build fails
    image = _watch(context, _events(context, source, query), mode)
    if iidfile:
        from lading.base.atomic import write_file

        write_file(context.absolute(iidfile), image.encode(), mode=0o644)
    if mode == "quiet":
        context.out.line(image)
    return 0


def _mode(context: Context, flags: Flags) -> str:
    if flags.on("quiet"):
        return "quiet"
    mode = flags.text("progress", "auto")
    if mode not in _MODES:
        raise UsageError(
            f"invalid progress mode {mode!r}", hint=f"It is one of {', '.join(_MODES)}.", verb="build"
        )
    if mode == "auto":
        return "tty" if context.err.is_terminal() and context.environ.get("TERM") != "dumb" else "plain"
    return mode


def build_query(context: Context, flags: Flags) -> dict[str, Any]:
    """The flags as the query of POST /build."""
    query: dict[str, Any] = {"progress": "vertex"}
    for name, (key, how) in _PLAIN.items():
        if flags.given(name):
            query[key] = getattr(flags, how)(name)
    arguments: dict[str, str | None] = {}
    for item in flags.many("build-arg"):
        name, mark, value = item.partition("=")
        if not name:
            raise UsageError(f'invalid argument "{item}" for "--build-arg" flag: it is NAME[=VALUE]')
        arguments[name] = value if mark else context.environ.get(name)
    query["buildargs"] = arguments
    query["labels"] = pairs("label", flags.many("label"))
    shaped: dict[str, Any] = {}
    if flags.given("add-host"):
        hosts(context, flags, {}, shaped)
        query["extrahosts"] = shaped["ExtraHosts"]
    if flags.given("ulimit"):
        ulimits(context, flags, {}, shaped)
        query["ulimits"] = dumps(shaped["Ulimits"])
    return query


def find_source(context: Context, flags: Flags) -> Source:
    """What PATH and -f mean together."""
    path, file = flags.args[0], flags.text("file")
    if path.startswith(("http://", "https://", "git://", "git@", "github.com/")):
        raise UsageError(
            "a build context cannot be fetched from a URL", hint="Clone it, and build the directory.", code=1
        )
    if path == "-":
        if file == "-":
            raise UsageError(
                "invalid argument: can't use stdin for both build context and dockerfile", code=1
            )
        return _from_stdin(context, file)
    directory = os.path.realpath(context.absolute(path))
    if not os.path.isdir(directory):
        why = "It is a file." if os.path.exists(directory) else "There is no such directory."
        raise Invalid(
            f"unable to prepare context: {path!r}",
            why=why,
            hint="The last argument is the context's directory, often '.'.",
        )
    if file == "-":
        return Source(directory, text=_whole(context.stdin))
    if not file:
        return Source(directory)
    return _with_file(context, directory, path, file)


def _with_file(context: Context, directory: str, path: str, file: str) -> Source:
    absolute = context.absolute(file)
    if not os.path.lexists(absolute):
        inside = os.path.exists(os.path.join(directory, file))
        hint = f"The context has one: -f {os.path.join(path, file)}." if inside else ""
        raise Invalid(f"the Dockerfile {file!r} does not exist", hint=hint)
    home = os.path.realpath(os.path.dirname(absolute))
    if home == directory or home.startswith(directory.rstrip("/") + "/"):
        return Source(directory, os.path.relpath(os.path.join(home, os.path.basename(absolute)), directory))
    fd = os.open(absolute, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return Source(directory, text=_whole(fd))
    finally:
        os.close(fd)


def _whole(fd: int) -> bytes:
    data = b""
    while piece := os.read(fd, CHUNK):
        data += piece
        if len(data) > _DOCKERFILE_LIMIT:
            raise Invalid(f"the Dockerfile is longer than {_DOCKERFILE_LIMIT >> 20} MiB")
    return data


def _from_stdin(context: Context, file: str) -> Source:
    """`build -`: a tar of the context when it looks like an archive, else the Dockerfile itself."""
    head = b""
    while len(head) < 512 and (piece := os.read(context.stdin, CHUNK)):
        head += piece
    if not head:
        raise Invalid("unable to prepare context: standard input is empty")
    if not _is_archive(head):
        return Source(text=head + _whole(context.stdin))
    source = Source(dockerfile=file)
    source.body = _chain(head, read_pieces(context.stdin))
    return source


def _is_archive(head: bytes) -> bool:
    magic = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
    return head.startswith(magic) or head[257:262] == b"ustar"


def _chain(head: bytes, body: Iterable[bytes]) -> Iterator[bytes]:
    if head:
        yield head
    yield from body


def _events(context: Context, source: Source, query: dict[str, Any]) -> Iterator[Any]:
    """The build's events. A daemon that may not read our directory is sent it as a tar."""
    known, secrets = _credentials(context), source.secrets
    if secrets:
        known["X-Lading-Secrets"] = str(len(secrets))
    text_headers, tar_headers = {**_TEXT, **known}, {**TAR, **known}
    if source.dockerfile:
        query["dockerfile"] = source.dockerfile
    if source.body is not None:
        body = _chain(secrets, source.body)
        yield from context.client.lines("POST", "/build", query, body, tar_headers)
        return
    if source.directory and not context.host.startswith(("tcp://", "http://")):
        text, headers = (source.text, text_headers) if source.text is not None else (None, known)
        try:
            yield from context.client.lines(
                "POST",
                "/build",
                {**query, "contextdir": source.directory},
                secrets + (text or b"") if secrets else text,
                headers,
            )
            return
        except LadingError as error:
            if getattr(error, "status", 0) != 403:
                raise
    if not source.directory:
        text = secrets + (source.text or b"")
        yield from context.client.lines("POST", "/build", query, text, text_headers)
        return
    from lading.cli.buildcontext import archive

    name = source.dockerfile
    if source.text is not None:
        name = query["dockerfile"] = f".dockerfile.{os.urandom(8).hex()}"
    body = _chain(secrets, archive(source.directory, name, source.text))
    yield from context.client.lines("POST", "/build", query, body, tar_headers)


def _credentials(context: Context) -> dict[str, str]:
    """The user's credentials, for the base images that the daemon may have to pull."""
    if not authfiles.present(context.environ):
        return {}
    from lading.cli.registries import config_header

    return dict(config_header(context))


def _watch(context: Context, events: Iterable[Any], mode: str) -> str:
    """Show the events and return the image's id; the build's failure is an error."""
    from lading.cli import progress

    renderer = progress.renderer(context, mode)
    image, failure = "", ""
    try:
        for event in events:
            if not isinstance(event, dict):
                continue
            if "error" in event:
                failure = str(event["error"])
            finished = event.get("finished")
            if isinstance(finished, dict):
                image = str(finished.get("image_id", ""))
            renderer.feed(event)
    finally:
        renderer.close(bool(image) and not failure)
    if failure or not image:
        raise Unavailable(failure or "the build ended without an image")
    return image


BUILD = Verb(
    "build [OPTIONS] PATH | -",
    (
        ("add-host", "", "list", 'Add a custom host-to-IP mapping ("host:ip")'),
        ("build-arg", "", "list", "Set build-time variables"),
        ("cache-from", "", "list", ""),
        ("cgroup-parent", "", "string", 'Set the parent cgroup for the "RUN" instructions during build'),
        ("check", "", "bool", "Say what could be better in the Dockerfile, and build nothing"),
        ("compress", "", "bool", ""),
        ("compression", "", "string", "Compression of new layers: gzip, zstd or tar (default gzip)"),
        ("cpu-period", "", "int", "Limit the CPU CFS (Completely Fair Scheduler) period"),
        ("cpu-quota", "", "int", "Limit the CPU CFS (Completely Fair Scheduler) quota"),
        ("cpu-shares", "c", "int", "CPU shares (relative weight)"),
        ("cpuset-cpus", "", "string", "CPUs in which to allow execution (0-3, 0,1)"),
        ("cpuset-mems", "", "string", "MEMs in which to allow execution (0-3, 0,1)"),
        ("disable-content-trust", "", "bool", ""),
        (
            "file",
            "f",
            "string",
            'Name of the Dockerfile (Default is "PATH/Dockerfile"; "-" is standard input)',
        ),
        ("force-rm", "", "bool", ""),
        (
            "host-trust",
            "",
            "bool",
            "Show the host's CA bundle, proxies and resolver to RUN steps (default: where needed)",
        ),
        ("iidfile", "", "string", "Write the image ID to the file"),
        ("label", "", "list", "Set metadata for an image"),
        ("load", "", "bool", ""),
        ("memory", "m", "bytes", "Memory limit"),
        ("memory-swap", "", "bytes", "Swap limit equal to memory plus swap: -1 to enable unlimited swap"),
        ("network", "", "string", "Networking mode for the RUN instructions: default, none or host"),
        ("no-cache", "", "bool", "Do not use cache when building the image"),
        ("platform", "", "string", "Set platform if server is multi-platform capable"),
        ("progress", "", "string", 'Type of progress output ("auto", "plain", "tty", "quiet", "rawjson")'),
        ("pull", "", "bool", "Always attempt to pull a newer version of the image"),
        ("quiet", "q", "bool", "Suppress the build output and print image ID on success"),
        ("rm", "", "bool", ""),
        (
            "secret",
            "",
            "list",
            'Secret for RUN --mount=type=secret ("id=NAME,src=FILE" or "id=NAME,env=VAR")',
        ),
        ("shm-size", "", "bytes", 'Size of "/dev/shm"'),
        ("tag", "t", "list", 'Name and optionally a tag in the "name:tag" format'),
        ("target", "", "string", "Set the target build stage to build"),
        ("ulimit", "", "list", "Ulimit options"),
    ),
    _build,
    least=1,
    most=1,
)

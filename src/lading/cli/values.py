"""The syntax of single container flags: ports, limits, labels, health. Each function fills in a body.

Every function takes (context, flags, config, host) and writes into the last two, so that `createbody` can call those that
are needed by name. Wrong values are UsageErrors that name the flag and show the right form.
"""

from __future__ import annotations

import _socket
import os

from lading.cli.createbody import environment as _expand
from lading.cli.flags import UsageError
from lading.cli.units import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lading.cli.context import Context
    from lading.cli.flags import Flags

    Body = dict[str, Any]

_PROTOCOLS = ("tcp", "udp", "sctp")
_FILE_LIMIT = 16 << 20


def wrong(flag: str, value: str, why: str) -> UsageError:
    return UsageError(f'invalid argument "{value}" for "--{flag}" flag: {why}')


def hosts(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--add-host NAME:IP or NAME=IP."""
    out = []
    for item in flags.many("add-host"):
        name, mark, address = item.partition("=")
        if not mark:
            name, mark, address = item.partition(":")
        if not name or not mark or not address:
            raise wrong("add-host", item, f"bad format for add-host: {item!r} (write NAME:IP)")
        out.append(f"{name}:{address.removeprefix('[').removesuffix(']')}")
    host["ExtraHosts"] = out


def pairs(flag: str, items: list[str], need_value: bool = False) -> dict[str, str]:
    """KEY=VALUE items as a mapping; a bare KEY has the value "" unless it needs one."""
    out = {}
    for item in items:
        key, mark, value = item.partition("=")
        if not key or (need_value and not mark):
            raise wrong(flag, item, "it is KEY=VALUE")
        out[key] = value
    return out


def maps(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--sysctl, --annotation and --storage-opt."""
    for flag, key in (("sysctl", "Sysctls"), ("annotation", "Annotations"), ("storage-opt", "StorageOpt")):
        if flags.given(flag):
            host[key] = pairs(flag, flags.many(flag), need_value=flag != "annotation")


def labels(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--label-file, then --label, which wins."""
    out: dict[str, str] = {}
    for path in flags.many("label-file"):
        out.update(pairs("label-file", read_lines(context, path)))
    out.update(pairs("label", flags.many("label")))
    config["Labels"] = out


def environment(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--env-file, before what -e gave."""
    out = []
    for path in flags.many("env-file"):
        for line in read_lines(context, path):
            name, mark, _ = line.partition("=")
            if not name or any(c.isspace() for c in name):
                raise UsageError(
                    f"poorly formatted environment file {path!r}: variable {name!r} is empty or holds a blank"
                )
            if mark or name in context.environ:
                out += _expand(context, [line])
    config["Env"] = out + config.get("Env", [])


def read_lines(context: Context, path: str) -> list[str]:
    """Lines of a file of NAME=VALUE that are neither blank nor comments."""
    try:
        with open(context.absolute(path) if path != "-" else 0, "rb") as file:
            data = file.read(_FILE_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"{path!r} cannot be read", why=f"{error.strerror}.") from None
    if len(data) > _FILE_LIMIT:
        raise UsageError(f"{path!r} is larger than {_FILE_LIMIT >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path!r} is not UTF-8 text", why=f"The byte at {error.start} is not.") from None
    lines = [line.lstrip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def ports(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--publish and --expose."""
    exposed: Body = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for item in flags.many("publish"):
        for port, binding in publish(item):
            exposed[port] = {}
            bindings.setdefault(port, []).append(binding)
    for item in flags.many("expose"):
        if ":" in item:
            raise wrong("expose", item, "invalid port format (write PORT, FIRST-LAST or PORT/udp)")
        span, protocol = _protocol("expose", item, item)
        first, last = _range("expose", item, span)
        for number in range(first, last + 1):
            exposed[f"{number}/{protocol}"] = {}
    config["ExposedPorts"] = exposed
    if bindings:
        host["PortBindings"] = bindings


def publish(item: str) -> list[tuple[str, dict[str, str]]]:
    """[[HOST-IP:][HOST-PORT[-LAST]]:]PORT[-LAST][/PROTOCOL] as (container port, binding) pairs."""
    if "=" in item:
        item = _long_publish(item)
    body, protocol = _protocol("publish", item, item)
    address = ""
    if body.startswith("["):
        address, _, body = body[1:].partition("]")
        if not body.startswith(":") or ":" not in address:
            raise wrong("publish", item, "invalid IPv6 address (write [ADDRESS]:HOST-PORT:PORT)")
        body = body[1:]
        parts = body.split(":")
    else:
        parts = body.split(":")
        if len(parts) > 2:
            address, parts = ":".join(parts[:-2]), parts[-2:]
    if len(parts) > 2 or (address and not _is_address(address)):
        raise wrong("publish", item, f"invalid IP address: {address or item}")
    inner = parts[-1]
    outer = parts[0] if len(parts) == 2 else ""
    if not inner:
        raise wrong("publish", item, f"no port specified: {item}<empty>")
    first, last = _range("publish", item, inner)
    if not outer:
        return [(f"{n}/{protocol}", {"HostIp": address, "HostPort": ""}) for n in range(first, last + 1)]
    low, high = _range("publish", item, outer)
    if high - low != last - first:
        if first != last:
            raise wrong(
                "publish", item, f"invalid ranges specified for container and host Ports: {inner} and {outer}"
            )
        return [(f"{first}/{protocol}", {"HostIp": address, "HostPort": f"{low}-{high}"})]
    return [
        (f"{first + n}/{protocol}", {"HostIp": address, "HostPort": str(low + n)})
        for n in range(last - first + 1)
    ]


def _long_publish(item: str) -> str:
    """target=80,published=8080,protocol=tcp[,mode=host] in the short form."""
    fields = dict(part.partition("=")[::2] for part in item.split(","))
    unknown = set(fields) - {"target", "published", "protocol", "mode"}
    if unknown or "target" not in fields:
        raise wrong("publish", item, f"invalid field {min(unknown)!r}" if unknown else "it needs target=PORT")
    short = f"{fields['published']}:{fields['target']}" if "published" in fields else fields["target"]
    return f"{short}/{fields.get('protocol', 'tcp')}"


def _protocol(flag: str, item: str, text: str) -> tuple[str, str]:
    body, mark, protocol = text.partition("/")
    protocol = protocol.lower() if mark else "tcp"
    if protocol not in _PROTOCOLS:
        raise wrong(flag, item, f"invalid proto: {protocol or '(empty)'} (write tcp, udp or sctp)")
    return body, protocol


def _range(flag: str, item: str, text: str) -> tuple[int, int]:
    first, mark, last = text.partition("-")
    last = last if mark else first
    for number in (first, last):
        if not (number.isascii() and number.isdigit() and len(number) < 6 and 0 <= int(number) <= 65535):
            raise wrong(flag, item, f"invalid port: {number!r} (a port is a number from 1 to 65535)")
    if int(last) < int(first):
        raise wrong(flag, item, f"invalid port range: {text}")
    return int(first), int(last)


def _is_address(text: str) -> bool:
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def fields(text: str) -> list[str]:
    """Comma-separated fields; one in double quotes may hold commas, and "" in it is a quote (RFC 4180)."""
    out, field, quoted, at = [], "", False, 0
    while at < len(text):
        char = text[at]
        if quoted and char == '"' and text[at + 1 : at + 2] == '"':
            field += char
            at += 1
        elif char == '"' and (quoted or not field):
            quoted = not quoted
        elif char == "," and not quoted:
            out.append(field)
            field = ""
        else:
            field += char
        at += 1
    return [*out, field]


def size_of(flag: str, item: str, text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise wrong(flag, item, str(error)) from None


def throttles(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--device-read-bps and its three sisters: PATH:RATE."""
    for way in ("read", "write"):
        for unit in ("bps", "iops"):
            flag = f"device-{way}-{unit}"
            out = []
            for item in flags.many(flag):
                path, mark, rate = item.rpartition(":")
                if not mark or not path.startswith("/dev/"):
                    raise wrong(flag, item, f"bad format: {item} (write /dev/NAME:RATE)")
                number = size_of(flag, item, rate) if unit == "bps" else _count(flag, item, rate)
                out.append({"Path": path, "Rate": number})
            if out:
                host[f"BlkioDevice{way.title()}{'Bps' if unit == 'bps' else 'IOps'}"] = out


def _count(flag: str, item: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise wrong(flag, item, f"invalid rate: {text!r} (write a whole number)")
    return int(text)


def ulimits(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--ulimit NAME=SOFT[:HARD]."""
    out = []
    for item in flags.many("ulimit"):
        name, mark, limits = item.partition("=")
        soft, _, hard = limits.partition(":")
        numbers = [number for number in (soft, hard or soft) if number.removeprefix("-").isdigit()]
        if not name or not mark or len(numbers) != 2:
            raise wrong("ulimit", item, f"invalid ulimit argument: {item} (write NAME=SOFT[:HARD])")
        low, high = int(numbers[0]), int(numbers[1])
        if high != -1 and (low > high or low == -1):
            raise wrong(
                "ulimit", item, f"ulimit soft limit must be less than or equal to hard limit: {low} > {high}"
            )
        out.append({"Name": name, "Soft": low, "Hard": high})
    host["Ulimits"] = out


def restart(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--restart no, always, unless-stopped, on-failure[:COUNT]."""
    item = flags.text("restart")
    name, mark, count = item.partition(":")
    if name not in ("", "no", "always", "unless-stopped", "on-failure"):
        from lading.cli.suggest import closest

        guess = closest(name, ("no", "always", "unless-stopped", "on-failure"))
        why = f"invalid restart policy: {name}" + (f" (did you mean {guess!r}?)" if guess else "")
        raise wrong("restart", item, why)
    if mark and (name != "on-failure" or not count.isdigit()):
        why = (
            "maximum retry count must be an integer"
            if name == "on-failure"
            else "only on-failure takes a retry count"
        )
        raise wrong("restart", item, f"invalid restart policy format: {why}")
    host["RestartPolicy"] = {"Name": name or "no", "MaximumRetryCount": int(count or 0)}


def health(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--health-* and --no-healthcheck."""
    given = [name for name in flags.values if name.startswith("health-")]
    if flags.on("no-healthcheck"):
        if given:
            raise UsageError("--no-healthcheck conflicts with --health-* options")
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    out: Body = {}
    if flags.text("health-cmd"):
        out["Test"] = ["CMD-SHELL", flags.text("health-cmd")]
    for flag, key in (
        ("health-interval", "Interval"),
        ("health-timeout", "Timeout"),
        ("health-start-period", "StartPeriod"),
        ("health-start-interval", "StartInterval"),
    ):
        nanoseconds = flags.duration(flag)
        if nanoseconds is not None:
            if nanoseconds < 0:
                raise UsageError(f"--{flag} cannot be negative")
            out[key] = nanoseconds
    retries = flags.integer("health-retries")
    if retries is not None:
        if retries < 0:
            raise UsageError("--health-retries cannot be negative")
        out["Retries"] = retries
    if out:
        config["Healthcheck"] = out


def logging(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--log-driver and --log-opt."""
    options = pairs("log-opt", flags.many("log-opt"), need_value=True)
    if flags.text("log-driver") == "none" and options:
        raise UsageError("invalid logging opts for driver none")
    host["LogConfig"] = {"Type": flags.text("log-driver"), "Config": options}


def security(context: Context, flags: Flags, config: Body, host: Body) -> None:
    """--security-opt; a seccomp profile is a file here and is sent as its content."""
    out = []
    for item in flags.many("security-opt"):
        mark = "=" if "=" in item else ":"
        key, _, value = item.partition(mark)
        if key == "systempaths" and value == "unconfined":
            host["MaskedPaths"], host["ReadonlyPaths"] = [], []
            continue
        if key == "seccomp" and value not in ("unconfined", "builtin", ""):
            value = _profile(context, item, value)
        if not value and key != "no-new-privileges":
            raise UsageError(f"invalid --security-opt: {item!r}")
        out.append(f"{key}={value}" if value else key)
    host["SecurityOpt"] = out


def _profile(context: Context, item: str, path: str) -> str:
    from lading.client.wire import dumps, loads

    try:
        with open(context.absolute(path), "rb") as file:
            data = file.read(_FILE_LIMIT)
    except OSError as error:
        raise UsageError(
            f"opening seccomp profile ({path}) failed", why=f"{os.strerror(error.errno or 0)}."
        ) from None
    try:
        return dumps(loads(data))
    except ValueError as error:
        raise UsageError(f"compacting json for seccomp profile ({path}) failed", why=f"{error}.") from None

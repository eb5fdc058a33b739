"""Tar headers: POSIX ustar with PAX extensions (pax(1), "pax Interchange Format"; tar(5)).

Owns the 512-byte block and the PAX records, both ways; knows nothing of layers or files on disk. Paths are
bytes, since file names are.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from lading.base import errors

BLOCK = 512
END = bytes(2 * BLOCK)

REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"

PAX = b"x"
PAX_GLOBAL = b"g"
GNU_LONG_NAME = b"L"
GNU_LONG_LINK = b"K"

XATTR = b"SCHILY.xattr."

_OCTAL_ID = 0o7777777
_OCTAL_SIZE = 0o77777777777
_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_NO_XATTRS: Mapping[bytes, bytes] = {}


class Header(NamedTuple):
    """One member of an archive. `name` has no leading or trailing slash when lading writes it; a read one is
    raw."""

    name: bytes
    type: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    linkname: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[bytes, bytes] = _NO_XATTRS


def pack(header: Header) -> bytes:
    """The header block, preceded by a PAX header where ustar cannot say it. Times are written in whole
    seconds.

    Whole seconds because a sub-second time needs a PAX header of 1 KiB per file, which no other builder
    writes.
    """
    name = header.name + b"/" if header.type == DIRECTORY else header.name
    link, prefix = header.linkname, b""
    uid, gid, size, mtime = header.uid, header.gid, header.size, header.mtime_ns // 1_000_000_000
    records: dict[bytes, bytes] = {}
    if len(name) > 100 or not name.isascii():
        prefix, short = _split(name)
        if short:
            name = short
        else:
            records[b"path"] = name
            name, prefix = _stand_in(name), b""
    if len(link) > 100 or not link.isascii():
        records[b"linkpath"] = link
        link = _stand_in(link)
    if not 0 <= uid <= _OCTAL_ID:
        records[b"uid"], uid = b"%d" % uid, 0
    if not 0 <= gid <= _OCTAL_ID:
        records[b"gid"], gid = b"%d" % gid, 0
    if size > _OCTAL_SIZE:
        records[b"size"], size = b"%d" % size, 0
    if not 0 <= mtime <= _OCTAL_SIZE:
        records[b"mtime"], mtime = b"%d" % mtime, 0
    for key, value in header.xattrs.items():
        records[XATTR + key] = value
    block = _block(
        name, prefix, header.mode, uid, gid, size, mtime, header.type, link, header.major, header.minor
    )
    return _pax(records) + block if records else block


def _block(
    name: bytes,
    prefix: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    kind: bytes,
    link: bytes,
    major: int,
    minor: int,
) -> bytes:
    block = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%bustar\x0000%b%07o\0%07o\0%b" % (
        name.ljust(100, b"\0"),
        mode & 0o7777,
        uid,
        gid,
        size,
        mtime,
        kind,
        link.ljust(100, b"\0"),
        bytes(64),
        major,
        minor,
        prefix.ljust(167, b"\0"),
    )
    # The checksum is the sum of all bytes. All of them are ASCII here, so the sum stays below adler32's
    # modulus 65521 and its low half, which is 1 + that sum, gives it fifteen times faster than sum() (RFC
    # 1950).
    return b"%b%06o\0 %b" % (block[:148], (zlib.adler32(block) & 0xFFFF) - 1, block[156:])


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Prefix and name for ustar; two empty strings where the path does not fit."""
    if len(name) > 256 or not name.isascii():
        return b"", b""
    cut = name.rfind(b"/", 0, 156)
    while cut > 0 and name.endswith(b"/") and cut == len(name) - 1:
        cut = name.rfind(b"/", 0, cut)
    if cut <= 0 or len(name) - cut - 1 > 100:
        return b"", b""
    return name[:cut], name[cut + 1 :]


def _stand_in(name: bytes) -> bytes:
    """What a reader that ignores PAX sees: the ASCII end of the path."""
    return bytes(byte if byte < 128 else 63 for byte in name[-100:]).lstrip(b"/")


def _pax(records: Mapping[bytes, bytes]) -> bytes:
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    block = _block(b"PaxHeaders.0/header", b"", 0o644, 0, 0, len(body), 0, PAX, b"", 0, 0)
    return block + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, where length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


_PADDING = [bytes(-size % BLOCK) for size in range(BLOCK)]


def padding(size: int) -> bytes:
    """The zero bytes that fill the last block of `size` bytes of data."""
    return _PADDING[size % BLOCK]


def parse(block: bytes) -> Header | None:
    """Read one header block; None for a block of zeros. Invalid where the checksum or a number is wrong."""
    name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, _, major, minor, prefix = (
        _FIELDS.unpack(block)
    )
    bare = block[:148] + b"        " + block[156:]
    if not checksum.strip(b"\0 "):
        if not any(block):
            return None
        raise errors.Invalid("archive is damaged: a header has no checksum")
    stored = _number(checksum, "checksum")
    if (stored + 1) % 65521 != zlib.adler32(bare) & 0xFFFF and stored != _signed_sum(bare):
        raise errors.Invalid("archive is damaged: a header's checksum is wrong")
    name = name.partition(b"\0")[0]
    if magic[:6] == b"ustar\0" and prefix[0]:
        name = prefix.partition(b"\0")[0] + b"/" + name
    is_device = kind in (CHARACTER, BLOCK_DEVICE)
    return Header(
        name,
        kind,
        _number(mode, "mode") & 0o7777,
        _number(uid, "uid"),
        _number(gid, "gid"),
        _number(size, "size"),
        _number(mtime, "mtime") * 1_000_000_000,
        link.partition(b"\0")[0],
        _number(major, "device") if is_device else 0,
        _number(minor, "device") if is_device else 0,
    )


def _signed_sum(block: bytes) -> int:
    """The checksum of some historic tars, which summed signed characters."""
    return sum(byte - 256 if byte > 127 else byte for byte in block)


def _number(field: bytes, what: str) -> int:
    """Octal text, or GNU's base-256 when the top bit is set (tar(5))."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:  # negative, two's complement over 8n-1 bits
            value -= 1 << (8 * len(field) - 1)
        if abs(value) >= 1 << 62 or (value < 0 and what != "mtime"):
            raise errors.Invalid(f"archive is damaged: the {what} of a header is out of range")
        return value
    text = field.partition(b"\0")[0].strip(b" ")
    if not text:
        return 0
    if text.strip(b"01234567"):
        raise errors.Invalid(f"archive is damaged: the {what} of a header is not octal")
    return int(text, 8)


def parse_records(data: bytes) -> dict[bytes, bytes]:
    """PAX records; Invalid where the lengths do not add up."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        end = at + length
        if length == 0 or end > len(data) or data[end - 1 : end] != b"\n":
            raise errors.Invalid("archive is damaged: a PAX record has a wrong length")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise errors.Invalid("archive is damaged: a PAX record has no key")
        records[key] = value
        at = end
    return records


def with_records(header: Header, records: Mapping[bytes, bytes]) -> Header:
    """`header` with what PAX records say instead; an empty value removes an override (pax(1))."""
    changes: dict[str, object] = {}
    xattrs: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(XATTR):
            xattrs[key[len(XATTR) :]] = value
        elif key.startswith(b"GNU.sparse."):
            raise errors.Unsupported("archive holds a sparse file", hint="Write it without tar's --sparse.")
        elif not value:
            continue
        elif key == b"path":
            changes["name"] = value
        elif key == b"linkpath":
            changes["linkname"] = value
        elif key in (b"uid", b"gid", b"size"):
            changes[key.decode()] = _decimal(value, key.decode())
        elif key == b"mtime":
            changes["mtime_ns"] = _time(value)
    if xattrs:
        changes["xattrs"] = xattrs
    return header._replace(**changes)  # type: ignore[arg-type]


def _decimal(value: bytes, what: str) -> int:
    if not value.isdigit() or len(value) > 19:
        raise errors.Invalid(f"archive is damaged: the PAX record {what} is no number")
    return int(value)


def _time(value: bytes) -> int:
    """Seconds with a fraction, as PAX writes times, in nanoseconds."""
    whole, _, fraction = value.partition(b".")
    digits = whole.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 12 or (fraction and not fraction.isdigit()):
        raise errors.Invalid("archive is damaged: the PAX record mtime is no time")
    ns = int(digits) * 1_000_000_000 + int((fraction + b"000000000")[:9])
    return -ns if whole.startswith(b"-") else ns

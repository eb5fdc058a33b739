"""Device rules on cgroup v2: a small eBPF program attached to the group (bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE).

Compiling is pure; `attach` is the only function that calls the kernel. The last rule that matches decides, so rules are
tested from the last to the first.
"""

from __future__ import annotations

import ctypes
import struct

from lading.linux import calls

if False:  # names for the type checker only; the OCI command line must not import typing
    from collections.abc import Iterable, Mapping
    from typing import Any

_PROG_LOAD, _PROG_ATTACH = 5, 8
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_ALLOW_MULTI = 2
_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}


def compile_rules(rules: Iterable[Mapping[str, Any]]) -> bytes:
    """The program: r2 type, r3 access, r4 major, r5 minor are loaded from struct bpf_cgroup_dev_ctx; r0 is the verdict."""
    code: list[bytes] = [
        _ins(0x61, 2, 1, 0),  # r2 = ctx->access_type
        _ins(0xBF, 3, 2),  # r3 = r2
        _ins(0x54, 2, 0, 0, 0xFFFF),  # r2 = type
        _ins(0x74, 3, 0, 0, 16),  # r3 = access
        _ins(0x61, 4, 1, 4),  # r4 = major
        _ins(0x61, 5, 1, 8),  # r5 = minor
    ]
    for rule in reversed(list(rules)):
        block: list[bytes] = []
        kind = rule.get("type") or "a"
        verdict = [_ins(0xB4, 0, 0, 0, 1 if rule.get("allow") else 0), _ins(0x95)]
        access = sum(_ACCESS[letter] for letter in set(rule.get("access") or "rwm"))
        if kind != "a":
            block.append(("jne", 2, _TYPES[kind]))  # type: ignore[arg-type]
        if access != 7:
            # An allowance must cover all that is asked; a denial hits when it covers some (devices.rst, "exceptions").
            check = ("jne-reg", 1, 3) if rule.get("allow") else ("jeq", 1, 0)
            block += [_ins(0xBC, 1, 3), _ins(0x54, 1, 0, 0, access), check]  # type: ignore[list-item]
        for register, key in ((4, "major"), (5, "minor")):
            if rule.get(key) not in (None, -1):
                block.append(("jne", register, rule[key]))  # type: ignore[arg-type]
        length = len(block) + len(verdict)
        for position, item in enumerate(block):
            offset = length - position - 1
            if isinstance(item, tuple):
                name, register, value = item
                if name == "jne-reg":
                    block[position] = _ins(0x5E, register, value, offset)
                else:
                    block[position] = _ins(0x56 if name == "jne" else 0x16, register, 0, offset, value)
        code += block + verdict
        if not block:  # it decides about everything; the verifier refuses what no path reaches
            return b"".join(code)
    code += [_ins(0xB4, 0, 0, 0, 0), _ins(0x95)]
    return b"".join(code)


def _ins(opcode: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", opcode, src << 4 | dst, offset, immediate)


def attach(cgroup_fd: int, program: bytes) -> None:
    """Load `program` and attach it to the group; the group then owns it. Raises OSError."""
    import os

    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    load = struct.pack(
        "=IIQQIIQI",
        _TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
    ).ljust(128, b"\0")
    fd = calls.check(calls.syscall(calls.number("bpf"), _PROG_LOAD, load, len(load)), "bpf(PROG_LOAD)")
    try:
        request = struct.pack("=IIII", cgroup_fd, fd, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI).ljust(128, b"\0")
        calls.check(
            calls.syscall(calls.number("bpf"), _PROG_ATTACH, request, len(request)), "bpf(PROG_ATTACH)"
        )
    finally:
        os.close(fd)

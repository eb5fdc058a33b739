"""From an OCI seccomp object to a classic BPF program. Pure: numbers in, bytes out; loading is linux.seccomp's.

A program begins by branching on the architecture; each architecture's section finds the system call by binary search
over ranges of equal outcome, so that a filter of 400 names costs about nine comparisons (seccomp(2), bpf in
Documentation/networking/filter.rst). Numbers above our tables get ENOSYS, which lets libraries fall back.
"""

from __future__ import annotations

import struct

from lading.base.errors import Invalid, Unsupported
from lading.linux.syscall_numbers import AUDIT_ARCH, numbers

if False:  # names for the type checker only; the command line must not import typing
    from collections.abc import Mapping, Sequence
    from typing import Any

    _Test = tuple[int, str, int, int]
    # A plain return value, or tests in order with the value of the first that holds; the default follows.
    _Outcome = int | tuple[tuple[tuple[_Test, ...], int], ...]

_LOAD, _JUMP, _JEQ, _JGT, _JGE, _AND, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16
_X32_BIT = 0x40000000
_ENOSYS = 38
_EPERM = 1

ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}  # fmt: skip
_NEW_LISTENER, _TSYNC_ESRCH = 8, 16
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
OPERATORS = {
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ",
}  # fmt: skip


class Program:
    """Instructions with labels; jumps are resolved when the bytes are taken."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int | str, int | str, int | str]] = []
        self._labels: dict[str, int] = {}
        self._fresh = 0

    def label(self) -> str:
        self._fresh += 1
        return f"L{self._fresh}"

    def mark(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def load(self, offset: int) -> None:
        self._code.append((_LOAD, 0, 0, offset))

    def ret(self, value: int) -> None:
        self._code.append((_RETURN, 0, 0, value))

    def mask(self, value: int) -> None:
        self._code.append((_AND, 0, 0, value))

    def jump(self, target: str) -> None:
        self._code.append((_JUMP, 0, 0, target))

    def unless(self, opcode: int, value: int, target: str) -> None:
        """Go to `target` when the comparison fails; conditional jumps reach 255 only, so a long jump stands behind."""
        self._code.append((opcode, 1, 0, value))
        self.jump(target)

    def when(self, opcode: int, value: int, target: str) -> None:
        """Go to `target` when the comparison holds."""
        self._code.append((opcode, 0, 1, value))
        self.jump(target)

    def assemble(self) -> bytes:
        """The program's bytes (struct sock_filter, 8 bytes each, native order). Raises Unsupported above 4096."""
        if len(self._code) > 4096:
            raise Unsupported(
                "the seccomp profile is too long",
                why=f"it needs {len(self._code)} instructions; the kernel takes 4096",
            )
        out = bytearray()
        for position, (opcode, true, false, k) in enumerate(self._code):
            value = self._labels[k] - position - 1 if isinstance(k, str) else k
            out += struct.pack("=HBBI", opcode, true, false, value & 0xFFFFFFFF)
        return bytes(out)


def action_value(action: str, errno_ret: int | None) -> int:
    """The 32-bit return value of an OCI action; Invalid for an unknown one."""
    try:
        value = ACTIONS[action]
    except KeyError:
        raise Invalid(f"unknown seccomp action {action!r}", hint=f"Known: {', '.join(ACTIONS)}.") from None
    if action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        value |= (_EPERM if errno_ret is None else errno_ret) & 0xFFFF
    return value


def compile_filter(profile: Mapping[str, Any], native: str) -> tuple[bytes, int]:
    """(program, filter flags) of the runtime specification's `linux.seccomp` for a machine whose architecture is `native`.

    Names unknown to an architecture are passed over there, as the specification's users expect. Raises Invalid for
    unknown actions, operators or flags. With `listenerPath` and a SCMP_ACT_NOTIFY rule the flags ask for a listener.
    """
    default = action_value(profile.get("defaultAction", "SCMP_ACT_ERRNO"), profile.get("defaultErrnoRet"))
    archs = [a for a in dict.fromkeys([native, *profile.get("architectures", [])]) if a in AUDIT_ARCH]
    flags = 0
    for name in profile.get("flags", []):
        if name not in FLAGS:
            raise Invalid(f"unknown seccomp flag {name!r}", hint=f"Known: {', '.join(FLAGS)}.")
        flags |= FLAGS[name]
    if _notifies(profile):
        flags |= _NEW_LISTENER | (_TSYNC_ESRCH if flags & FLAGS["SECCOMP_FILTER_FLAG_TSYNC"] else 0)
    newer = action_value("SCMP_ACT_ERRNO", _ENOSYS)
    if profile.get("defaultAction") in _PERMISSIVE:
        newer = default
    program = Program()
    program.load(_ARCH)
    for arch in archs:
        after = program.label()
        program.unless(_JEQ, AUDIT_ARCH[arch], after)
        program.load(_NR)
        if arch == "SCMP_ARCH_X86_64":
            native_abi = program.label()
            program.unless(_JGE, _X32_BIT, native_abi)
            program.ret(action_value("SCMP_ACT_ERRNO", _ENOSYS))
            program.mark(native_abi)
        _section(program, _outcomes(profile, arch, default), default, max(numbers(arch).values()), newer)
        program.mark(after)
    program.ret(action_value("SCMP_ACT_ERRNO", _ENOSYS))
    return program.assemble(), flags


def _outcomes(profile: Mapping[str, Any], arch: str, default: int) -> dict[int, _Outcome]:
    """What each system call number of `arch` that any rule names leads to."""
    table = numbers(arch)
    plain: dict[int, int] = {}
    tested: dict[int, list[tuple[tuple[_Test, ...], int]]] = {}
    for rule in profile.get("syscalls", []):
        value = action_value(rule.get("action", ""), rule.get("errnoRet"))
        tests = tuple(_test(argument) for argument in rule.get("args") or ())
        for name in rule.get("names", []):
            nr = table.get(name)
            if nr is None:
                continue
            if tests:
                tested.setdefault(nr, []).extend((group, value) for group in _alternatives(tests))
            elif value != default or nr not in plain:
                plain[nr] = value
    outcomes: dict[int, _Outcome] = dict(plain)
    for nr, cases in tested.items():
        if nr not in plain:  # a rule without arguments covers those with
            outcomes[nr] = tuple(cases)
    return outcomes


def _notifies(profile: Mapping[str, Any]) -> bool:
    """Whether anything asks a listener. The system calls that hand the listener over cannot wait for it themselves."""
    default = profile.get("defaultAction")
    if default == "SCMP_ACT_NOTIFY":
        raise Invalid("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default")
    named = {
        name
        for rule in profile.get("syscalls") or ()
        if rule.get("action") == "SCMP_ACT_NOTIFY"
        for name in rule.get("names") or ()
    }
    if named & {"sendmsg", "close"}:
        raise Invalid(
            "linux.seccomp.syscalls: sendmsg and close cannot be SCMP_ACT_NOTIFY",
            why="the process needs them to hand its listener over",
        )
    if named and not profile.get("listenerPath"):
        raise Invalid("linux.seccomp.listenerPath: SCMP_ACT_NOTIFY needs a listener")
    return bool(named)


def _test(argument: Mapping[str, Any]) -> _Test:
    index, operator = argument.get("index"), argument.get("op")
    if not isinstance(index, int) or not 0 <= index <= 5:
        raise Invalid(f"seccomp argument index {index!r} is not 0 to 5")
    if operator not in OPERATORS:
        raise Invalid(
            f"unknown seccomp operator {operator!r}", hint=f"Known: {', '.join(sorted(OPERATORS))}."
        )
    return index, operator, int(argument.get("value", 0)), int(argument.get("valueTwo", 0))


def _alternatives(tests: tuple[_Test, ...]) -> Sequence[tuple[_Test, ...]]:
    """Tests of different arguments must all hold; two of the same argument are alternatives (runc's reading of the
    specification) unless they narrow a range, which only our own profile writes (an inequality beside an order)."""
    indices = [test[0] for test in tests]
    if len(set(indices)) == len(indices) or any(test[1] == "SCMP_CMP_NE" for test in tests):
        return [tests]
    return [(test,) for test in tests]


def _section(program: Program, outcomes: dict[int, _Outcome], default: int, newest: int, newer: int) -> None:
    """Emit the search: ranges of equal outcome, halved until one is left; `newer` is for numbers above our tables."""
    ranges: list[tuple[int, _Outcome]] = []
    for nr in range(newest + 1):
        outcome = outcomes.get(nr, default)
        if not ranges or ranges[-1][1] != outcome:
            ranges.append((nr, outcome))
    ranges.append((newest + 1, newer))
    _search(program, ranges, default)


def _search(program: Program, ranges: Sequence[tuple[int, _Outcome]], default: int) -> None:
    if len(ranges) == 1:
        _emit(program, ranges[0][1], default)
        return
    middle = len(ranges) // 2
    left = program.label()
    program.unless(_JGE, ranges[middle][0], left)
    _search(program, ranges[middle:], default)
    program.mark(left)
    _search(program, ranges[:middle], default)


def _emit(program: Program, outcome: _Outcome, default: int) -> None:
    if isinstance(outcome, int):
        program.ret(outcome)
        return
    for tests, value in outcome:
        following = program.label()
        for index, operator, first, second in tests:
            _compare(program, index, operator, first, second, following)
        program.ret(value)
        program.mark(following)
    program.ret(default)


def _compare(program: Program, index: int, operator: str, first: int, second: int, fail: str) -> None:
    """Fall through when the 64-bit argument passes, else go to `fail`. Little-endian: the low word comes first."""
    low, high = _ARGS + 8 * index, _ARGS + 8 * index + 4
    value = second if operator == "SCMP_CMP_MASKED_EQ" else first
    value_low, value_high = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    ok = program.label()
    program.load(high)
    if operator == "SCMP_CMP_MASKED_EQ":
        program.mask(first >> 32 & 0xFFFFFFFF)
        program.unless(_JEQ, value_high, fail)
        program.load(low)
        program.mask(first & 0xFFFFFFFF)
        program.unless(_JEQ, value_low, fail)
    elif operator == "SCMP_CMP_EQ":
        program.unless(_JEQ, value_high, fail)
        program.load(low)
        program.unless(_JEQ, value_low, fail)
    elif operator == "SCMP_CMP_NE":
        program.unless(_JEQ, value_high, ok)
        program.load(low)
        program.when(_JEQ, value_low, fail)
    elif operator in ("SCMP_CMP_GT", "SCMP_CMP_GE"):
        program.when(_JGT, value_high, ok)
        program.unless(_JEQ, value_high, fail)
        program.load(low)
        program.unless(_JGT if operator == "SCMP_CMP_GT" else _JGE, value_low, fail)
    else:
        program.when(_JGT, value_high, fail)
        program.unless(_JEQ, value_high, ok)
        program.load(low)
        program.when(_JGE if operator == "SCMP_CMP_LT" else _JGT, value_low, fail)
    program.mark(ok)

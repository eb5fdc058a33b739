"""The filter assembler against an oracle: a BPF interpreter runs the program, plain Python reads the profile."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading.base.errors import Invalid
from lading.linux.syscall_numbers import AUDIT_ARCH, numbers
from lading.runtime.seccomp.assemble import action_value, compile_filter
from lading.runtime.seccomp.profile import default_profile

X64 = "SCMP_ARCH_X86_64"
ALLOW = action_value("SCMP_ACT_ALLOW", None)
EPERM = action_value("SCMP_ACT_ERRNO", 1)
ENOSYS = action_value("SCMP_ACT_ERRNO", 38)


def interpret(program: bytes, arch: str, nr: int, args: tuple[int, ...] = ()) -> int:
    """Run classic BPF over struct seccomp_data (little-endian)."""
    data = struct.pack("<IIQ6Q", nr, AUDIT_ARCH[arch], 0, *(tuple(args) + (0,) * 6)[:6])
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator = at = 0
    for _ in range(len(code) + 1):
        opcode, true, false, k = code[at]
        at += 1
        if opcode == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif opcode == 0x54:
            accumulator &= k
        elif opcode == 0x05:
            at += k
        elif opcode == 0x06:
            return k
        else:
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[opcode]
            at += true if holds else false
    raise AssertionError("the program does not end")


@pytest.fixture(scope="module")
def default() -> bytes:
    profile = default_profile({"CAP_CHOWN", "CAP_SYS_CHROOT"}, "x86_64")
    assert profile is not None
    return compile_filter(profile, X64)[0]


@pytest.mark.parametrize(
    "name", ["read", "execve", "openat", "clock_gettime", "statx", "futex", "chroot", "setuid"]
)
def test_everyday_calls_are_allowed(default: bytes, name: str) -> None:
    assert interpret(default, X64, numbers(X64)[name]) == ALLOW


DANGEROUS = """
mount umount2 pivot_root setns unshare bpf perf_event_open keyctl add_key request_key io_uring_setup
io_uring_enter userfaultfd init_module finit_module kexec_load reboot swapon open_by_handle_at
ptrace16 fsopen fsmount move_mount open_tree mount_setattr process_vm_writev kcmp acct settimeofday
quotactl
"""


@pytest.mark.parametrize("name", DANGEROUS.split())
def test_dangerous_calls_are_refused(default: bytes, name: str) -> None:
    args = (16,) if name == "ptrace16" else ()
    assert interpret(default, X64, numbers(X64)[name.removesuffix("16")], args) == EPERM


def test_calls_newer_than_the_tables_do_not_exist(default: bytes) -> None:
    newest = max(numbers(X64).values())
    assert interpret(default, X64, newest + 1) == ENOSYS
    assert interpret(default, X64, 0x40000000) == ENOSYS, "x32 is another way to the same calls"
    assert interpret(default, "SCMP_ARCH_AARCH64", 0) == ENOSYS


def test_clone_flags_and_families_are_looked_at(default: bytes) -> None:
    nr = numbers(X64)
    assert interpret(default, X64, nr["clone"], (0x1200011,)) == ALLOW
    for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x80):
        assert interpret(default, X64, nr["clone"], (0x11 | flag,)) == EPERM
    assert interpret(default, X64, nr["clone3"]) == ENOSYS
    families = {2: ALLOW, 10: ALLOW, 16: ALLOW, 17: ALLOW, 38: EPERM, 39: ALLOW, 40: EPERM, 41: ALLOW}
    for family, expected in families.items():
        assert interpret(default, X64, nr["socket"], (family,)) == expected
    assert interpret(default, X64, nr["personality"], (0xFFFFFFFF,)) == ALLOW
    assert interpret(default, X64, nr["personality"], (0x0040000,)) == EPERM  # ADDR_NO_RANDOMIZE
    assert interpret(default, X64, nr["ptrace"], (0,)) == ALLOW
    assert interpret(default, X64, nr["ptrace"], (0x4206,)) == EPERM


def test_a_capability_opens_its_calls() -> None:
    profile = default_profile({"CAP_SYS_ADMIN"}, "x86_64")
    assert profile is not None
    program, _ = compile_filter(profile, X64)
    for name in ("mount", "unshare", "clone", "clone3", "setns"):
        assert interpret(program, X64, numbers(X64)[name], (0x10000000,)) == ALLOW
    assert interpret(program, X64, numbers(X64)["init_module"]) == EPERM


def test_32_bit_programs_run_under_the_same_rules(default: bytes) -> None:
    x86 = numbers("SCMP_ARCH_X86")
    assert interpret(default, "SCMP_ARCH_X86", x86["execve"]) == ALLOW
    assert interpret(default, "SCMP_ARCH_X86", x86["mount"]) == EPERM


_OPS = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
]
_WORDS = st.one_of(
    st.integers(0, 5), st.integers(0, 2**64 - 1), st.sampled_from([2**32 - 1, 2**32, 2**63, 7 << 32])
)


def _holds(test: dict[str, Any], args: tuple[int, ...]) -> bool:
    actual, value = args[test["index"]], test["value"]
    return {
        "SCMP_CMP_NE": actual != value,
        "SCMP_CMP_LT": actual < value,
        "SCMP_CMP_LE": actual <= value,
        "SCMP_CMP_EQ": actual == value,
        "SCMP_CMP_GE": actual >= value,
        "SCMP_CMP_GT": actual > value,
        "SCMP_CMP_MASKED_EQ": actual & value == test["valueTwo"],
    }[test["op"]]


@settings(max_examples=300, deadline=None)
@given(
    tests=st.lists(
        st.fixed_dictionaries(
            {"index": st.integers(0, 5), "op": st.sampled_from(_OPS), "value": _WORDS, "valueTwo": _WORDS}
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda test: test["index"],
    ),
    args=st.tuples(*[_WORDS] * 6),
)
def test_argument_comparisons_agree_with_arithmetic(
    tests: list[dict[str, Any]], args: tuple[int, ...]
) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": tests}],
    }
    program, _ = compile_filter(profile, X64)
    expected = ALLOW if all(_holds(test, args) for test in tests) else EPERM
    assert interpret(program, X64, numbers(X64)["ioctl"], args) == expected
    for near in range(4):  # the exact values are where comparisons go wrong
        edge = tuple(
            tests[0]["value"] + near - 1 & (2**64 - 1) if i == tests[0]["index"] else a
            for i, a in enumerate(args)
        )
        expected = ALLOW if all(_holds(test, edge) for test in tests) else EPERM
        assert interpret(program, X64, numbers(X64)["ioctl"], edge) == expected


@settings(max_examples=50, deadline=None)
@given(st.sets(st.sampled_from(sorted(numbers(X64)))), st.sets(st.sampled_from(sorted(numbers(X64)))))
def test_every_number_gets_its_own_action(allowed: set[str], logged: set[str]) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "syscalls": [
            {"names": sorted(allowed - logged), "action": "SCMP_ACT_ALLOW"},
            {"names": sorted(logged), "action": "SCMP_ACT_LOG"},
        ],
    }
    program, _ = compile_filter(profile, X64)
    for name, nr in numbers(X64).items():
        action = (
            "SCMP_ACT_LOG"
            if name in logged
            else "SCMP_ACT_ALLOW"
            if name in allowed
            else "SCMP_ACT_KILL_PROCESS"
        )
        assert interpret(program, X64, nr) == action_value(action, None), name


@pytest.mark.parametrize(
    ("profile", "kind"),
    [
        ({"defaultAction": "SCMP_ACT_MAYBE"}, Invalid),
        ({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]}, Invalid),
        ({"syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}, Invalid),
        ({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/l"}, Invalid),
        ({"listenerPath": "/l", "syscalls": [{"names": ["sendmsg"], "action": "SCMP_ACT_NOTIFY"}]}, Invalid),
        (
            {
                "syscalls": [
                    {
                        "names": ["read"],
                        "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 6, "op": "SCMP_CMP_EQ"}],
                    }
                ]
            },
            Invalid,
        ),
        (
            {
                "syscalls": [
                    {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "=="}]}
                ]
            },
            Invalid,
        ),
    ],
)
def test_malformed_profiles_are_refused(profile: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        compile_filter(profile, X64)

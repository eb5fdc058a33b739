"""The C library's heap: mallopt(3) and malloc_trim(3). Both are glibc's; other C libraries need neither."""

from __future__ import annotations

from lading.linux import calls

_M_ARENA_MAX = -8


def few_arenas(count: int) -> None:
    """Let threads share `count` heaps; glibc's default of eight a CPU keeps each one's peak for good."""
    if hasattr(calls.libc, "mallopt"):
        calls.libc.mallopt(_M_ARENA_MAX, count)


def trim() -> None:
    """Give freed memory back to the kernel."""
    if hasattr(calls.libc, "malloc_trim"):
        calls.libc.malloc_trim(0)

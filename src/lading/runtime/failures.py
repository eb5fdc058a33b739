"""From (step, errno, detail) of a failed start to an error a user can act on. Owns the words and the exit codes."""

from __future__ import annotations

import errno
import os

from lading.base.errors import Denied, Internal, Invalid, LadingError, NotFound, Unavailable, Unsupported

_STEPS = {
    "overlay": "the root file system could not be mounted",
    "bind_root": "the root file system could not be mounted",
    "userns": "the user namespace could not be set up",
    "tree_root": "the root file system could not be mounted",
    "bind_fd": "a bind mount could not be made",
    "propagate": "the mount namespace could not be set up",
    "mount": "a mount could not be made",
    "bind": "a bind mount could not be made",
    "remount": "a mount's options could not be set",
    "device": "a device node could not be made",
    "mkdir": "a directory could not be made in the container",
    "sysctl": "a sysctl could not be set",
    "console": "no terminal could be opened in the container",
    "masked_path": "a path could not be masked",
    "readonly_path": "a path could not be made read-only",
    "pivot": "the root file system could not be entered",
    "root_readonly": "the root file system could not be made read-only",
    "cwd": "the working directory could not be entered",
    "rlimits": "a resource limit could not be set",
    "user": "the user could not be changed",
    "scheduler": "the process's scheduling could not be set",
    "label": "the security label could not be set",
    "attributes": "a mount's recursive options could not be set",
    "deep_readonly": "a mount's recursive options could not be set",
    "bind_mapped": "an id-mapped mount could not be made",
    "copy_up": "a tmpfs could not be filled with the image's files",
    "createRuntime": "a prestart or createRuntime hook failed",
    "createContainer": "a createContainer hook failed",
    "startContainer": "a startContainer hook failed",
    "poststart": "a poststart hook failed",
    "seccomp": "the seccomp filter could not be loaded",
    "no_new_privileges": "no_new_privs could not be set",
    "monitor": "the container could not be set up",
    "setup": "the container could not be set up",
}


def start_error(step: str, code: int, detail: bytes) -> LadingError:
    """The error for a failed start; its `exit_code` is 127 or 126 when the command itself is at fault, else 125."""
    what = detail.decode("utf-8", "replace")
    if step == "exec":
        return _exec_error(code, what)
    reason = os.strerror(code) if code else "" if what else "it ended without a word"
    sentence = _STEPS.get(step, f"step {step} failed")
    if what:
        sentence += f" ({what})"
    kind, hint = _kind(step, code)
    return kind(sentence, why=reason, hint=hint)


def _exec_error(code: int, command: str) -> LadingError:
    error: LadingError
    if code == errno.ENOENT:
        searched = "/" not in command
        error = NotFound(
            f'exec: "{command}": '
            + ("executable file not found in $PATH" if searched else "no such file or directory"),
            hint="Check the command's spelling and that the image contains it"
            + ("." if searched else " and the interpreter its first line or its ELF header names."),
        )
        error.exit_code = 127
        return error
    words = {
        errno.EACCES: (
            "permission denied",
            "Make the file executable (chmod +x); a directory cannot be run.",
        ),
        errno.ENOEXEC: (
            "exec format error",
            "It is for another architecture, or a script without a #! line.",
        ),
        errno.E2BIG: ("the arguments and environment are too long", "Pass them in a file."),
        errno.EISDIR: ("is a directory", "Name a program."),
    }
    text, hint = words.get(code, (os.strerror(code), "See execve(2) for what this error means."))
    error = Invalid(f'exec: "{command}": {text}', hint=hint)
    error.exit_code = 126
    return error


def _kind(step: str, code: int) -> tuple[type[LadingError], str]:
    if code in (errno.EPERM, errno.EACCES):
        return (
            Denied,
            "lading needs root (or a user namespace) with CAP_SYS_ADMIN for this; see `lading info`.",
        )
    if code in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable, "The disk is full: `lading system prune` frees what is unused."
    if code in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN):
        return Unavailable, "The host is out of this resource; stop something, or raise the limit."
    if code in (errno.ENODEV, errno.ENOSYS, errno.EOPNOTSUPP):
        return Unsupported, "This kernel lacks what the option needs."
    if step in ("bind", "cwd", "mkdir", "mount", "device") and code in (
        errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.EEXIST, errno.EROFS,
    ):  # fmt: skip
        return (
            Invalid,
            "Check that the path exists, on the host for a source and as a directory or file for a target.",
        )
    if step in ("createContainer", "startContainer"):
        return Invalid, "Run the hook by hand with the container's state on its standard input."
    if step in ("sysctl", "scheduler", "label", "rlimits", "user", "cwd"):
        return Invalid, "Give a value this host accepts."
    return Internal, "Please report this with the output of `lading info`."

"""crypt(3): password hashes as the C library's libcrypt knows them (bcrypt, yescrypt, SHA-512). Holds no policy.

Python's own `crypt` module left the standard library in 3.13 (PEP 594).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import functools

_DATA = 256 << 10  # larger than any libcrypt's struct crypt_data; glibc's own is 131,232 bytes


@functools.cache
def _library() -> ctypes.CDLL | None:
    for name in ("libcrypt.so.1", "libcrypt.so.2", ctypes.util.find_library("crypt")):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library is not None and hasattr(library, "crypt_r"):
            library.crypt_r.restype = ctypes.c_char_p
            library.crypt_r.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
            return library
    return None


def crypt(phrase: bytes, setting: bytes) -> bytes:
    """The hash of `phrase` by the method and salt in `setting` (crypt_r(3), so any number of threads may call).

    OSError ENOSYS where there is no libcrypt, EINVAL where it does not know the method.
    """
    library = _library()
    if library is None:
        raise OSError(errno.ENOSYS, "this system has no libcrypt")
    data = ctypes.create_string_buffer(_DATA)
    made = library.crypt_r(phrase, setting, data)
    if not isinstance(made, bytes) or made.startswith(
        b"*"
    ):  # crypt(5): a failure token begins with an asterisk
        raise OSError(errno.EINVAL, "libcrypt does not know this method")
    return made

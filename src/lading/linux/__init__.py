"""Floor 0: one file per family of system calls, by ctypes. No policy: every function is one kernel call or nearly so.

Failures raise OSError carrying the call's name and the path, so that a room can translate once at its border.
"""

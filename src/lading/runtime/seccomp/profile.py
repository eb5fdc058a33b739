"""The default filter, as an OCI seccomp object. Owns the list of what a container may call; never touches BPF.

Deny by default: what is not listed gets EPERM, and a number newer than our tables gets ENOSYS (see `assemble`), so that
libraries fall back. Calls whose danger a capability already guards are allowed only to containers that hold it. Against
the profiles of the trusted engines ours also refuses io_uring, userfaultfd, keyrings, attaching a tracer to another
process, and the module, swap, reboot, kexec, accounting and obsolete calls without exception.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from lading.linux.syscall_numbers import NATIVE

_ALLOWED = """
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 sendfile sendfile64 splice tee vmsplice
copy_file_range open openat openat2 creat close close_range dup dup2 dup3 pipe pipe2 fcntl fcntl64 flock ioctl lseek
_llseek stat stat64 fstat fstat64 lstat lstat64 newfstatat fstatat64 statx statfs statfs64 fstatfs fstatfs64 access
faccessat faccessat2 readlink readlinkat getdents getdents64 readdir chdir fchdir getcwd mkdir mkdirat rmdir unlink
unlinkat rename renameat renameat2 link linkat symlink symlinkat mknod mknodat chmod fchmod fchmodat fchmodat2 chown
chown32 fchown fchown32 lchown lchown32 fchownat umask truncate truncate64 ftruncate ftruncate64 fallocate fadvise64
fadvise64_64 readahead sync fsync fdatasync syncfs sync_file_range utime utimes utimensat utimensat_time64 futimesat
setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr
fremovexattr setxattrat getxattrat listxattrat removexattrat name_to_handle_at cachestat file_getattr
inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark
poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime
timerfd_settime64 timerfd_gettime timerfd_gettime64
mmap mmap2 munmap mremap mprotect pkey_alloc pkey_free pkey_mprotect brk madvise mincore msync mlock
mlock2 mlockall munlock munlockall memfd_create memfd_secret remap_file_pages membarrier map_shadow_stack mseal
fork vfork execve execveat exit exit_group wait4 waitid waitpid kill tkill tgkill pause
getpid getppid gettid getpgid getpgrp setpgid getsid setsid set_tid_address pidfd_open pidfd_send_signal
getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 setuid setuid32 setgid setgid32 setreuid setreuid32
setregid setregid32 setresuid setresuid32 getresuid getresuid32 setresgid setresgid32 getresgid getresgid32 setfsuid
setfsuid32 setfsgid setfsgid32 getgroups getgroups32 setgroups setgroups32 capget capset prctl arch_prctl
rt_sigaction rt_sigprocmask rt_sigpending rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaction sigprocmask sigpending sigsuspend sigreturn sigaltstack signal
restart_syscall process_mrelease
futex futex_time64 futex_waitv futex_wake futex_wait futex_requeue set_robust_list get_robust_list rseq
sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler sched_setscheduler
sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval
sched_rr_get_interval_time64 getpriority setpriority nice ioprio_get ioprio_set getcpu
getrlimit ugetrlimit setrlimit prlimit64 getrusage times sysinfo uname
time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep
clock_nanosleep_time64 nanosleep getitimer setitimer alarm timer_create timer_settime timer_settime64 timer_gettime
timer_gettime64 timer_getoverrun timer_delete clock_adjtime clock_adjtime64 adjtimex
socketpair bind listen accept accept4 connect getsockname getpeername sendto recvfrom sendmsg recvmsg
sendmmsg recvmmsg recvmmsg_time64 send recv shutdown setsockopt getsockopt
shmget shmat shmdt shmctl semget semop semtimedop semtimedop_time64 semctl msgget msgsnd msgrcv msgctl ipc
mq_open mq_unlink mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64 mq_notify mq_getsetattr
io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64
getrandom seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
modify_ldt set_thread_area get_thread_area
lsm_get_self_attr lsm_list_modules
"""

_BY_CAPABILITY = {
    "CAP_SYS_ADMIN": """
        mount umount umount2 mount_setattr move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick pivot_root
        setns unshare clone clone3 bpf perf_event_open fanotify_init quotactl quotactl_fd sethostname setdomainname
        syslog lookup_dcookie statmount listmount file_setattr
    """,
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_NICE": "mbind get_mempolicy set_mempolicy set_mempolicy_home_node move_pages migrate_pages",
    "CAP_SYS_PTRACE": "ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_PACCT": "acct",
}

_NAMESPACES = 0x7E020080  # every CLONE_NEW* flag of clone(2)
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # Linux, LINUX32, UNAME26, both, and "tell me"
_ENOSYS = 38


def default_profile(capabilities: Collection[str], machine: str) -> dict[str, Any] | None:
    """The filter for a container that holds `capabilities` ("CAP_..."), as the runtime specification's seccomp object.

    None on a machine whose system call numbers lading does not know: the engine then says that no filter is on.
    """
    native = NATIVE.get(machine)
    if native is None:
        return None
    names = set(_ALLOWED.split())
    for capability, text in _BY_CAPABILITY.items():
        if capability in capabilities:
            names.update(text.split())
    rules: list[dict[str, Any]] = [{"names": sorted(names), "action": "SCMP_ACT_ALLOW"}]
    for value in _PERSONALITIES:
        rules.append(_rule("personality", "SCMP_ACT_ALLOW", (0, value, "SCMP_CMP_EQ", 0)))
    # AF_ALG (38) and AF_VSOCK (40) reach kernel code and the hypervisor past every namespace.
    rules.append(_rule("socket", "SCMP_ACT_ALLOW", (0, 38, "SCMP_CMP_LT", 0)))
    rules.append(_rule("socket", "SCMP_ACT_ALLOW", (0, 39, "SCMP_CMP_EQ", 0)))
    rules.append(_rule("socket", "SCMP_ACT_ALLOW", (0, 40, "SCMP_CMP_GT", 0)))
    if "clone" not in names:
        rules.append(_rule("clone", "SCMP_ACT_ALLOW", (0, _NAMESPACES, "SCMP_CMP_MASKED_EQ", 0)))
        # A filter cannot see clone3's flags, which lie behind a pointer; ENOSYS makes the C library use clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    if "ptrace" not in names:
        # PTRACE_ATTACH (16) and PTRACE_SEIZE (0x4206) take another process; debuggers that start their own still work.
        rules.append(_rule("ptrace", "SCMP_ACT_ALLOW", (0, 16, "SCMP_CMP_LT", 0)))
        rules.append(
            _rule("ptrace", "SCMP_ACT_ALLOW", (0, 16, "SCMP_CMP_GT", 0), (0, 0x4206, "SCMP_CMP_NE", 0))
        )
    architectures = [native] + (["SCMP_ARCH_X86"] if machine == "x86_64" else [])
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": architectures,
        "syscalls": rules,
    }


def _rule(name: str, action: str, *args: tuple[int, int, str, int]) -> dict[str, Any]:
    """One rule; each argument test is (index, value, operator, second value), the mask being the first for MASKED_EQ."""
    return {
        "names": [name],
        "action": action,
        "args": [{"index": i, "value": v, "op": op, "valueTwo": two} for i, v, op, two in args],
    }

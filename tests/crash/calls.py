# SPDX-License-Identifier: Apache-2.0
"""System calls by name and number, and where the kernel of each architecture keeps them in a stopped process."""

from typing import NamedTuple

# Names of calls, with their numbers on x86-64 and arm64; None where there is no such call. Those that Python and SQLite
# make on files, and those that a reader of a failed test wants to see by name; others are shown as numbers.
NUMBERS: dict[str, tuple[int | None, int]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "ioctl": (16, 29),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "dup": (32, 23),
    "getpid": (39, 172),
    "sendfile": (40, 71),
    "fcntl": (72, 25),
    "flock": (73, 32),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "getcwd": (79, 17),
    "fchmod": (91, 52),
    "fchown": (93, 55),
    "geteuid": (107, 175),
    "gettid": (186, 178),
    "futex": (202, 98),
    "getdents64": (217, 61),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "openat": (257, 56),
    "mkdirat": (258, 34),
    "newfstatat": (262, 79),
    "unlinkat": (263, 35),
    "renameat": (264, 38),
    "linkat": (265, 37),
    "faccessat": (269, 48),
    "fallocate": (285, 47),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "renameat2": (316, 276),
    "getrandom": (318, 278),
    "copy_file_range": (326, 285),
    "preadv2": (327, 286),
    "pwritev2": (328, 287),
    "statx": (332, 291),
    "faccessat2": (439, 439),
}
X86_ONLY = {
    "open": 2,
    "stat": 4,
    "lstat": 6,
    "access": 21,
    "rename": 82,
    "mkdir": 83,
    "rmdir": 84,
    "creat": 85,
    "link": 86,
    "unlink": 87,
    "readlink": 89,
    "chmod": 90,
}

# What a full or broken disk can refuse. A file that is made needs room as well: see ptrace.py for openat. Removing
# one is how SQLite commits, and a copy-on-write filesystem needs room even for that.
WRITES = frozenset(
    (
        *("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "copy_file_range"),
        *("truncate", "ftruncate", "fallocate", "fsync", "fdatasync"),
        *("mkdir", "mkdirat", "creat", "link", "linkat", "rename", "renameat", "renameat2", "unlink", "unlinkat"),
    )
)
ALLOCATOR = frozenset({"brk", "mmap", "mprotect", "munmap", "mremap", "madvise"})
# The writes that Tear can cut in half: their third argument is the number of bytes.
COUNTED = frozenset({"write", "pwrite64"})


class Registers(NamedTuple):
    """Where a kernel keeps a system call, as indices into the 64-bit words of its register set NT_PRSTATUS.

    The calls themselves are read with PTRACE_GET_SYSCALL_INFO, which is the same everywhere; to change one is not.
    `number` is None where the number of the call is a register set of its own.
    """

    audit: int  # AUDIT_ARCH_…, as the kernel names the architecture of a call
    words: int
    number: int | None
    third: int
    result: int
    calls: dict[int, str]


REGISTERS = {
    # struct user_regs_struct: orig_rax is word 15, rdx 12, rax 10.
    "x86_64": Registers(
        audit=0xC000003E,
        words=27,
        number=15,
        third=12,
        result=10,
        calls={
            **{numbers[0]: name for name, numbers in NUMBERS.items() if numbers[0] is not None},
            **{number: name for name, number in X86_ONLY.items()},
        },
    ),
    # struct user_pt_regs: x0 to x30, sp, pc, pstate. x8 has the number, but the kernel has read it by then.
    "aarch64": Registers(
        audit=0xC00000B7,
        words=34,
        number=None,
        third=2,
        result=0,
        calls={numbers[1]: name for name, numbers in NUMBERS.items()},
    ),
}

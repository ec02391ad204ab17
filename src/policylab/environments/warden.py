"""The inner half of the sandbox: a script of its own that locks itself in and then starts the program. Never imported.

Started as `python -I -S warden.py STATUS`, it reads a JSON order from standard input and writes one JSON line to the file
descriptor STATUS: `{"refused": why}` if any wall could not be put up (then nothing was started), else how the program ended.
Walls, in this order: namespaces of its own for mounts, processes, network, IPC and names (through a user namespace where we are
not root); a root file system of which only the interpreter, its libraries (read-only) and an empty folder in memory can be seen;
resource limits; an unprivileged user without capabilities; a filter of system calls. The program is a child of process 1 of its
namespace, so that nothing it starts outlives it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import struct
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_SPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # mounts, names, IPC, processes, network
NEW_USER, NEW_ANY = 0x10000000, 0x7E020000
READ_ONLY, NO_SET_USER, NO_DEVICES, NO_EXECUTION, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
FOLDER = "/room"

# System calls that a program has no business with, as numbers on (x86_64, aarch64); refused with EPERM. Beside what would touch
# the machine these are calls whose memory no resource limit counts (shared memory, anonymous files, io_uring).
REFUSED = {
    "socket": (41, 198), "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "ptrace": (101, 117), "syslog": (103, 116), "personality": (135, 92), "pivot_root": (155, 41), "chroot": (161, 51),
    "acct": (163, 89), "settimeofday": (164, 170), "mount": (165, 40), "umount2": (166, 39), "swapon": (167, 224),
    "swapoff": (168, 225), "reboot": (169, 142), "sethostname": (170, 161), "setdomainname": (171, 162),
    "init_module": (175, 105), "delete_module": (176, 106), "quotactl": (179, 60), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "unshare": (272, 97), "vmsplice": (278, 75), "move_pages": (279, 239),
    "perf_event_open": (298, 241), "fanotify_init": (300, 262), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "setns": (308, 268), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "finit_module": (313, 273), "memfd_create": (319, 279), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "bpf": (321, 280), "userfaultfd": (323, 282), "adjtimex": (159, 171), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    **{f"io_uring {n}": (n, n) for n in (425, 426, 427)}, **{f"mounting {n}": (n, n) for n in (428, 429, 430, 431, 432, 433, 442)},
    "pidfd_getfd": (438, 438), "quotactl_fd": (443, 443), "memfd_secret": (447, 447),
}  # fmt: skip
CLONE, CLONE3 = (56, 220), 435
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class Refused(Exception):
    """A wall that could not be put up."""


def call(what: str, result: int) -> None:
    """Raise `Refused` if a call of the C library failed."""
    if result != 0:
        raise Refused(f"{what} failed ({os.strerror(ctypes.get_errno())})")


def enter_spaces() -> int:
    """Move into namespaces of our own; returns the user number that the program will have."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        call("making namespaces", LIBC.unshare(NEW_SPACES))
        return 0x70000000 + os.getpid()  # a user of its own, so that its limit of processes counts no one else's
    call("making a user namespace", LIBC.unshare(NEW_SPACES | NEW_USER))
    for name, line in (("setgroups", "deny"), ("uid_map", f"65534 {user} 1"), ("gid_map", f"65534 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
    return 65534


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2) with its failure as a sentence."""
    call(f"mounting {target}", LIBC.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()))


def build_root(visible: list[list[str]], files: dict[str, str], room: int) -> None:
    """A root where `visible` (path outside, path inside) can be read and one folder in memory, of `room` bytes, can be written."""
    base = next(
        (
            place
            for place in ("/tmp", "/var/tmp", "/mnt", "/srv", "/run")
            if os.path.isdir(place)
            and not os.path.islink(place)
            and not any(f"{path}/".startswith(f"{place}/") for path, _ in visible)
        ),
        "",
    )
    if not base:
        raise Refused("there is no folder such as /tmp or /mnt to build the new root in")
    mount("none", "/", "", RECURSIVE | PRIVATE)
    mount("tmpfs", base, "tmpfs", NO_SET_USER | NO_DEVICES, "size=1m,nr_inodes=4096,mode=755")
    for path, shown in visible:
        target = base + shown
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), target)
            continue
        if os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
        else:
            open(target, "w").close()
        mount(path, target, "", BIND | RECURSIVE)
        read_only(target)
    os.makedirs(base + FOLDER)
    mount("tmpfs", base + FOLDER, "tmpfs", NO_SET_USER | NO_DEVICES | NO_EXECUTION, f"size={room},nr_inodes=1024,mode=777")
    for name, text in files.items():
        with open(f"{base}{FOLDER}/{name}", "w") as file:
            file.write(text)
    read_only(base, recursive=False)
    os.chdir(base)
    pivot_root = {"x86_64": 155, "aarch64": 41}[platform.machine()]
    call("changing the root", LIBC.syscall(pivot_root, b".", b"."))  # the old root lies over the new one ...
    call("leaving the old root", LIBC.umount2(b".", 2))  # ... and is taken away
    os.chdir(FOLDER)


def read_only(path: str, *, recursive: bool = True) -> None:
    """Make a mount, and all mounts below it, read-only (mount_setattr, Linux 5.12)."""
    attributes = struct.pack("QQQQ", READ_ONLY | NO_SET_USER | NO_DEVICES, 0, 0, 0)
    at_recursive = 0x8000 if recursive else 0
    call(f"making {path} read-only", LIBC.syscall(442, -100, path.encode(), at_recursive, attributes, len(attributes)))


def limit(seconds: float, memory: int, processes: int, room: int, guards: int) -> None:
    """The resource limits of each process; `memory` is divided among the `processes`, beside which our own `guards` count."""
    for what, most in (
        (resource.RLIMIT_AS, memory // processes), (resource.RLIMIT_CPU, int(seconds) + 1), (resource.RLIMIT_FSIZE, room),
        (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_NPROC, processes + guards), (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0), (resource.RLIMIT_MSGQUEUE, 0),
    ):  # fmt: skip
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def drop_rights(user: int) -> None:
    """Become `user` for good, without any capability."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header, nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)
    call("dropping capabilities", LIBC.capset(header, nothing))
    call("giving up new privileges", LIBC.prctl(38, 1, 0, 0, 0))


def filter_calls() -> None:
    """Install the filter of system calls; another architecture's calls kill the process."""
    column, architecture = ARCHITECTURES[platform.machine()]
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    kill, allow, refuse, absent = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
    steps = [(load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, kill), (load, 0, 0, 0)]
    steps += [(at_least, 0, 1, 0x40000000), (answer, 0, 0, kill)]
    for numbers in REFUSED.values():
        steps += [(equal, 0, 1, numbers[column]), (answer, 0, 0, refuse)]
    steps += [(equal, 0, 1, CLONE3), (answer, 0, 0, absent)]  # the C library then uses clone, whose flags can be read here
    steps += [(equal, 0, 3, CLONE[column]), (load, 0, 0, 16), (any_bit, 0, 1, NEW_ANY), (answer, 0, 0, refuse)]
    steps += [(answer, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code))
    call("filtering system calls", LIBC.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0))


def inside(order: dict, user: int, standard_input: int, started: int) -> None:
    """Process 1 of the namespace: puts up the walls, starts the program and ends as it ends."""
    try:
        build_root(order["visible"], order["files"], order["room"])
        os.setsid()
        drop_rights(user)
        LIBC.prctl(4, 0, 0, 0, 0)  # nobody may look into this process,
        LIBC.prctl(1, int(signal.SIGKILL), 0, 0, 0)  # which dies with the one that keeps the time
        guards = 2 if user == 65534 else 1  # process 1, and in a user namespace the one that keeps the time
        limit(order["seconds"], order["memory"], order["processes"], order["room"], guards)
        filter_calls()
        child = os.fork()
    except (Refused, OSError, ValueError) as wall:
        os.write(started, str(wall).encode())
        os._exit(125)
    if child == 0:
        try:
            os.dup2(
                standard_input, 0
            )  # of all else that is open only 1 and 2 pass to the program: Python opens for itself alone
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.execve(order["command"][0], order["command"], order["environment"])
        except OSError as problem:
            os.write(started, f"starting {order['command'][0]} failed ({problem.strerror})".encode())
            os._exit(125)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for descriptor in (1, 2, started):
        os.close(descriptor)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def main() -> None:
    """Read the order, start process 1, keep the time, and tell how it ended once everything inside is dead."""
    report = int(sys.argv[1])
    os.set_inheritable(report, False)
    order = json.load(sys.stdin)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, signal.SIGTERM])
    try:
        if platform.machine() not in ARCHITECTURES:
            raise Refused(f"the filter of system calls knows no {platform.machine()}")
        standard_input = os.memfd_create("input")
        with open(standard_input, "wb", closefd=False) as file:
            file.write(order["input"].encode())
        os.lseek(standard_input, 0, os.SEEK_SET)
        user = enter_spaces()
        reading, started = os.pipe()
        first = os.fork()
        if first == 0:
            inside(order, user, standard_input, started)
        for descriptor in (1, 2, started):
            os.close(descriptor)
        wall = os.read(reading, 4096).decode()  # until the program has started
        begun, timed_out = time.monotonic(), False
        ended, status = os.waitpid(first, os.WNOHANG)
        while not ended:
            left = order["seconds"] - (time.monotonic() - begun)
            told = signal.sigtimedwait([signal.SIGCHLD, signal.SIGTERM], max(left, 0.0))
            timed_out = told is None
            if timed_out or told.si_signo == signal.SIGTERM:
                os.kill(first, signal.SIGKILL)
                ended, status = os.waitpid(first, 0)  # returns when nothing of the namespace is left
            else:
                ended, status = os.waitpid(first, os.WNOHANG)
        if wall:
            raise Refused(wall)
        code = os.waitstatus_to_exitcode(status)
        result = {"timed_out": timed_out, "seconds": time.monotonic() - begun, "status": code}
    except (Refused, OSError, ValueError) as wall:
        result = {"refused": str(wall)}
    with open(report, "w") as file:
        json.dump(result, file)


if __name__ == "__main__":
    main()

"""Programs that want out of the sandbox, and what becomes of them."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from policylab.environments import sandbox as room
from policylab.environments.sandbox import Sandbox

pytestmark = pytest.mark.skipif(bool(room.refusal()), reason="this machine cannot lock programs in")
BOX = Sandbox(seconds=5.0, memory=128 << 20, output=4096, files=1 << 20)

# Each prints "escaped" where it succeeds.
ATTACKS = {
    "a socket to this machine": "import socket\nsocket.create_connection(('127.0.0.1', PORT), 1)\nprint('escaped')",
    "a datagram": "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.sendto(b'x', ('127.0.0.1', PORT))\nprint('escaped')",
    "a unix socket": "import socket\ns = socket.socket(socket.AF_UNIX)\nprint('escaped')",
    "a raw socket by system call": "import ctypes\nassert ctypes.CDLL(None).syscall(41, 2, 1, 0) >= 0\nprint('escaped')",
    "the password file": "print('escaped', open('/etc/passwd').read())",
    "the home folder": "import os\nassert os.listdir(HOME)\nprint('escaped')",
    "this repository": "print('escaped', open(FILE).read())",
    "process information": "print('escaped', open('/proc/1/environ').read())",
    "the kernel": "import os\nos.listdir('/sys')\nprint('escaped')",
    "a device": "open('/dev/mem', 'rb')\nprint('escaped')",
    "writing to the root": "open('/escaped', 'w')\nprint('escaped')",
    "writing to a library": "import os\nopen(os.__file__, 'a')\nprint('escaped')",
    "writing to /tmp": "open('/tmp/escaped', 'w')\nprint('escaped')",
    "making a folder beside its own": "import os\nos.mkdir('/room/../other')\nprint('escaped')",
    "a symbolic link": "import os\nos.symlink('/etc/passwd', 'link')\nprint('escaped', open('link').read())",
    "a link with many parents": "import os\nos.symlink('../' * 40 + FILE, 'link')\nprint('escaped', open('link').read())",
    "a hard link": "import os\nos.link(os.__file__, 'link')\nopen('link', 'a')\nprint('escaped')",
    "becoming root": "import os\nos.setuid(0)\nprint('escaped')",
    "the real parent": "import os, signal\nos.kill(PARENT, signal.SIGKILL)\nprint('escaped')",
    "remounting": "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/', b'', 32, b'') == 0\nprint('escaped')",
    "namespaces of its own": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0\nprint('escaped')",
    "namespaces by clone": "import ctypes\nassert ctypes.CDLL(None).syscall(56, 0x10000011, 0, 0, 0, 0) >= 0\nprint('escaped')",
    "another root": "import os\nos.chroot('/room')\nprint('escaped')",
    "tracing process 1": "import ctypes\nassert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0\nprint('escaped')",
    "io_uring": "import ctypes\nassert ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(120)) >= 0\nprint('escaped')",
    "memory without a limit": "import os\nos.memfd_create('x')\nprint('escaped')",
    "shared memory": "import ctypes\nassert ctypes.CDLL(None).shmget(0, 1 << 30, 0o1600) >= 0\nprint('escaped')",
    "raising its own limits": "import resource as r\nr.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY, r.RLIM_INFINITY))\nprint('escaped')",
    "a shell": "import os\nassert os.system('echo escaped') == 0",
    "a program of its own": "import os\nopen('tool', 'w').write('#!/bin/sh')\nos.chmod('tool', 0o755)\nos.execv('/room/tool', ['tool'])",
    "a child process": "import os\nif os.fork() == 0:\n print('escaped')",
    "a thread": "import threading\nthreading.Thread(target=lambda: print('escaped')).start()",
    "a memory bomb": "x = bytearray(1 << 31)\nprint('escaped')",
    "many small pieces of memory": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "a file without end": "f = open('big', 'wb')\nfor _ in range(64): f.write(bytes(1 << 16)); f.flush()\nprint('escaped')",
    "files without number": "import os\nfor i in range(5000): open(str(i), 'w').close()\nprint('escaped')",
    "descriptors without number": "import os\nx = [os.dup(1) for _ in range(200)]\nprint('escaped')",
    "descriptors that were left open": (
        "import os\nfor i in range(3, 64):\n try: os.fstat(i); print('escaped', i)\n except OSError: pass\nraise SystemExit(1)"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def listener():
    """A port that counts who connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.0)
        yield server


@pytest.fixture(scope="module")
def outcomes(listener):
    """All attacks, two at a time."""
    names = {
        "PORT": listener.getsockname()[1], "HOME": os.path.expanduser("~"), "FILE": os.path.abspath(__file__), "PARENT": os.getpid(),
    }  # fmt: skip
    header = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    return dict(zip(ATTACKS, BOX.run_many([header + attack for attack in ATTACKS.values()], workers=2), strict=True))


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_gets_out(outcomes, attack):
    outcome = outcomes[attack]
    assert "escaped" not in outcome.output
    assert not outcome.ok
    assert not outcome.timed_out, "it was to fail by itself"
    assert not any(mistake in outcome.errors for mistake in ("NameError", "SyntaxError")), "the attack itself is wrong"


def test_nobody_has_called(outcomes, listener):
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_what_an_honest_program_needs_is_there():
    program = (
        "import math, json, sys, os, helper\nopen('note', 'w').write('kept')\n"
        "print(json.dumps([helper.twice(int(sys.stdin.read())), open('note').read(), os.listdir('/room') != []]))\n"
        "print('careful', file=sys.stderr)\nraise SystemExit(7)"
    )
    outcome = BOX.run(program, input="21", files={"helper.py": "def twice(x):\n    return 2 * x\n"})
    assert (outcome.output, outcome.errors, outcome.status) == ('[42, "kept", true]\n', "careful\n", 7)
    assert BOX.run("print(hash('a'), 'ä')").output == BOX.run("print(hash('a'), 'ä')").output
    assert BOX.run("import os\nprint(os.path.exists('note'))").output == "False\n"


def test_time_is_up_for_loops_sleepers_and_those_who_catch_everything():
    box = Sandbox(seconds=0.3)
    loops = (
        "while True: pass",
        "import time\ntime.sleep(100)",
        "import os, time\nos.close(1); os.close(2)\ntime.sleep(100)",
        "import signal\nfor s in range(1, 65):\n try: signal.signal(s, signal.SIG_IGN)\n except (OSError, ValueError): pass\nwhile True: pass",
    )
    for outcome in box.run_many(loops, workers=2):
        assert outcome.timed_out
        assert not outcome.ok
        assert outcome.seconds < 3.0


def test_endless_output_is_cut_and_ended():
    outcome = Sandbox(seconds=20.0, output=1000).run("while True: print('x' * 100)")
    assert outcome.flooded
    assert not outcome.ok
    assert len(outcome.output) == 1000
    assert outcome.seconds < 10.0


def test_a_fork_bomb_is_contained_and_a_daemon_does_not_outlive_its_program():
    many = Sandbox(seconds=1.0, processes=4, memory=256 << 20)
    bomb = many.run("import os\nwhile True:\n try: os.fork()\n except OSError: pass")
    assert bomb.timed_out
    count = many.run(
        "import os, time\nn = 0\ntry:\n while True:\n  if os.fork() == 0: time.sleep(9)\n  n += 1\nexcept OSError: print(n)\nos._exit(0)"
    )
    assert count.output == "3\n"
    started = time.monotonic()
    daemon = many.run(
        "import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n"
        "  while True: print('alive', flush=True); time.sleep(0.01)\n os._exit(0)\ntime.sleep(0.2)"
    )
    assert daemon.ok, "the program itself ended in order"
    assert time.monotonic() - started < 3.0, "its output closed at once: nobody was left to hold it open"


def test_signals_reach_nobody_but_itself():
    killed = BOX.run("import os\nos.kill(os.getpid(), 11)")
    assert killed.status == 128 + 11
    outcome = BOX.run("import os, signal\nfor s in (9, 15, 2, 19):\n os.kill(os.getppid(), s)\nprint('still here')")
    assert outcome.output == "still here\n"
    assert outcome.ok


def test_many_rooms_at_once_do_not_disturb_each_other():
    outcomes = BOX.run_many([f"open('n', 'w').write('{i}')\nprint(open('n').read())" for i in range(12)], workers=6)
    assert [outcome.output for outcome in outcomes] == [f"{i}\n" for i in range(12)]
    assert threading.active_count() < 10

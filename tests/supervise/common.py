# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of supervision share."""
import os
import socket
import subprocess
import sys

from harness import SHDICT, answer, environment, expect, until
from supervisor import Supervisor, is_running

HERE = os.path.dirname(os.path.abspath(__file__))
WORKER = [sys.executable, os.path.join(HERE, "worker.py")]


def workers(name):
    """Of the segment: those with a logical id, by process."""
    return {w["pid"]: w for w in answer("workers", name)
            if w["worker"] is not None and w["state"] == "alive"}


def joined(name, count):
    return until(lambda: len(workers(name)) == count and workers(name),
                 "%d workers joined" % count)


def started_for(name):
    """All processes that a supervisor of the segment has started, joined or
    not: {pid: (worker, generation)}."""
    st = os.stat("/dev/shm/shdict-" + name)
    token = "SHDICT_SUPERVISED=%x:%x" % (st.st_dev, st.st_ino)
    found = {}
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        try:
            with open("/proc/%s/environ" % pid, "rb") as f:
                words = f.read().decode("utf8", "replace").split("\0")
        except OSError:
            continue
        e = dict(w.split("=", 1) for w in words if "=" in w)
        if token in words and e.get("SHDICT_PID") == pid and \
                is_running(int(pid)):
            found[int(pid)] = (int(e["SHDICT_WORKER"]),
                               int(e["SHDICT_GENERATION"]))
    return found


class Sidecar(Supervisor):
    """A running `shdict sidecar`."""

    def __init__(self, name, *words):
        self.name = name
        self.lines = []
        self.process = subprocess.Popen(
            [SHDICT, "sidecar", name] + list(words), env=environment,
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL)
        self.listen_to_it()


class Started:
    """A worker that this test starts itself."""

    def __init__(self, name, *words, number=0):
        self.process = subprocess.Popen(
            WORKER + list(words), stdout=subprocess.PIPE,
            env=dict(environment, SHDICT_SEGMENT=name,
                     SHDICT_WORKER=str(number)))
        assert self.process.stdout.readline() == b"ready\n"
        self.pid = self.process.pid

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def hear(connection):
    text = b""
    while not text.endswith(b"\n"):
        part = connection.recv(100)
        if not part:
            break
        text += part
    connection.close()
    return text.decode().split()


def port_of(s):
    return int(s.wait_events("listen", 1)[0]["port"])


def clean(name):
    expect(0, "check", name, "--lock", out=b"clean\n")

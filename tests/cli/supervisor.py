# SPDX-License-Identifier: BSD-2-Clause
"""A running `shdict supervise`, and looking at processes."""
import os
import re
import signal
import subprocess
import threading

from harness import SHDICT, environment, fresh, until


class Supervisor:
    """A running one; its log is read by a thread, line by line."""

    def __init__(self, *words, command=("sleep", "1000"), name=None,
                 dicts=("d=4m",), env=None, preexec=None):
        self.name = name or fresh()
        args = ["--segment", self.name] if self.name else []
        for d in dicts:
            args += ["--dict", d]
        self.lines = []
        self.process = subprocess.Popen(
            [SHDICT, "supervise"] + args + list(words) + ["--"] +
            list(command), env=dict(environment, **(env or {})),
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL, preexec_fn=preexec)
        self.listen_to_it()

    def listen_to_it(self):
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stderr:
            self.lines.append(line.decode())

    def events(self, kind):
        found = []
        for line in list(self.lines):
            fields = dict(re.findall(r'(\w+)=("[^"]*"|\S*)', line))
            if fields.get("event") == kind:
                found.append(fields)
        return found

    def wait_events(self, kind, count):
        def seen():
            over = self.process.poll() is not None and \
                not self.reader.is_alive()
            found = self.events(kind)
            if len(found) >= count:
                return found
            assert not over, "it ended: " + "".join(self.lines)
            return None
        return until(seen, "%d times %s" % (count, kind))

    def wait_starts(self, count):
        return [int(e["pid"]) for e in self.wait_events("start", count)]

    def live(self):
        """worker id -> pid of those running, by the log."""
        pids = {}
        for line in list(self.lines):
            fields = dict(re.findall(r'(\w+)=("[^"]*"|\S*)', line))
            if fields.get("event") == "start":
                pids[int(fields["pid"])] = int(fields["worker"])
            elif fields.get("event") in ("death", "exit"):
                pids.pop(int(fields["pid"]), None)
        return {worker: pid for pid, worker in pids.items()}

    def end(self, sig=signal.SIGTERM):
        """The exit code after the signal; then the whole log is there,
        unless it left workers behind, which hold the pipe open."""
        self.process.send_signal(sig)
        code = self.process.wait(timeout=30)
        if sig != signal.SIGKILL:
            self.reader.join(timeout=30)
            assert not self.reader.is_alive(), "somebody holds its stderr"
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pids = list(self.live().values())
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            pids += list(self.live().values())
        for pid in pids:
            # Its number may be another's by now, and its group the one that
            # runs this.
            try:
                if environ(pid).get("SHDICT_PID") == str(pid):
                    os.killpg(pid, signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                pass


def is_running(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def name_of(pid):
    with open("/proc/%d/comm" % pid) as f:
        return f.read().strip()


def environ(pid):
    with open("/proc/%d/environ" % pid, "rb") as f:
        return dict(v.decode().split("=", 1)
                    for v in f.read().split(b"\0") if b"=" in v)

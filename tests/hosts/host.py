# SPDX-License-Identifier: BSD-2-Clause
"""A host under `shdict supervise`, and an HTTP client that hides nothing.

The client reads answers byte by byte as they were sent (the library in
Python's standard distribution would repair some of what is tested here).
"""
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("SHDICT_BUILD", "build"))
SHDICT = os.path.join(BUILD, "shdict")
LOAD = os.path.join(BUILD, "http_load")
COMMANDS = {
    "luajit": ["luajit", os.path.join(ROOT, "tests/hosts/luajit/server.lua")],
    "c": [os.path.join(BUILD, "tests/host_c")],
    "jobs": [os.path.join(BUILD, "tests/host_jobs")],
}
SERVERS = ("luajit", "c") # jobs has no socket
DICTS = {"cache": "16m", "limits": "4m", "counters": "1m", "jobs": "16m"}


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body
        self.worker = headers.get("x-worker")


class Client:
    """One connection."""

    def __init__(self, host, timeout=10):
        self.socket = socket.create_connection(("127.0.0.1", host.port),
                                               timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def request(self, method, target, body=None, headers=()):
        lines = [f"{method} {target} HTTP/1.1", "Host: test", *headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))
        return self.answer(method == "HEAD")

    def get(self, target, headers=()):
        return self.request("GET", target, None, headers)

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError("connection closed")
        self.buffer += data

    def answer(self, is_head=False):
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.[01] (\d\d\d) .*", lines[0])
        assert match, f"not a status line: {lines[0]!r}"
        status = int(match[1])
        headers = {}
        for line in lines[1:]:
            name, value = line.split(":", 1)
            headers[name.lower()] = value.strip()
        length = 0
        if not is_head and status not in (204, 304) and status >= 200:
            length = int(headers["content-length"])
        while len(self.buffer) < length:
            self._more()
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Answer(status, headers, body)

    def closed(self, timeout=5):
        """True once the server has closed, with nothing more to say."""
        self.socket.settimeout(timeout)
        try:
            return not self.buffer and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except socket.timeout:
            return False


class Host:
    """n workers of a host on a segment of their own."""

    def __init__(self, kind, *args, n=4):
        self.kind, self.n = kind, n
        self.segment = f"hosts-{os.getpid()}-{random.randrange(10 ** 9)}"
        self.docroot = tempfile.mkdtemp(prefix="shdict-hosts-")
        self.log_path = os.path.join(self.docroot, "supervisor.log")
        command = [SHDICT, "supervise", "-n", str(n),
                   "--segment", self.segment, "--listen", "127.0.0.1:0"]
        for name, size in DICTS.items():
            command += ["--dict", f"{name}={size}"]
        if kind == "jobs":
            command += ["--dict", "results=16m"]
        command += ["--", *COMMANDS[kind]]
        if kind in SERVERS:
            command += ["--docroot", self.docroot, *args]
        env = dict(os.environ, LUA_PATH=f"{BUILD}/lua/?.lua;;")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, env=env, stderr=log)
        try:
            self.port = int(self.wait_log(r"event=listen .*port=(\d+)")[1])
            self.wait_workers()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        subprocess.run([SHDICT, "rm", self.segment], check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in os.listdir(self.docroot):
            os.unlink(os.path.join(self.docroot, name))
        os.rmdir(self.docroot)

    # -- files, log, workers

    def file(self, name, data):
        path = os.path.join(self.docroot, name)
        with open(path + ".new", "wb") as out:
            out.write(data)
        os.rename(path + ".new", path)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def wait_log(self, pattern, timeout=15):
        def look():
            if self.process.poll() is not None and \
               not re.search(pattern, self.log()):
                raise AssertionError(f"the supervisor ended, status "
                                     f"{self.process.returncode}:\n"
                                     f"{self.log()}")
            return re.search(pattern, self.log())
        return wait_for(look, f"{pattern} in the log", timeout)

    def workers(self):
        """Pids of the live workers that serve."""
        out = self.shdict("workers", "--json", self.segment)
        return [w["pid"] for w in json.loads(out)["items"]
                if w["state"] == "alive" and w["worker"] is not None]

    def wait_workers(self, n=None):
        wait_for(lambda: len(self.workers()) == (n or self.n),
                 f"{n or self.n} workers", 20)

    def shdict(self, *args, status=0):
        done = subprocess.run([SHDICT, *args], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=60,
                              check=False)
        assert done.returncode == status, \
            f"shdict {args}: {done.returncode} {done.stderr.decode()}"
        return done.stdout.decode()

    def counter(self, name):
        """What the dictionary holds, read from outside."""
        out = json.loads(self.shdict("get", "--json", self.segment,
                                     "counters", name))
        return int(out["value"])

    def kill_one(self):
        """SIGKILLs a live worker; its pid, once it is really gone."""
        pid = random.choice(wait_for(self.workers, "a live worker"))
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: re.search(
            rf"event=death .*pid={pid} signal=9 ", self.log()),
            f"the death of {pid} by SIGKILL\n{self.log()}")
        return pid


class Load:
    """http_load beside us. Its report, when asked to stop."""

    def __init__(self, host, *args):
        self.process = subprocess.Popen(
            [LOAD, "-q", *args, f"127.0.0.1:{host.port}"],
            stdout=subprocess.PIPE)
        self.facts, self.counters = {}, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        out = self.process.communicate(timeout=40)[0].decode()
        for line in out.splitlines():
            words = line.split()
            if words[0] == "counter":
                self.counters[words[1]] = {
                    words[i]: int(words[i + 1]) for i in range(2, 10, 2)}
            else:
                self.facts[words[0]] = int(words[1])
        assert self.process.returncode == 0, \
            f"the answers disagree with each other:\n{out}"
        return self.facts


def wait_for(look, what, timeout=10):
    end = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout} s for {what}")
        time.sleep(0.02)


def needed_files():
    missing = [f for f in (SHDICT, LOAD, COMMANDS["c"][0],
                           COMMANDS["jobs"][0],
                           f"{BUILD}/lua/shdict.lua")
               if not os.path.exists(f)]
    if missing:
        sys.exit(f"hosts: not built: {' '.join(missing)}")

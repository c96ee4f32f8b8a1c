# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of the command share: running it, and counting cases.

A case is a function named as a sentence. It fails by raising; nothing is
retried. Waiting for something that another process does is bounded by
until(), which raises when the time is over.
"""
import faulthandler
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else
                        os.environ.get("SHDICT_BUILD",
                                       os.path.join(ROOT, "build")))
SHDICT = os.path.join(BUILD, "shdict")
WORKER = [sys.executable, os.path.join(HERE, "worker.py")]
PREFIX = "cli-test-%d-" % os.getpid()

cases = []
directory = tempfile.mkdtemp(prefix="shdict-cli-")
environment = {k: v for k, v in os.environ.items()
               if not k.startswith(("SHDICT_", "LISTEN_", "LC_", "LANG"))}
environment["LC_ALL"] = "C.UTF-8"
environment["SHDICT_LIBRARY"] = os.path.join(BUILD, "libshdict.so")


def case(function):
    cases.append(function)
    return function


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __str__(self):
        return "exit %s\n  out: %r\n  err: %r" % (self.code, self.out[:400],
                                                 self.err[:400])


def run(*words, stdin=b"", env=None, timeout=60, **more):
    done = subprocess.run([SHDICT] + [str(w) if not isinstance(w, bytes)
                                      else w for w in words],
                          input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=timeout,
                          env=dict(environment, **(env or {})), **more)
    return Result(done.returncode, done.stdout, done.stderr)


def expect(code, *words, out=None, err=None, **more):
    """Runs, and fails unless the exit code, the whole output (if given) and
    a part of the message (if given) are as said. Whatever the exit: at most
    one line of message, and none with success."""
    r = run(*words, **more)
    assert r.code == code, "%s wanted exit %d: %s" % (words, code, r)
    if out is not None:
        assert r.out == out, "%s wanted %r: %s" % (words, out, r)
    if err is not None:
        assert err in r.err, "%s wanted message %r: %s" % (words, err, r)
    assert r.err.count(b"\n") == (1 if code else 0), "messages: %s" % r
    return r


def answer(*words, code=0, **more):
    """The same with --json; gives what it says, without the schema."""
    r = expect(code, *words, "--json", **more)
    said = json.loads(r.out.decode("ascii"))
    assert said.pop("schema") == 1, r
    return said["items"] if list(said) == ["items"] else said


numbers = iter(range(1000000))


def fresh():
    return PREFIX + str(next(numbers))


def segment(*dicts):
    """A new segment with dicts like "d=1m"; its name."""
    name = fresh()
    words = [w for d in dicts or ("d=1m",) for w in ("--dict", d)]
    expect(0, "create", name, "--size", "1g", *words, out=b"")
    return name


def path_of(name):
    return "/dev/shm/shdict-" + name


def pages(name):
    """The segment's pages that are not all zeroes, as {offset: bytes}. (That
    memory reserved before is read for the first time shows in the holes of
    the file, and is no change.)"""
    found, at = {}, 0
    with open(path_of(name), "rb") as f:
        end = f.seek(0, os.SEEK_END)
        while at < end:
            try:
                begin = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(f.fileno(), begin, os.SEEK_HOLE)
            f.seek(begin)
            for page in range(begin, at, 4096):
                content = f.read(4096)
                if any(content):
                    found[page] = content
    assert len(found) > 2
    return found


def until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError("not within %g s: %s" % (seconds, what))


def clean_up():
    for name in os.listdir("/dev/shm"):
        if name.startswith("shdict-" + PREFIX):
            os.unlink("/dev/shm/" + name)
    shutil.rmtree(directory, ignore_errors=True)


def told_to_end(number, frame):
    """Says where it was: a run that took too long is told to end."""
    traceback.print_stack(frame, file=sys.stdout)
    sys.exit("ended by %s" % signal.Signals(number).name)


def main():
    passed = failed = 0
    only = os.environ.get("ONLY", "")
    # A crash of the library in this process, say, leaves word on stderr.
    faulthandler.enable()
    # Told to end, it still removes what it made.
    for number in signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, told_to_end)
    try:
        for function in cases:
            name = function.__name__.replace("_", " ")
            if only not in function.__name__:
                continue
            try:
                function()
            except Exception:
                failed += 1
                text = traceback.format_exc().strip()
                print("FAIL %s\n    %s" % (name, text.replace("\n",
                                                              "\n    ")))
            else:
                passed += 1
                print("ok   %s" % name)
            sys.stdout.flush()
    except BaseException as end: # the last line is there, whatever ends it
        failed += 1
        print("FAIL in %s: %r" % (name, end))
    finally:
        clean_up()
    print("%d passed, %d failed" % (passed, failed))
    return 0 if failed == 0 and passed > 0 else 1

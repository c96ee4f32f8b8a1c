# SPDX-License-Identifier: BSD-2-Clause
"""What draws, in a real terminal: tmux is it."""
import itertools
import os
import re
import shlex
import signal
import subprocess

from harness import (PREFIX, SHDICT, WORKER, case, directory, environment,
                     expect, fresh, run, segment, until)

numbers = itertools.count()


def tmux(socket, *words):
    done = subprocess.run(["tmux", "-L", socket, "-f", "/dev/null"] +
                          list(words), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=environment,
                          timeout=60)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout.decode()


class Screen:
    """A terminal in which a command runs; its end shows as `exit N`."""

    def __init__(self, *words, width=120, height=40, env="", more=""):
        command = " ".join(shlex.quote(w) for w in (SHDICT,) + words) + more
        # A server of its own: that of the screen before may still be ending.
        self.socket = "%stmux-%d" % (PREFIX, next(numbers))
        tmux(self.socket, "new-session", "-d", "-x", str(width), "-y", str(height),
             "sh", "-c", env + " " + command + '; echo "exit $?"; cat')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        tmux(self.socket, "kill-server")

    def text(self, *options):
        return tmux(self.socket, "capture-pane", "-p", *options)

    def shows(self, pattern, *options):
        def look():
            return re.search(pattern, self.text(*options), re.M)
        return until(look, "%r on the screen, which shows\n%s" % (
            pattern, self.text(*options)), 30)

    def key(self, name):
        tmux(self.socket, "send-keys", name)


@case
def top_draws_rates_shards_and_workers():
    name = segment("d=1m", "quiet=1m")
    worker = subprocess.Popen(WORKER + ["hammer"], stdout=subprocess.PIPE,
                              env=dict(environment, SHDICT_SEGMENT=name))
    try:
        assert worker.stdout.readline() == b"ready\n"
        with Screen("top", name, "--interval", "0.1") as screen:
            screen.shows(r"^shdict top: %s " % name)
            screen.shows(r"^workers 1 alive, 0 dead ")
            screen.shows(r"^OBJECT +KIND +READS/S")
            screen.shows(r"^d +dict +\d+ +\S+ +[1-9]\d* ")
            screen.shows(r"^quiet +dict +0 +- +0 ")
            screen.shows(r"^d +0 +[1-9]\d* ")
            screen.shows(r"^ +%d .* alive " % worker.pid)
            screen.key("n")
            screen.shows(r"^d +dict .*\nquiet +dict ")
            # Every worker stopped, one perhaps with a lock: it still draws.
            worker.send_signal(signal.SIGSTOP)
            screen.shows(r"^d +dict +0 +- +0 ")
            tmux(screen.socket, "resize-window", "-x", "60", "-y", "10")
            screen.shows(r"\Ashdict top: ")
            worker.send_signal(signal.SIGCONT)
            worker.kill()
            worker.wait()
            screen.shows(r"^workers 0 alive, 1 dead ")
            screen.key("q")
            screen.shows(r"^exit 0$")
    finally:
        worker.kill()
        worker.wait()


@case
def top_is_coloured_unless_told_otherwise():
    name = segment("d=1m")
    worker = subprocess.Popen(WORKER + ["idle"], stdout=subprocess.PIPE,
                              env=dict(environment, SHDICT_SEGMENT=name))
    assert worker.stdout.readline() == b"ready\n"
    worker.kill()
    worker.wait()
    for env, colour in (("", True), ("NO_COLOR=1", False)):
        with Screen("top", name, "--interval", "0.1", env=env) as screen:
            screen.shows(r"workers 0 alive, 1 dead")
            found = re.search(r"\x1b\[[0-9;]*31m", screen.text("-e"))
            assert bool(found) == colour, screen.text("-e")


@case
def top_wants_a_terminal():
    name = segment("d=1m")
    expect(2, "top", name, err=b"wants a terminal")


# ---- bars ------------------------------------------------------------------

def large():
    """Several MiB in 8 shards: save makes several steps of it."""
    name = segment("d=16m")
    for i in range(40):
        expect(0, "set", name, "d", "key %d" % i, "--stdin",
               stdin=b"%d" % i * 100000)
    return name


def pipe():
    path = os.path.join(directory, "fifo-%d" % next(numbers))
    os.mkfifo(path)
    return path


def bar_until_read(words, bar):
    """It writes to somebody who reads slowly, until its bar has been seen."""
    fifo = pipe()
    with Screen(*words, more=" >" + fifo) as screen:
        with open(fifo, "rb", buffering=0) as f:
            got = []

            def look():
                got.append(f.read(16384))
                assert got[-1], "it has ended, and no bar was seen"
                return re.search(bar, screen.text(), re.M)
            until(look, "a bar")
            got.append(f.read())
            while got[-1]:
                got.append(f.read())
        screen.shows(r"^exit 0$")
        assert "[" not in screen.text(), screen.text()
    return b"".join(got)


def bar_until_written(words, content, bar):
    """It reads from somebody who writes slowly."""
    fifo = pipe()
    with Screen(*words, more=" <" + fifo) as screen:
        with open(fifo, "wb", buffering=0) as f:
            at = [0]

            def look():
                assert at[0] < len(content), "all is read, and no bar was seen"
                f.write(content[at[0]:at[0] + 16384])
                at[0] += 16384
                return re.search(bar, screen.text(), re.M)
            until(look, "a bar")
            f.write(content[at[0]:])
        screen.shows(r"^exit 0$")
        return screen.text()


@case
def long_work_shows_how_far_it_is():
    name = large()
    saved = bar_until_read(("save", name, "-"),
                           r"^saving \[[# ]{30}\] \d+ of 40$")
    assert saved.startswith(b"shdict snapshot\n")
    other = fresh()
    text = bar_until_written(("restore", "-", other), saved,
                             r"^restoring [1-9]\d*$")
    assert re.search(r"^restored 1 objects, 40 entries", text, re.M), text
    lines = [b"#shdict dump 1"] + [
        b"key number %d\tstring\t0\t-\t0\t%s" % (i, b"v" * 100)
        for i in range(50000)] + [b"#end\t50000\n"]
    text = bar_until_written(("load", other, "d"), b"\n".join(lines),
                             r"^loading [1-9]\d*$")
    assert re.search(r"^50000 entries loaded$", text, re.M), text
    dump = bar_until_read(("dump", other, "d"),
                          r"^dumping \[[# ]{30}\] \d+ of \d+$")
    assert dump.endswith(b"#end\t50040\n"), dump[-100:]
    with Screen("check", other) as screen:
        screen.shows(r"^clean\nexit 0$")


@case
def no_bar_where_there_is_no_terminal():
    name = large()
    for words in (("save", name, "-"), ("dump", name),
                  ("check", name)):
        r = run(*words)
        assert b"[" not in r.err and b"\r" not in r.err, r.err
    fifo = pipe()
    with Screen("save", name, "-", env="TERM=dumb", more=" >" + fifo) as s:
        with open(fifo, "rb") as f:
            while f.read(65536):
                assert "saving" not in s.text()
        s.shows(r"^exit 0$")

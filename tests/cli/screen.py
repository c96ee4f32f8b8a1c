# SPDX-License-Identifier: BSD-2-Clause
"""What draws, in a real terminal: tmux is it."""
import itertools
import re
import shlex
import signal
import subprocess

from harness import (PREFIX, SHDICT, WORKER, case, environment, expect,
                     segment, until)

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

    def __init__(self, *words, width=120, height=40, env=""):
        command = " ".join(shlex.quote(w) for w in (SHDICT,) + words)
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

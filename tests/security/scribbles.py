# SPDX-License-Identifier: BSD-2-Clause
"""A host that scribbles, with and without SHDICT_WRITE_PROTECT: the same
stores damage what all share, or kill who makes them, there and then."""
import os
import signal
import subprocess
import sys

from harness import HERE, ROOT, case, environment, expect, run, segment

SCRIBBLER = os.path.join(os.path.dirname(HERE), "security", "scribbler.py")


def scribble(name, **more):
    return subprocess.run(
        [sys.executable, SCRIBBLER, name, environment["SHDICT_LIBRARY"]],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        env=dict(environment, **more), timeout=120, check=False)


@case
def a_host_that_scribbles_damages_what_all_share():
    name = segment("d=1m")
    done = scribble(name)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"scribbling\nnot found out\n", done.stdout
    assert run("check", name).code != 0


def dies_of_it(way):
    name = segment("d=1m")
    done = scribble(name, SHDICT_WRITE_PROTECT=way)
    assert done.returncode == -signal.SIGSEGV, (done.returncode, done.stderr)
    assert done.stdout == b"scribbling\n", done.stdout
    # Where it was: in that line of the culprit, and in nothing of ours.
    trace = done.stderr.decode()
    assert "in bug" in trace, trace
    # What it had stored is there, and nothing else has changed.
    expect(0, "check", name)
    for i in (0, 499):
        expect(0, "get", name, "d", "key:%d" % i, out=b"value")
    expect(0, "reap", name)


@case
def write_protection_kills_it_there_and_then():
    dies_of_it("1")


@case
def mprotect_does_the_same():
    dies_of_it("mprotect")

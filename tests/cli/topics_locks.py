# SPDX-License-Identifier: BSD-2-Clause
"""The verbs topics, publish, follow and locks."""
import ctypes
import json
import os
import signal
import subprocess

from harness import SHDICT, answer, case, environment, expect, segment

LIBRARY = ctypes.CDLL(environment["SHDICT_LIBRARY"])


class LockOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("flags", ctypes.c_uint32),
                ("permits", ctypes.c_uint32), ("waiters_max",
                                               ctypes.c_uint32)]


class Grant(ctypes.Structure):
    _fields_ = [("token", ctypes.c_uint64), ("former", ctypes.c_uint32),
                ("reserved", ctypes.c_uint32)]


def holder(name, lock, kind, permits=0, times=1):
    """A child that holds permits and is stopped; its pid."""
    pid = os.fork()
    if pid == 0:
        handle, out = ctypes.c_void_p(), ctypes.c_void_p()
        options = LockOptions(ctypes.sizeof(LockOptions), 1, permits, 0)
        grant = Grant()
        ok = (LIBRARY.shd_segment_attach(name.encode(), None,
                                         ctypes.byref(handle)) == 0 and
              LIBRARY.shd_lock_open(handle, lock.encode(), kind,
                                    ctypes.byref(options),
                                    ctypes.byref(out)) == 0)
        for _ in range(times):
            ok = ok and LIBRARY.shd_lock_acquire(
                out, ctypes.c_int64(0), ctypes.c_int64(0),
                ctypes.byref(grant)) == 0
        if not ok:
            os._exit(1)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), "the holder ended: %d" % status
    return pid


@case
def what_is_published_is_followed():
    name = segment()
    expect(3, "publish", name, "news", "x", err=b"not found")
    expect(0, "publish", name, "news", "one", "--create", "64k", out=b"1\n")
    expect(0, "publish", name, "news", "a\\tb", "-e", out=b"2\n")
    assert answer("publish", name, "news", "three") == {"published": 3}
    expect(0, "follow", name, "news", "--oldest", "--count", "3",
           out=b"1\tone\n2\ta\\tb\n3\tthree\n")
    expect(0, "follow", name, "news", "-o", "-t", "0.01", "-c", "2",
           out=b"1\tone\n2\ta\\tb\n")
    expect(0, "follow", name, "news", "--timeout", "0.01", out=b"")
    lines = expect(0, "follow", name, "news", "-o", "-c", "2",
                   "--json").out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"schema": 1, "seq": 1, "data": "one"},
        {"schema": 1, "seq": 2, "data": "a\tb"}], lines


@case
def follow_prints_events_as_they_come():
    name = segment()
    expect(0, "publish", name, "news", "before", "--create", "64k")
    follower = subprocess.Popen([SHDICT, "follow", name, "news", "-o"],
                                stdout=subprocess.PIPE, env=environment)
    try:
        assert follower.stdout.readline() == b"1\tbefore\n"
        expect(0, "publish", name, "news", "live")
        assert follower.stdout.readline() == b"2\tlive\n"
    finally:
        follower.kill()
        follower.wait()


@case
def follow_says_what_was_missed_and_goes_on_by_name():
    name = segment()
    expect(0, "publish", name, "news", "x" * 1000, "--create", "4096")
    expect(0, "follow", name, "news", "-o", "--name", "me", "-c", "1")
    for _ in range(9):
        expect(0, "publish", name, "news", "x" * 1000)
    out = expect(0, "follow", name, "news", "-n", "me", "-t", "0.01").out
    lines = out.splitlines()
    assert lines[0] == b"-\t5 missed", out
    assert [int(line.split(b"\t")[0]) for line in lines[1:]] == [7, 8, 9, 10]
    found = answer("topics", name)
    assert len(found) == 1 and found[0]["name"] == "news", found
    assert found[0]["published"] == 10 and found[0]["oldest"] == 7, found
    assert found[0]["cursors"] == [{"name": "me", "owner": 0, "dead": False,
                                    "next": 11, "behind": 0}], found
    text = expect(0, "topics", name).out
    assert b"news" in text and b"0 behind" in text, text


@case
def publish_says_no_where_it_does_not_fit():
    name = segment()
    expect(1, "publish", name, "t", "x" * 5000, "--create", "4096",
           err=b"holds 4080")
    expect(2, "publish", name, "t")
    expect(2, "publish", name, "t", "x", "--create", "nonsense")
    expect(2, "publish", name, "t", "\\x", "-e")
    expect(3, "follow", name, "d", err=b"is a dict, no topic")
    expect(3, "follow", "no-such-segment", "t")


@case
def locks_are_shown_with_their_holders():
    name = segment()
    assert answer("locks", name) == []
    pid = holder(name, "l", 4)
    two = holder(name, "s", 5, permits=3, times=2)
    try:
        found = {o["name"]: o for o in answer("locks", name)}
        assert found["l"]["kind"] == "lock", found
        assert found["l"]["taken"] == 1 and found["l"]["permits"] == 1, found
        assert found["l"]["holders"][0]["token"] == 1, found
        assert found["l"]["holders"][0]["dead"] is False, found
        assert found["l"]["holders"][0]["ttl"] is None, found
        assert found["s"]["kind"] == "semaphore", found
        assert found["s"]["taken"] == 2, found
        assert len(found["s"]["holders"]) == 2, found
    finally:
        for child in pid, two:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    found = {o["name"]: o for o in answer("locks", name)}
    assert found["l"]["holders"][0]["dead"] is True, found
    text = expect(0, "locks", name).out
    assert b"2 of 3" in text and b"dead" in text, text
    expect(0, "reap", name)
    found = {o["name"]: o for o in answer("locks", name)}
    assert found["l"]["taken"] == 0 and found["l"]["deaths"] == 1, found
    assert found["s"]["taken"] == 0 and found["s"]["deaths"] == 2, found
    expect(0, "check", name, out=b"clean\n")

# SPDX-License-Identifier: BSD-2-Clause
"""The verbs topics, publish, follow, locks and leases."""
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


class QueueOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32),
                ("deliveries_max", ctypes.c_uint32),
                ("capacity_bytes", ctypes.c_uint64),
                ("message_bytes", ctypes.c_uint64),
                ("messages_max", ctypes.c_uint64),
                ("lease_ms", ctypes.c_uint64)]


class Message(ctypes.Structure):
    _fields_ = [("words", ctypes.c_uint64 * 8)]


def stopped(name, act):
    """A child that does what it is told to with the segment, and is stopped;
    its pid."""
    pid = os.fork()
    if pid == 0:
        handle = ctypes.c_void_p()
        try:
            assert LIBRARY.shd_segment_attach(name.encode(), None,
                                              ctypes.byref(handle)) == 0
            act(handle)
        except BaseException:
            os._exit(1)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), "the child ended: %d" % status
    return pid


def of_everything(handle):
    """Two leases and a reservation, three permits, a cursor, a lock."""
    long, byref = ctypes.c_int64, ctypes.byref
    queue, topic, lock, s = (ctypes.c_void_p() for _ in range(4))
    lease, grant, message = ctypes.c_uint64(), Grant(), Message()
    options = LockOptions(ctypes.sizeof(LockOptions), 1, 4, 0)
    queued = QueueOptions(ctypes.sizeof(QueueOptions), 0, 1 << 16)
    buffer = ctypes.create_string_buffer(16)
    codes = [LIBRARY.shd_queue_open(handle, b"jobs", byref(queued),
                                    byref(queue))]
    for _ in range(3):
        codes.append(LIBRARY.shd_queue_push(queue, b"job", ctypes.c_size_t(3),
                                            long(0), long(0), None))
    for _ in range(2):
        codes.append(LIBRARY.shd_queue_take(queue, buffer,
                                            ctypes.c_size_t(16), long(0),
                                            byref(message)))
    codes += [
        LIBRARY.shd_queue_reserve(queue, ctypes.c_size_t(100), long(0),
                                  byref(lease)),
        LIBRARY.shd_lock_open(handle, b"s", 5, byref(options), byref(lock))]
    for _ in range(3):
        codes.append(LIBRARY.shd_lock_acquire(lock, long(0), long(0),
                                              byref(grant)))
    codes += [
        LIBRARY.shd_topic_open(handle, b"news", None, byref(topic)),
        LIBRARY.shd_topic_subscribe(topic, b"me", ctypes.c_uint32(0),
                                    byref(s))]
    assert not any(codes), codes


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
    expect(3, "publish", name, "news", "x", err=b"no topic")
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


def of_lists(handle):
    """Two elements of two lists on a lease."""
    d, lease = ctypes.c_void_p(), ctypes.c_uint64()
    buffer = ctypes.create_string_buffer(64)
    value = (ctypes.c_uint64 * 8)()
    codes = [LIBRARY.shd_dict_open(handle, b"work", None, ctypes.byref(d))]
    for key in b"jobs", b"j\xff":
        codes.append(LIBRARY.shd_push(
            d, 1, key, ctypes.c_size_t(len(key)), 1, b"a job",
            ctypes.c_size_t(5), ctypes.c_double(0), ctypes.byref(lease)))
        codes.append(LIBRARY.shd_ltake(
            d, 1, key, ctypes.c_size_t(len(key)), buffer, ctypes.c_size_t(64),
            value, ctypes.byref(lease)))
    assert not any(codes), codes


@case
def leases_of_lists_are_shown_with_their_holders():
    name = segment("work=1m", "other=1m")
    assert answer("leases", name) == []
    expect(3, "leases", name, "no-such-dict")
    pid = stopped(name, of_lists)
    try:
        worker, = [w for w in answer("workers", name) if w["pid"] == pid]
        found = answer("leases", name)
        assert len(found) == 2, found
        for lease in found:
            assert (lease["dict"], lease["holder"], lease["type"],
                    lease["len"], lease["moving"], lease["dead"]) == (
                        "work", worker["incarnation"], "string", 5, False,
                        False), lease
        text = expect(0, "leases", name, "work").out
        assert b"jobs" in text and b"j\\xff" in text, text
        assert text.count(b"string of 5 bytes") == 2, text
        assert answer("leases", name, "work") == found
        assert answer("leases", name, "other") == []
        expect(0, "delete", name, "work", "jobs")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    found, = answer("leases", name)
    assert found["dead"] is True and found["list"] != "jobs", found
    assert b"dead" in expect(0, "leases", name).out
    expect(0, "reap", name)
    assert answer("leases", name) == []
    expect(0, "check", name, out=b"clean\n")


@case
def what_a_worker_holds_of_each_object_is_shown():
    name = segment()
    expect(0, "publish", name, "news", "one", "--create", "64k")
    pid = stopped(name, of_everything)
    try:
        worker, = [w for w in answer("workers", name) if w["pid"] == pid]
        assert worker["state"] == "alive" and worker["locks_held"] == 0
        assert {h["object"]: (h["kind"], h["count"], h["locks"])
                for h in worker["holds"]} == {
                    "jobs": ("queue", 3, 0), "s": ("semaphore", 3, 0),
                    "news": ("topic", 1, 0)}, worker
        text = expect(0, "workers", name).out.decode()
        assert "jobs:3" in text and "s:3" in text and "news:1" in text, text
        got = {o["name"]: o for o in answer("stat", name)["objects"]}
        assert (got["jobs"]["leased"], got["jobs"]["reservations"],
                got["jobs"]["ready"]) == (2, 1, 1), got
        assert (got["s"]["permits"], got["s"]["taken"]) == (4, 3), got
        assert (got["news"]["published"], got["news"]["cursors"]) == (1, 1)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    # Dead and not reaped, it still is who has them.
    worker, = [w for w in answer("workers", name) if w["pid"] == pid]
    assert worker["state"] == "dead" and len(worker["holds"]) == 3, worker
    expect(0, "reap", name)
    assert answer("workers", name) == []
    jobs = answer("stat", name, "jobs")
    assert (jobs["kind"], jobs["ready"], jobs["leased"], jobs["orphaned"],
            jobs["reservations"]) == ("queue", 3, 0, 2, 0), jobs
    assert answer("stat", name, "s")["permits_orphaned"] == 3
    text = expect(0, "stat", name, "news").out.decode()
    assert "published            1\n" in text, text


@case
def figures_of_all_kinds_are_exported_and_have_rates():
    name = segment()
    expect(0, "publish", name, "news", "one", "--create", "64k")
    pid = stopped(name, of_everything)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    expect(0, "reap", name)
    text = expect(0, "export", name).out.decode()
    for kind, object, figure, value in (
            ("queue", "jobs", "orphaned_total", 2),
            ("queue", "jobs", "pushed_total", 3),
            ("topic", "news", "published_total", 1),
            ("topic", "news", "oldest_event", 1),
            ("semaphore", "s", "permits_orphaned_total", 3),
            ("semaphore", "s", "taken", 0)):
        line = 'shdict_%s{segment="%s",object="%s",kind="%s"} %d\n' % (
            figure, name, object, kind, value)
        assert line in text, (line, text)
    text = expect(0, "stat", name).out.decode()
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()
            if line[:1].islower() and len(line.split()) == 11}
    assert rows["jobs"][:2] == ["queue", "3"], text
    assert rows["s"] == ["semaphore", "0"] + ["-"] * 8, text
    rates, = (json.loads(line) for line in expect(
        0, "stat", name, "news", "-i", "0.01", "-n", "1",
        "--json").out.splitlines())
    assert rates["objects"] == [{"name": "news",
                                 "published_per_second": 0}], rates
    expect(3, "stat", name, "nothing", "-i", "1", err=b"no dict or other")

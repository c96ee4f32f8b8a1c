# SPDX-License-Identifier: BSD-2-Clause
"""No name, key or value makes a terminal do anything, or shows as what it is
not, whichever verb prints it, messages of errors too."""
import ctypes
import os
import pty
import re
import select
import subprocess

from harness import (ROOT, SHDICT, answer, case, environment, expect, fresh,
                     path_of, run)
from library import lib, opened
import harness

others = list(harness.cases)
import screen  # noqa: E402

harness.cases[:] = others  # its own are for tests/cli/run

# Escape, bell, C1 as a character and as a byte, change of direction, what has
# no width, a tag, a character cut off, a noncharacter, DEL.
EVIL = (b"\x1b[2J\x1b]0;t\x07\r\x08\xc2\x9b31m\x9b31m\xe2\x80\xaeabc\xe2\x81\xa6"
        b"\xe2\x80\x8b\xc2\xad\xf3\xa0\x81\x81\xe2\x82\xef\xbf\xbf\x7f\xc3\xa9")
# Names may have none of the old control bytes.
NAME = re.sub(rb"[\x00-\x1f\x7f/]", b"", EVIL)
HARM = re.compile(
    rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f\xad]|\xe2\x80[\x8b-\x8f\xa8-"
    rb"\xae]|\xe2\x81[\xa0-\xaf]|\xf3\xa0|\xef\xbf\xbf")


def harmless(got, locale="C.UTF-8"):
    found = HARM.search(got)
    assert not found, (found, got)
    if locale == "C":
        assert not re.search(rb"[\x80-\xff]", got), got
    else:
        got.decode()  # UTF-8, all of it


def on_terminal(*words, locale="C.UTF-8"):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [SHDICT] + list(words), stdout=theirs, stderr=theirs,
        stdin=subprocess.DEVNULL, env=dict(environment, LC_ALL=locale))
    os.close(theirs)
    got = b""
    try:
        while select.select([ours], [], [], 30)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            got += part
    finally:
        os.close(ours)
        process.kill() if process.poll() is None and not got else None
    # The command takes its own progress away again.
    return process.wait(), got.replace(b"\r\n", b"\n").replace(b"\r\x1b[K",
                                                               b"")


def evil_segment():
    """Everything in it is called, and holds, what is evil."""
    name = fresh()
    expect(0, "create", name, "--size", "16m", "--dict", NAME + b"=1m")
    expect(0, "set", name, NAME, EVIL.replace(b"\x00", b""), EVIL)
    expect(0, "push", name, NAME + b"q", EVIL, "--create", "64k")
    expect(0, "publish", name, NAME + b"t", EVIL, "--create", "64k")
    run("follow", name, NAME + b"t", "-o", "-c", "1", "--name", NAME[:20])
    rc, s = opened(lib.shd_segment_attach, name)
    assert rc == "SHD_OK", rc
    lock, options = ctypes.c_void_p(), (ctypes.c_uint32 * 4)(16, 1)
    rc = lib.shd_lock_open(s, NAME + b"l", LOCK, options, ctypes.byref(lock))
    assert rc == 0, lib.shd_last_error()
    lib.shd_segment_close(s)
    lease_an_element(name)
    return name


def lease_an_element(name):
    """Of a list whose key is evil, by this process, until it ends."""
    rc, s = opened(lib.shd_segment_attach, name)
    assert rc == "SHD_OK", rc
    d, lease = ctypes.c_void_p(), ctypes.c_uint64()
    buf, value = ctypes.create_string_buffer(64), (ctypes.c_uint64 * 8)()
    key = EVIL + b"list"
    rc = lib.shd_dict_open(s, NAME, None, ctypes.addressof(d))
    if rc == 0:
        rc = lib.shd_push(d, 0, key, len(key), STRING, b"x", 1, 0, None)
    if rc == 0:
        rc = lib.shd_ltake(d, 1, key, len(key), buf, len(buf), value,
                           ctypes.byref(lease))
    assert rc == 0, lib.shd_last_error()
    assert answer("leases", name)[0]["dead"] is False


def evil_worker(name):
    """Says what it is called itself."""
    return subprocess.Popen(
        [b"./" + EVIL.replace(b"/", b"")[:60],
         os.path.join(ROOT, "tests/cli/worker.py"), "idle"],
        executable="/usr/bin/python3", stdout=subprocess.PIPE,
        env=dict(environment, SHDICT_SEGMENT=name))


LOCK = 4  # SHD_OBJECT_LOCK
STRING = 1

# What prints names, keys, values; {} is the segment.
SHOWS = (["ls"], ["ls", "{}"], ["stat", "{}"], ["stat", "{}", NAME],
         ["export", "{}"], ["get", "{}", NAME, EVIL], ["keys", "{}", NAME],
         ["watch", "{}", NAME, EVIL, "-n", "1"], ["dump", "{}"],
         ["queues", "{}"], ["peek", "{}", NAME + b"q"], ["topics", "{}"],
         ["follow", "{}", NAME + b"t", "-o", "-c", "1"], ["locks", "{}"],
         ["leases", "{}"], ["leases", "{}", NAME], ["check", "{}"], ["stat", "{}", "-i", "0.01", "-n", "2"])
# What fails, and says of what.
FAILS = (["get", "{}", NAME + b"x", "k"], ["get", "{}", NAME, EVIL + b"x"],
         ["get", "{}", EVIL, "k"], ["stat", "{}", NAME + b"x"],
         ["keys", "{}", NAME + b"x"], ["watch", "{}", NAME + b"x", "k"],
         ["dump", "{}", NAME + b"x"], ["flush", "{}", NAME + b"x"],
         ["resize", "{}", NAME + b"x", "1m"], ["rm", "{}", NAME + b"x"],
         ["resize", "{}", NAME, EVIL], ["set", "{}", NAME, "k", EVIL, "-n"],
         ["incr", "{}", NAME, EVIL], ["incr", "{}", NAME, "k", EVIL],
         ["pop", "{}", NAME + b"x"], ["peek", "{}", NAME + b"x"],
         ["drain", "{}", NAME + b"x"], ["requeue", "{}", NAME + b"x"],
         ["push", "{}", NAME + b"x", "m"], ["publish", "{}", EVIL, "e"],
         ["follow", "{}", NAME + b"x"], ["peek", "{}", NAME],
         ["follow", "{}", NAME], [EVIL], ["stat", EVIL], ["stat", b"/" + EVIL],
         ["stat", b"./" + EVIL], ["create", b"/tmp/" + EVIL + b"/x"],
         ["create", "{}", "--dict", EVIL], ["rm", b"/tmp/" + EVIL],
         ["stat", "{}", b"--" + EVIL], ["get", EVIL], ["load", EVIL],
         ["stat", b"fd:" + EVIL], ["export", "{}", "--listen", EVIL],
         ["export", "{}", "--output", b"/tmp/" + EVIL + b"/x"],
         ["completion", EVIL], ["supervise", b"--" + EVIL],
         ["supervise", "--dict", EVIL, "--", "true"], ["top", EVIL],
         ["sidecar", b"./" + EVIL], ["reap", b"./" + EVIL],
         ["workers", b"./" + EVIL], ["check", b"./" + EVIL],
         ["leases", "{}", NAME + b"x"], ["leases", b"./" + EVIL])


def words_of(words, name):
    return [name if w == "{}" else w for w in words]


@case
def no_verb_shows_what_does_harm():
    name = evil_segment()
    for locale in ("C.UTF-8", "C"):
        for words in SHOWS:
            for more in ([], ["--json"]):
                if words[0] == "export" and more:
                    continue
                status, got = on_terminal(*words_of(words, name), *more,
                                          locale=locale)
                assert status == 0 and got, (words, more, status, got)
                try:
                    # For machines: UTF-8 whatever the terminal reads.
                    harmless(got, "C.UTF-8" if words[0] == "export"
                             else locale)
                except AssertionError as e:
                    raise AssertionError((words, more, locale), e) from e


@case
def no_message_of_an_error_does_harm():
    name = evil_segment()
    for locale in ("C.UTF-8", "C"):
        for words in FAILS:
            status, got = on_terminal(*words_of(words, name), locale=locale)
            assert status != 0 and got, (words, status, got)
            try:
                harmless(got, locale)
            except AssertionError as e:
                raise AssertionError((words, locale), e) from e


@case
def labels_are_text_whatever_the_name():
    """Prometheus refuses what is not UTF-8, and reads labels as a line."""
    name = evil_segment()
    text = expect(0, "export", name).out
    harmless(text)
    for line in text.decode().splitlines():
        assert re.fullmatch(
            r'#.*|shdict_\w+\{(\w+="([^"\\\n]|\\[\\"n])*",?)*\} [-+.\w]+',
            line), line


@case
def the_name_of_a_worker_is_text():
    name = fresh()
    expect(0, "create", name, "--size", "8m", "--dict", "d=1m")
    worker = evil_worker(name)
    try:
        assert worker.stdout.readline() == b"ready\n"
        shown = answer("workers", name)[0]["name"]
        assert shown, shown
        for words in (["workers", name], ["workers", name, "--json"],
                      ["stat", name], ["locks", name]):
            status, got = on_terminal(*words)
            assert status == 0, got
            harmless(got)
        with screen.Screen("top", name, "--interval", "0.1") as s:
            s.shows(r"^workers 1 alive")
            s.shows(r"^ +%d .* alive " % worker.pid)
            harmless(s.text().encode())
    finally:
        worker.kill()
        worker.wait()


@case
def top_shows_names_as_text():
    name = evil_segment()
    with screen.Screen("top", name, "--interval", "0.1") as s:
        s.shows(r"^OBJECT +KIND")
        s.shows(r" dict ")
        harmless(s.text().encode())


@case
def the_log_of_the_supervisor_is_text():
    for more in ([], ["--json"]):
        done = subprocess.run(
            [SHDICT, "supervise", "--restart-limit", "1"] + more +
            ["--", b"/tmp/none-" + EVIL], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=environment, timeout=60)
        assert done.stdout and done.returncode != 0
        harmless(done.stdout)


@case
def a_file_that_is_called_something_evil_is_listed_as_text():
    path = path_of(fresh()).encode() + NAME
    with open(path, "wb") as f:
        f.write(b"x")
    try:
        for words in (["ls"], ["ls", "--json"]):
            status, got = on_terminal(*words)
            assert status == 0, got
            harmless(got)
    finally:
        os.unlink(path)

# SPDX-License-Identifier: BSD-2-Clause
"""Another user: what the file's mode gives, and nothing else."""
import os
import re

from harness import case, expect, path_of, run, segment
from library import (NOBODY, as_user, create, is_root, lib, made_directory,
                     opened, run_as, small)

# Every verb that takes a segment, with words that would do something.
WORDS = {
    "append": ["d", "k", "x"], "touch": ["d", "k"], "pop": ["d", "k"],
    "delete": ["d", "k"], "incr": ["d", "n", "1"], "keys": ["d"],
    "watch": ["d", "k", "-n", "1"], "flush": ["d"], "get": ["d", "k"],
    "set": ["d", "k", "v2"], "resize": ["d", "2m"], "push": ["q", "m"],
    "peek": ["q"], "drain": ["q"], "requeue": ["q"], "publish": ["t", "e"],
    "follow": ["t", "-o", "-c", "1"], "load": [], "stat": [], "ls": [],
    "export": [], "workers": [], "dump": [], "check": [], "queues": [],
    "topics": [], "locks": [], "map": [], "layout": [], "mailboxes": [],
    "leases": [], "send": ["m", "all", "x"], "request": ["m", "1", "x"],
    "save": ["/dev/null/snapshot"], "reap": [], "rm": [], "create": ["--open"]}
# They end by themselves only with a screen, or a signal, or take no segment
# that is there.
OTHERS = {"top", "sidecar", "supervise", "completion", "restore"}
READERS = {"keys", "get", "peek", "stat", "ls", "export", "workers", "dump",
           "check", "queues", "topics", "locks", "follow", "map", "layout",
           "leases", "mailboxes"}


def filled():
    name = segment()
    expect(0, "set", name, "d", "k", "the-secret")
    expect(0, "set", name, "d", "n", "1", "--number")
    expect(0, "push", name, "q", "the-secret", "--create", "64k")
    expect(0, "publish", name, "t", "the-secret", "--create", "64k")
    return name


def content(name):
    peeked = expect(0, "peek", name, "q").out
    got = [expect(0, "get", name, "d", key).out for key in ("k", "n")]
    return got, expect(0, "keys", name, "d").out, peeked.count(b"the-secret")


@case
def every_verb_is_known_here():
    verbs = set(re.findall(r"^  ([a-z]+) {2,}", run("--help").out.decode(),
                           re.M))
    assert verbs == set(WORDS) | OTHERS, verbs ^ (set(WORDS) | OTHERS)


@case
def a_segment_is_its_owners_alone_by_default():
    if not is_root():
        return
    name = filled()
    assert os.stat(path_of(name)).st_mode & 0o7777 == 0o600
    before = content(name)
    for verb, more in WORDS.items():
        status, out, err = run_as(verb, name, *more)
        assert status in (3, 5) and re.search(
            rb"permission|its mode does not let|PERM", err + out), (
            verb, status, out, err)
        assert b"secret" not in out + err, (verb, out, err)
    assert content(name) == before, (content(name), before)


@case
def who_may_read_cannot_write():
    if not is_root():
        return
    name = filled()
    os.chown(path_of(name), 0, 12345)
    os.chmod(path_of(name), 0o640)
    before = content(name)
    for verb, more in WORDS.items():
        if verb == "watch":
            continue
        status, out, err = run_as(verb, name, *more, group=12345)
        assert (status == 0) == (verb in READERS), (verb, status, out, err)
        status, out, err = run_as(verb, name, *more)
        assert status != 0, (verb, status, out)
    assert content(name) == before, (content(name), before)
    os.chmod(path_of(name), 0o660)
    assert run_as("set", name, "d", "k", "v", group=12345)[0] == 0
    assert run_as("set", name, "d", "k", "v")[0] == 3


@case
def the_mode_that_was_asked_for_is_that_of_the_file():
    old = os.umask(0)
    try:
        name = filled()
        assert os.stat(path_of(name)).st_mode & 0o7777 == 0o600
        os.umask(0o077)
        made = path_of(name) + "-x"
        expect(0, "create", made, "--mode", "0644", "--size", "1m")
        assert os.stat(made).st_mode & 0o7777 == 0o644
    finally:
        os.umask(old)


@case
def a_directory_of_ones_own_decides_for_itself():
    """There a file of another user's is one that was let in."""
    if not is_root():
        return
    place = made_directory("own", 0o755)
    path = os.path.join(place, "s")
    create(path, mode=0o666)
    os.chown(path, NOBODY, NOBODY)
    rc, handle = opened(lib.shd_segment_attach, path)
    assert rc == "SHD_OK", rc
    lib.shd_segment_close(handle)


@case
def the_seed_is_random_and_no_tool_prints_it():
    seeds = set()
    for _ in range(8):
        name = segment()
        with open(path_of(name), "rb") as f:
            seed = int.from_bytes(f.read(4096)[32:40], "little")
        seeds.add(seed)
        said = b"".join(
            run(verb, name, *more).out for verb, *more in
            (["stat"], ["stat", "--json"], ["stat", "d"], ["ls", "--json"],
             ["ls"], ["export"], ["dump"], ["check", "--json"]))
        for text in (b"%d" % seed, b"%x" % seed):
            assert text not in said, text
    assert len(seeds) == 8 and 0 not in seeds, seeds


@case
def others_cannot_stand_in_for_a_worker():
    """Without write permission there is no slot, no lock, no bell."""
    if not is_root():
        return
    name = filled()
    os.chmod(path_of(name), 0o644)

    def join():
        rc, handle = opened(lib.shd_segment_attach, name, small(flags=1))
        assert rc == "SHD_OK", rc
        return str(lib.shd_worker_join(handle, None))
    assert as_user(join) == "-14"
    assert expect(0, "workers", name).out.count(b"\n") == 1

# SPDX-License-Identifier: BSD-2-Clause
"""Wrong command lines, names and files: one clear line, the right exit code,
and everything is as it was."""
import os
import shutil
import subprocess
import tempfile

from harness import (SHDICT, answer, case, directory, environment, expect,
                     pages, fresh, path_of, run, segment)


@case
def wrong_command_lines_are_usage():
    name = segment()
    expect(0, "set", name, "d", "k", "v")
    for words in ([], ["nonsense"], ["get"], ["get", name], ["get", name, "d"],
                  ["get", name, "d", "k", "more"], ["ls", name, "d"],
                  ["get", name, "d", "k", "--no"], ["get", "-q", name],
                  ["set", name, "d", "k"], ["set", name, "d", "k", "v", "w"],
                  ["set", name, "d", "k", "v", "--ttl"],
                  ["set", name, "d", "k", "v", "--ttl", "-1"],
                  ["set", name, "d", "k", "v", "--ttl", "soon"],
                  ["set", name, "d", "k", "v", "--ttl", "nan"],
                  ["set", name, "d", "k", "v", "--flags", "2147483648"],
                  ["set", name, "d", "k", "v", "--flags", "1.5"],
                  ["set", name, "d", "k", "v", "--number"],
                  ["set", name, "d", "k", "maybe", "--boolean"],
                  ["set", name, "d", "k", "1", "--boolean", "--number"],
                  ["set", name, "d", "k", "v", "--add", "--replace"],
                  ["set", name, "d", "k", "v", "--stdin"],
                  ["incr", name, "d", "k", "one"],
                  ["incr", name, "d", "k", "1", "--init-ttl", "1"],
                  ["keys", name, "d", "--max", "-1"],
                  ["keys", name, "d", "--max", "99999999999999999999"],
                  ["create", name + "x", "--size", "1t"],
                  ["create", name + "x", "--size", "99999999999g"],
                  ["create", name + "x", "--mode", "0999"],
                  ["create", name + "x", "--mode", "-1"],
                  ["create", name + "x", "--dict", "d"],
                  ["create", name + "x", "--dict", "=1m"],
                  ["create", name + "x", "--dict", "d=0"],
                  ["create", name + "x", "--dict", "d=many"],
                  ["create", name + "x", "--workers-max", "65536"],
                  ["supervise"], ["supervise", "-n", "0", "--", "true"],
                  ["supervise", "-n", "x", "--", "true"],
                  ["supervise", "--listen", "80", "-s", name + "x", "--",
                   "true"]):
        expect(2, *words, out=b"")
    entry, = answer("dump", name, "d")
    assert entry.pop("age") >= 0
    assert entry == {"key": "k", "type": "string", "value": "v", "flags": 0,
                     "ttl": None}, entry
    assert not os.path.exists(path_of(name + "x")) or \
        run("rm", name + "x").code == 0


@case
def wrong_names_are_refused():
    for name in ("a/b", "", ".hidden", "a b", "x" * 201, "n\n", "fd:x",
                 "fd:-1", "\u00e9"):
        expect(2, "create", "--", name)
        expect(2, "stat", "--", name)
    name = segment()
    for d in ("", "a/b", "x" * 64, "a\nb"):
        assert run("create", name, "--open", "--dict",
                   d + "=1m").code == 2, d
    assert [d["name"] for d in answer("ls", name)] == ["d"]


@case
def wrong_keys_are_refused():
    name = segment()
    for verb in (["get", name, "d"], ["delete", name, "d"]):
        expect(2, *verb, "", err=b"empty key")
        expect(2, *verb, "k" * 65536, err=b"key too long")
        expect(1, *verb, "k" * 65535)
    expect(2, "set", name, "d", "", "v", err=b"empty key")
    expect(2, "incr", name, "d", "k" * 65536, "1", err=b"key too long")


@case
def what_is_not_there_cannot_be_attached():
    name = fresh()
    for words in (["stat", name], ["get", name, "d", "k"], ["check", name],
                  ["ls", name], ["workers", name], ["dump", name],
                  ["set", name, "d", "k", "v"], ["reap", name],
                  ["stat", "/nonexistent/file"], ["stat", "fd:900"]):
        expect(3, *words, out=b"", err=b"cannot attach")
    assert not os.path.exists(path_of(name))
    name = segment()
    for words in (["get", name, "nodict", "k"], ["stat", name, "nodict"],
                  ["keys", name, "nodict"], ["dump", name, "nodict"],
                  ["set", name, "nodict", "k", "v"]):
        expect(3, *words, out=b"", err=b"no dict")
    assert len(answer("ls", name)) == 1


@case
def foreign_files_are_left_alone():
    for content in (b"", b"x", b"GIF89a" * 1000, bytes(1 << 20)):
        path = os.path.join(directory, "foreign")
        with open(path, "wb") as f:
            f.write(content)
        expect(3, "stat", path)
        expect(3, "set", path, "d", "k", "v")
        expect(3, "check", path)
        expect(3, "rm", path)
        with open(path, "rb") as f:
            assert f.read() == content
    expect(3, "stat", directory)
    expect(3, "stat", "/dev/null")


@case
def truncated_segments_are_refused():
    name = segment()
    expect(0, "set", name, "d", "k", "v")
    size = os.stat(path_of(name)).st_size
    with open(path_of(name), "rb") as f:
        whole = f.read(1 << 20)
    for length in (1, 4095, 4096, 8192, 1 << 20, size - 1):
        path = os.path.join(directory, "cut")
        with open(path, "wb") as f:
            f.write(whole[:length])
            f.truncate(length)
        expect(3, "stat", path)
        expect(3, "dump", path)
        expect(3, "set", path, "d", "k", "v")
        os.unlink(path)


@case
def a_foreign_file_does_not_hide_the_others_from_ls():
    path = path_of(fresh())
    name = segment()
    with open(path, "wb") as f:
        f.write(b"no segment")
    found = {s["name"]: s["state"] for s in answer("ls")}
    assert found[name] == "ok", found
    assert "not a shdict segment" in found[path[len("/dev/shm/shdict-"):]]
    assert b"not a shdict segment" in expect(0, "ls").out
    os.unlink(path)


@case
def other_layouts_and_byte_orders_are_refused_with_a_reason():
    name = segment()
    path = path_of(name)
    for offset, byte, word in ((8, b"\x01\x02\x03\x04", b"byte order"),
                               (12, b"\xff\0\0\0", b"layout"),
                               (16, b"\xff" * 8, b"layout")):
        with open(path, "r+b") as f:
            f.seek(offset)
            old = f.read(len(byte))
            f.seek(offset)
            f.write(byte)
        r = expect(3, "stat", name)
        assert word in r.err.lower(), r
        expect(3, "set", name, "d", "k", "v")
        with open(path, "r+b") as f:
            f.seek(offset)
            f.write(old)
    expect(0, "check", name, out=b"clean\n")


@case
def a_damaged_segment_is_corrupt():
    name = segment("d=1m")
    for i in range(300):
        expect(0, "set", name, "d", "key%d" % i, "v" * 64)
    expect(0, "check", name, out=b"clean\n")
    damaged = 0
    with open(path_of(name), "r+b") as f:
        for begin, content in pages(name).items():
            at = content.find(b"key7")
            while at >= 0:  # the stored hash is no longer that of the key
                f.seek(begin + at)
                f.write(b"KEY")
                damaged += 1
                at = content.find(b"key7", at + 1)
    assert damaged >= 11, damaged
    r = expect(4, "check", name, out=b"", err=b"corrupt")
    assert answer("check", name, code=4)["clean"] is False
    assert len(r.err) > len(b"shdict check: %s: corrupt: \n" % name.encode())


def scribble(name, needle, by):
    """Over each place in the segment that holds `needle`."""
    hits = 0
    with open(path_of(name), "r+b") as f:
        for begin, content in pages(name).items():
            at = content.find(needle)
            while at >= 0:
                f.seek(begin + at)
                f.write(by)
                hits += 1
                at = content.find(needle, at + 1)
    return hits


@case
def check_repair_tells_what_was_lost():
    name = segment("d=1m")
    for i in range(50):
        expect(0, "set", name, "d", "key%d" % i, "value%d" % i)
    assert answer("check", name, "--repair")["clean"] is True
    expect(0, "check", name, "--repair", out=b"clean\n")
    hits = scribble(name, b"key7", b"KEY7")
    assert hits >= 1, hits
    expect(4, "check", name, err=b"corrupt")
    r = expect(0, "check", name, "--repair")
    assert b"49 entries kept, 1 lost" in r.out, r
    assert r.out.endswith(b"clean now\n"), r
    expect(0, "check", name, out=b"clean\n")
    expect(1, "get", name, "d", "key7")
    for i in range(50):
        if i != 7:
            expect(0, "get", name, "d", "key%d" % i, out=b"value%d" % i)
    assert scribble(name, b"key8", b"KEY8")
    got = answer("check", name, "--repair")
    assert got["rebuilt"] == 1 and got["entries_lost"] == 1, got
    assert got["reset"] == 0 and got["entries_kept"] == 48, got


def as_nobody(*words):
    """A copy is run: nobody may not get at a tree below /root."""
    with tempfile.TemporaryDirectory() as at:
        os.chmod(at, 0o755)
        copy = shutil.copy(SHDICT, at)
        return subprocess.run(
            ["setpriv", "--reuid", "65534", "--regid", "65534",
             "--clear-groups", copy] + list(words), env=environment, cwd="/",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@case
def a_segment_that_may_only_be_read_can_be_read():
    name = segment()
    expect(0, "set", name, "d", "k", "v")
    os.chmod(path_of(name), 0o644)
    if os.getuid() == 0:
        # root may write anything: be somebody else.
        os.chmod(path_of(name), 0o444)
        run_as = as_nobody
    else:
        os.chmod(path_of(name), 0o400)

        def run_as(*words):
            return subprocess.run([SHDICT] + list(words), env=environment,
                                  stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
    r = run_as("get", name, "d", "k")
    assert (r.returncode, r.stdout, r.stderr) == (0, b"v", b""), r
    for words in (["dump", name], ["check", name], ["stat", name, "d"],
                  ["workers", name], ["keys", name, "d"], ["ls", name]):
        r = run_as(*words)
        assert r.returncode == 0, (words, r)
    for words in (["set", name, "d", "k", "w"], ["delete", name, "d", "k"],
                  ["incr", name, "d", "n", "1", "--init", "0"],
                  ["check", name, "--repair"], ["reap", name],
                  ["rm", name, "d"]):
        r = run_as(*words)
        assert r.returncode == 3 and r.stderr.count(b"\n") == 1, (words, r)
    expect(0, "get", name, "d", "k", out=b"v")


@case
def a_segment_nobody_may_read_is_refused():
    if os.getuid() != 0:
        return
    name = segment()
    r = as_nobody("stat", name)
    assert r.returncode == 3 and b"its mode does not" in r.stderr, r


@case
def another_pid_namespace_may_only_read():
    if os.getuid() != 0:
        return
    name = segment()
    expect(0, "set", name, "d", "k", "v")

    def elsewhere(*words):
        return subprocess.run(["unshare", "--pid", "--fork", SHDICT] +
                              list(words), env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    r = elsewhere("get", name, "d", "k")
    assert (r.returncode, r.stdout) == (0, b"v"), r
    r = elsewhere("set", name, "d", "k", "w")
    assert r.returncode == 3 and b"namespace" in r.stderr, r
    expect(0, "get", name, "d", "k", out=b"v")


@case
def output_that_cannot_be_written_is_a_failure():
    name = segment()
    expect(0, "set", name, "d", "k", "v")
    for words in (["get", name, "d", "k"], ["dump", name, "--json"],
                  ["--version"], ["stat", name], ["ls"]):
        with open("/dev/full", "wb") as full:
            r = subprocess.run([SHDICT] + words, env=environment, stdout=full,
                               stderr=subprocess.PIPE)
        assert r.returncode == 5 and b"standard output" in r.stderr, r


# A command line for each verb that works on an object, and its kind.
OBJECT_VERBS = {
    "dict": ["get {} k", "set {} k v", "append {} k v", "touch {} k",
             "delete {} k", "incr {} n 1", "keys {}", "watch {} k --count 1",
             "flush {}", "resize {} 2m", "dump {}", "pop {} k"],
    "queue": ["push {} m", "pop {}", "peek {}", "drain {}", "requeue {}"],
    "topic": ["publish {} e", "follow {} --count 1"]}
SEGMENT_VERBS = ["ls", "stat", "map", "layout", "export", "workers", "queues",
                 "topics", "locks", "reap", "check", "dump", "load"]


def words_of(line, segment_name, object_name=None):
    verb, *rest = line.split()
    return [verb, segment_name] + [object_name if w == "{}" else w
                                   for w in rest]


def with_objects():
    name = segment("dict=1m", "other=1m")
    expect(0, "set", name, "dict", "k", "v")
    expect(0, "set", name, "other", "k", "v")
    expect(0, "push", name, "queue", "--create", "64k", "m")
    expect(0, "publish", name, "topic", "--create", "64k", "e")
    return name


@case
def each_verb_says_what_is_not_there_or_of_another_kind():
    name, path = with_objects(), os.path.join(directory, "foreign")
    with open(path, "wb") as f:
        f.write(b"GIF89a" * 1000)
    for line in SEGMENT_VERBS + sum(OBJECT_VERBS.values(), []):
        expect(3, *words_of(line, fresh(), "d"), out=b"",
               err=b"`shdict ls` lists what there is")
        expect(3, *words_of(line, path, "d"), out=b"",
               err=b"not a shdict segment")
    for kind, lines in OBJECT_VERBS.items():
        for line in lines:
            r = expect(3, *words_of(line, name, "none"), out=b"")
            assert b"no %s \"none\"" % kind.encode() in r.err, r
            assert b"`shdict ls %s` lists" % name.encode() in r.err, r
            for another in set(OBJECT_VERBS) - {kind}:
                r = expect(3, *words_of(line, name, another), out=b"")
                assert b"no " + kind.encode() in r.err and \
                    b"`shdict ls" in r.err, (line, another, r)
    assert {(o["name"], o["kind"]) for o in answer("ls", name)} == {
        ("dict", "dict"), ("other", "dict"), ("queue", "queue"),
        ("topic", "topic")}


@case
def each_verb_names_what_is_damaged_and_shows_the_rest():
    name = with_objects()
    parts = {(p["object"], p["part"]): p
             for p in answer("layout", name)["parts"]}
    with open(path_of(name), "r+b") as f:
        for damaged in ("dict", "queue", "topic"):
            f.seek(parts[damaged, "header"]["at"] + 16)
            f.write(b"\xff" * 32)
    for kind, lines in OBJECT_VERBS.items():
        for line in lines:
            expect(4, *words_of(line, name, kind), out=b"",
                   err=b"'%s': its header is damaged" % kind.encode())
    for line in ("ls", "stat", "topics", "queues", "export", "reap", "check"):
        expect(4, line, name, err=b"damaged")
    expect(4, "map", name, err=b"damaged")
    figures = expect(4, "export", name).out.decode()
    for kind in ("dict", "queue", "topic"):
        assert ('shdict_damaged{segment="%s",object="%s",kind="%s"} 1'
                % (name, kind, kind)) in figures, figures
    assert 'object="other",kind="dict"} 0' in figures, figures
    assert 'shdict_segment_objects_damaged{segment="%s"} 3' % name in figures
    r = expect(4, "dump", name, err=b"damaged")
    assert b"\nk\t" in r.out and b"#end" not in r.out, r
    for line in ("workers", "layout", "locks"):
        expect(0, line, name)
    # What is sound is shown, and works.
    assert "other" in [o["name"] for o in answer("ls", name, code=4)]
    told = answer("stat", name, code=4)
    assert [o["name"] for o in told["objects"]] == ["other"], told
    assert answer("stat", name, "other")["entries"] == 1
    expect(4, "stat", name, "dict", err=b"header is damaged")
    expect(0, "get", name, "other", "k", out=b"v")
    # The catalogue itself.
    with open(path_of(name), "r+b") as f:
        for slot in range(4):
            f.seek(parts[None, "catalogue"]["at"] + 128 * slot + 16)
            f.write(b"\xff" * 16)
    for kind, lines in OBJECT_VERBS.items():
        for line in lines:
            expect(4, *words_of(line, name, kind), out=b"", err=b"catalogue")
    for line in ("ls", "stat", "map", "layout", "topics", "queues", "locks",
                 "export", "check"):
        expect(4, line, name, err=b"catalogue")
    expect(0, "workers", name)

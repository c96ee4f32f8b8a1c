# SPDX-License-Identifier: BSD-2-Clause
"""What is taken out of a segment comes back as it was: dump and load, save and
restore."""
import json
import os
import re
import resource
import signal
import subprocess

from harness import (SHDICT, WORKER, answer, case, directory, environment,
                     expect, fresh, run, segment)


ODD = (0, 1, 9, 10, 13, 27, 32, 34, 35, 92, 127, 128, 155, 192, 255)
ALL = "".join("\\x%02x" % i for i in range(256))


def filled(name, d="d"):
    """Every type, and bytes that text has trouble with."""
    for i in ODD:
        expect(0, "set", name, d, "-e", "--", "byte \\x%02x" % i,
               "\\x%02x\\x00%d" % (i, i))
    for n in ("0", "-0", "0.1", "1e300", "-inf", "nan", "12345678901234567"):
        expect(0, "set", name, d, "-n", "--", "number " + n, n)
    expect(0, "set", name, d, "yes", "true", "-b", "--flags", "-7")
    expect(0, "set", name, d, "short", "v", "--ttl", "1000", "-f", "9")
    expect(0, "set", name, d, "#dict", "not a mark")
    expect(0, "set", name, d, "empty", "")
    expect(0, "set", name, d, "-e", "--", ALL, ALL)
    expect(0, "set", name, d, "big", "--stdin", stdin=os.urandom(300000))
    expect(0, "set", name, d, "k" * 65535, "v")
    subprocess.run(WORKER + ["push", "list", "700"], check=True,
                   env=dict(environment, SHDICT_SEGMENT=name))


def content(name, *d):
    """Of each key all but what time changes."""
    found = {}
    for e in answer("dump", name, *d):
        e.pop("age")
        ttl = e.pop("ttl")
        assert ttl is None or 900 < ttl <= 1000, e
        key = (e.pop("dict", None), str(e.pop("key")))
        assert key not in found, key
        found[key] = dict(e, forever=ttl is None)
    return found


@case
def a_dump_loaded_is_the_same():
    name, other = segment("d=4m"), fresh()
    filled(name)
    text = expect(0, "dump", name).out
    assert text.startswith(b"#shdict dump 1\n#dict\td\t4194304\t"), text[:80]
    assert re.search(rb"\n#end\t\d+\n$", text), text[-80:]
    assert max(text) < 128 or text.decode()  # lines for any editor
    expect(0, "create", other, "--size", "1g")
    expect(3, "load", other, stdin=text, err=b"--create makes it")
    r = expect(0, "load", other, "--create", stdin=text)
    before, after = content(name), content(other)
    assert r.out == b"%d entries loaded\n" % len(before), r
    assert before == after
    assert len(after) == len(ODD) + 7 + 8, len(after)
    assert answer("stat", other, "d")["capacity_bytes"] == 4 << 20
    expect(0, "check", other, out=b"clean\n")
    # Another time over what is there; and into a dict by name.
    expect(0, "load", other, stdin=text)
    assert content(other) == before
    expect(0, "create", other, "--open", "--dict", "e=4m")
    expect(0, "load", other, "e", stdin=expect(0, "dump", name, "d").out)
    assert content(other, "e") == content(name, "d")


@case
def a_part_of_a_dict_is_dumped():
    name = segment("d=1m", "e=1m")
    for i in range(30):
        expect(0, "set", name, "de"[i % 2], "key%d" % i, "v")
    got = answer("dump", name, "--match", "key1?")
    assert sorted(e["key"] for e in got) == ["key%d" % i for i in
                                             range(10, 20)], got
    out = expect(0, "dump", name, "d", "--match", "key2*", "--keys").out
    assert sorted(out.split()) == [b"key%d" % i for i in
                                   (2, 20, 22, 24, 26, 28)], out
    assert b"e\tkey1\n" in expect(0, "dump", name, "-k").out
    assert sorted(answer("dump", name, "e", "--keys", "-g", "*9")) == \
        ["key19", "key29", "key9"]
    assert answer("keys", name, "e", "--match", "key9") == ["key9"]
    expect(2, "keys", name, "e", "--match", "x", "--oldest")
    expect(0, "load", name, "e",
           stdin=expect(0, "dump", name, "d", "-g", "key2").out,
           out=b"1 entries loaded\n")
    expect(0, "get", name, "e", "key2", out=b"v")


@case
def load_adds_and_keeps():
    name = segment()
    expect(0, "set", name, "d", "a", "1")
    expect(0, "set", name, "d", "b", "2")
    subprocess.run(WORKER + ["push", "list", "3"], check=True,
                   env=dict(environment, SHDICT_SEGMENT=name))
    text = expect(0, "dump", name).out
    expect(0, "set", name, "d", "a", "other")
    expect(0, "delete", name, "d", "b")
    got = answer("load", name, "--add", stdin=text)
    assert got == {"loaded": 1, "elements": 0, "expired": 0, "kept": 2}, got
    expect(0, "get", name, "d", "a", out=b"other")
    expect(0, "get", name, "d", "b", out=b"2")
    expect(0, "set", name, "d", "gone", "v", "--ttl", "0.001")
    while run("get", name, "d", "gone").code == 0:
        pass
    text = expect(0, "dump", name, "--expired").out
    assert answer("load", name, stdin=text)["expired"] == 1
    # No room, and nothing is to be evicted.
    full = segment("d=8k")
    r = run("load", full, "d", "--safe", stdin=b"#shdict dump 1\n" + b"".join(
        b"k%d\tstring\t0\t-\t0\t%s\n" % (i, b"v" * 200) for i in range(50)))
    assert r.code == 1 and b"no memory" in r.err, r


@case
def what_is_no_dump_is_refused_by_its_line():
    name = segment()
    head = b"#shdict dump 1\n#dict\td\t1048576\t2097152\t1\n"
    good = b"a\tstring\t0\t-\t0\tv\n"
    for text, line, why in (
            (b"", 1, b"cut off"), (b"x\n", 1, b"no dump"),
            (b"#shdict dump 2\n", 1, b"another version"),
            (b"#shdict dump 1\n" + good, 2, b"no #dict"),
            (head + good, 4, b"#end is missing"),
            (head + good[:-1], 3, b"cut off"),
            (head + good + b"#end\t2\n", 4, b"lines are missing"),
            (head + good + b"#end\t1\n" + good, 5, b"after #end"),
            (head + b"a\tstring\t0\t-\tv\n", 3, b"no entry"),
            (head + b"a\tstring\t0\t-\t0\tv\tw\n", 3, b"no entry"),
            (head + b"a\tstring\tx\t-\t0\tv\n", 3, b"no entry"),
            (head + b"a\tstring\t0\tsoon\t0\tv\n", 3, b"no entry"),
            (head + b"a\tblob\t0\t-\t0\tv\n", 3, b"no entry"),
            (head + b"a\tnumber\t0\t-\t0\tone\n", 3, b"no entry"),
            (head + b"a\tboolean\t0\t-\t0\tmaybe\n", 3, b"no entry"),
            (head + b"a\tstring\t0\t-\t0\t\\q\n", 3, b"no entry"),
            (head + b"a\tstring\t0\t-\t0\t\0\n", 3, b"NUL"),
            (head + b"\tstring\tv\n", 3, b"no list"),
            (head + b"l\tlist\t0\t-\t0\t1\n\tboolean\ttrue\n", 4,
             b"no element"),
            (b"#shdict dump 1\n#dict\td\n", 2, b"no #dict line")):
        r = run("load", name, stdin=text)
        assert r.code == 2 and b"line %d: " % line in r.err, (text, r)
        assert why in r.err and r.err.count(b"\n") == 1, (why, r)
    r = run("load", name, stdin=head + b"\tstring\n")
    assert r.code == 2, r
    # Marks of later versions are passed over.
    expect(0, "load", name, stdin=head + b"#news\tx\n" + good + b"#end\t1\n")
    expect(2, "load", name, "d", "--create", stdin=b"")


@case
def a_large_dict_is_dumped_in_little_memory():
    name = segment("d=64m,128m")
    lines = [b"#shdict dump 1"]
    for i in range(200000):
        lines.append(b"key number %d\tstring\t0\t-\t0\tvalue %d" % (i, i))
    lines.append(b"#end\t200000\n")
    expect(0, "load", name, "d", stdin=b"\n".join(lines),
           out=b"200000 entries loaded\n")
    with open(os.path.join("/dev/shm", "shdict-" + name)) as f:
        size = os.fstat(f.fileno()).st_blocks * 512
    assert size > 16 << 20, size
    # What is the process's own, the segment's pages not counted.
    limit = 8 << 20
    done = subprocess.run(
        [SHDICT, "dump", name], env=environment, stdout=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA,
                                              (limit, limit)))
    assert done.returncode == 0
    assert done.stdout.count(b"\n") == 200000 + 4, done.stdout[-100:]
    assert done.stdout.endswith(b"#end\t200000\n")


@case
def a_dump_in_json_loaded_is_the_same():
    name, other = segment("d=4m", "e=64k"), segment("d=4m", "e=64k")
    filled(name)
    expect(0, "set", name, "e", "k", "v")
    expect(0, "load", name, "d", stdin=b"#shdict dump 1\n"
           b"odd list\tlist\t0\t-\t0\t6\n\tnumber\t0.1\n"
           b"\tnumber\tnan\n\tstring\tnan\n\tnumber\t-inf\n"
           b"\tnumber\t1e300\n\tnumber\t-0\n#end\t1\n")
    text = expect(0, "dump", name, "--json").out
    got = answer("load", other, stdin=text)
    before = content(name)
    assert got["loaded"] == len(before), got
    assert content(other) == before
    lists = [e for e in answer("dump", other, "d") if e["key"] == "odd list"]
    assert lists[0]["value"] == [0.1, {"number": "nan"}, "nan",
                                 {"number": "-inf"}, 1e300, -0.0], lists
    # As other programs write it; into a dict by name, though it has one.
    tidy = json.dumps(json.loads(text), indent=2, sort_keys=True).encode()
    expect(0, "create", other, "--open", "--dict", "f=4m")
    expect(0, "load", other, "f", "--add", stdin=tidy)
    assert {k[1]: v for k, v in content(other, "f").items()} == \
        {k[1]: v for k, v in before.items()}
    # From a dump of one dict, which does not name it.
    text = expect(0, "dump", name, "e", "--json").out
    expect(2, "load", other, stdin=text, err=b"name a DICT")
    expect(0, "load", other, "d", stdin=text, out=b"1 entries loaded\n")
    expect(0, "load", other, "d", stdin=b'{"items": []}',
           out=b"0 entries loaded\n")
    # A dict that is not there cannot be made: how large would it be?
    expect(0, "rm", other, "e")
    expect(3, "load", other, "--create",
           stdin=expect(0, "dump", name, "--json").out, err=b"make it first")


@case
def what_is_no_json_dump_is_refused_by_its_item():
    name = segment()
    good = b'{"key": "a", "type": "string", "value": "v", "flags": 0}'

    def frame(*items):
        return b'{"schema": 1, "items": [' + b", ".join(items) + b"]}\n"

    for text, item, why in (
            (b"{", 0, b"cut off"), (b'{"schema": 2, "items": []}', 0,
                                    b"another version"),
            (b'{"schema": 1}', 0, b"no dump"), (b'{"x": 1}', 0, b"no dump"),
            (b'{"schema": 1, "items": {}}', 1, b"no JSON"),
            (frame(good)[:-4], 1, b"cut off"),
            (frame(good)[:-3], 1, b"cut off"),
            (frame(good)[:-2], 1, b"cut off"),
            (frame(good) + b"x", 1, b"after its end"),
            (frame(b'"a"'), 1, b"no JSON"),
            (frame(good, b"{}"), 2, b"no entry"),
            (frame(good.replace(b'"a"', b"7")), 1, b"no entry"),
            (frame(good.replace(b'"a"', b'{"base64": "YQ"}')), 1,
             b"no entry"),
            (frame(good.replace(b'"a"', b'{"base64": "Y?=="}')), 1,
             b"no entry"),
            (frame(good.replace(b'"string"', b'"blob"')), 1, b"no entry"),
            (frame(good.replace(b'"string"', b'"number"')), 1, b"no entry"),
            (frame(good.replace(b'"string"', b'"list"')), 1, b"no entry"),
            (frame(good.replace(b": 0", b": 1e9")), 1, b"no entry"),
            (frame(good.replace(b"0}", b'0, "ttl": "soon"}')), 1,
             b"no entry"),
            (frame(b'{"key": "l", "type": "list", "value": [true]}'), 1,
             b"an element")):
        r = run("load", name, "d", stdin=text)
        assert r.code == 2 and b"item %d: " % item in r.err, (text, r)
        assert why in r.err and r.err.count(b"\n") == 1, (why, r)
    expect(0, "load", name, "d", out=b"1 entries loaded\n",
           stdin=frame(good.replace(b'"a"', b'{"base64": "YQ=="}')))
    expect(0, "get", name, "d", "a", out=b"v")


# ---- save and restore ------------------------------------------------------

def snapshot(name):
    return os.path.join(directory, name + ".snapshot")


@case
def a_segment_saved_and_restored_is_the_same():
    name, other = segment("d=4m", "e=64k"), fresh()
    filled(name)
    expect(0, "set", name, "e", "k", "v")
    expect(0, "push", name, "q", "--create", "1m", "job")
    path = snapshot(name)
    before = content(name)
    r = expect(0, "save", name, path)
    assert b"as it was at one moment" in r.out, r
    got = answer("save", name, path)
    assert got["segment"] == name and got["objects"] == 3, got
    assert got["entries"] == len(before) and got["messages"] == 1, got
    assert got["one_moment"] is True and got["dropped"] == 0, got
    assert got["bytes"] == os.stat(path).st_size, got
    assert os.stat(path).st_mode & 0o777 == 0o600
    # Of the name it had, when that is free; never over what is there.
    expect(1, "restore", path, err=b"exists")
    expect(0, "rm", name)
    expect(0, "restore", path)
    assert content(name) == before
    expect(0, "check", name, out=b"clean\n")
    assert answer("restore", "--verify", path)["verified"] is True
    got = answer("restore", path, other)
    assert got["entries"] == len(before) and got["expired"] == 0, got
    assert content(other) == before
    expect(0, "pop", other, "q", out=b"job")
    # A pipe, and a segment that nobody has.
    r = expect(0, "save", name, "-")
    assert r.out.startswith(b"shdict snapshot\n"), r
    expect(1, "restore", "-", other, stdin=r.out, err=b"--replace")
    expect(0, "restore", "-", other, "--replace", stdin=r.out)
    expect(0, "pop", other, "q", out=b"job")
    expect(0, "save", other, "--read-only", path)
    expect(2, "save", name, "-", "--json", err=b"standard output")
    expect(2, "save", name, path, "--hold", "0", err=b"--hold")
    expect(2, "restore", path, other, "--verify", err=b"no SEGMENT")


@case
def a_segment_in_use_is_replaced_only_by_force():
    name = segment()
    path = snapshot(name)
    expect(0, "set", name, "d", "k", "v")
    expect(0, "save", name, path)
    expect(0, "set", name, "d", "k", "w")
    worker = subprocess.Popen(WORKER + ["idle"], stdout=subprocess.PIPE,
                              env=dict(environment, SHDICT_SEGMENT=name))
    try:
        assert worker.stdout.readline() == b"ready\n"
        expect(1, "restore", path, "--replace", err=b"1 live worker")
        expect(0, "get", name, "d", "k", out=b"w")
        expect(0, "restore", path, "--force")
        expect(0, "get", name, "d", "k", out=b"v")
    finally:
        worker.kill()
        worker.wait()


@case
def what_is_no_snapshot_is_refused_with_a_line():
    name = segment()
    path = snapshot(name)
    for i in range(3):
        expect(0, "set", name, "d", "key %d" % i, "v" * 100)
    expect(0, "save", name, path)
    with open(path, "rb") as f:
        good = f.read()
    for bad, code, why in (
            (b"", 3, b"no snapshot"), (b"#shdict dump 1\n", 3, b"no snapshot"),
            (good[:40], 4, b"cut off"), (good[:64], 4, b"cut off"),
            (good[:-1], 4, b"cut off"),
            (good[:16] + b"\2" + good[17:], 3, b"use a newer one"),
            (good[:30] + b"\0\0" + good[32:], 4, b"header is wrong"),
            (good[:200] + b"?" + good[201:], 4, b"block 0, at byte 64")):
        expect(code, "restore", "-", fresh(), stdin=bad, err=why)
        expect(code, "restore", "-", "--verify", stdin=bad, err=why)
    with open(path + ".more", "wb") as f:
        f.write(good + b"x")
    expect(4, "restore", path + ".more", fresh(), err=b"after its end")
    expect(3, "restore", "/nowhere/x", err=b"no file")
    expect(3, "save", name, "/nowhere/x", err=b"no directory")
    expect(3, "save", fresh(), path, err=b"cannot attach")
    expect(2, "save", name, "/dev/null", err=b"no regular file")
    expect(2, "restore", path, "a/b", err=b"slash")
    # No room for the file: the old one stays.
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    r = run("save", name, path, "--read-only", preexec_fn=limit)
    assert r.code == 1 and b"is as it was" in r.err, r
    with open(path, "rb") as f:
        assert f.read() == good
    assert os.listdir(directory).count(os.path.basename(path)) == 1
    assert not [n for n in os.listdir(directory) if ".new-" in n]

# SPDX-License-Identifier: BSD-2-Clause
"""Each verb does what its page says, in text and in JSON."""
import base64
import json
import os
import pty
import re
import select
import signal
import subprocess
import time

from harness import (SHDICT, WORKER, answer, case, environment, expect,
                     fresh, pages, path_of, run, segment, until)


def lines_of(*words):
    """The lines of a dump that are entries."""
    return [s for s in expect(0, *words).out.decode().splitlines()
            if s[0] not in "#\t"]


@case
def create_makes_a_segment_that_ls_shows():
    name = fresh()
    expect(0, "create", name, "--size", "64m", "--mode", "0640",
           "--dict", "a=1m", "--dict", "b=8192", out=b"")
    info = os.stat(path_of(name))
    # The tables come on top of the room that was asked for.
    assert 64 << 20 <= info.st_size < 128 << 20, info.st_size
    assert info.st_mode & 0o777 == 0o640, oct(info.st_mode)
    found = [s for s in answer("ls") if s["name"] == name]
    assert len(found) == 1 and found[0]["state"] == "ok", found
    assert found[0]["size_bytes"] == info.st_size, found
    assert found[0]["objects"] == 2 and found[0]["workers"] == 0, found
    assert re.search(br"^%s +[\d.]+M .* ok$" % name.encode(),
                     expect(0, "ls").out, re.M)
    dicts = answer("ls", name)
    assert [d["name"] for d in dicts] == ["a", "b"], dicts
    assert dicts[0]["capacity_bytes"] == 1 << 20, dicts
    assert expect(0, "ls", name).out.count(b"\n") == 3


@case
def create_with_json_says_the_name():
    name = fresh()
    assert answer("create", name) == {"created": name}


@case
def create_twice_is_no():
    name = segment()
    expect(0, "set", name, "d", "k", "v")
    expect(1, "create", name, "--dict", "e=1m", err=b"exists")
    expect(0, "get", name, "d", "k", out=b"v")
    assert [d["name"] for d in answer("ls", name)] == ["d"]


@case
def create_open_adds_what_lacks():
    name = segment("d=1m")
    expect(0, "set", name, "d", "k", "v")
    expect(0, "create", name, "--open", "--dict", "d=1m", "--dict", "e=2m")
    assert [d["name"] for d in answer("ls", name)] == ["d", "e"]
    expect(0, "get", name, "d", "k", out=b"v")
    expect(1, "create", name, "--open", "--dict", "d=3m")


@case
def create_that_fails_leaves_nothing():
    name = fresh()
    expect(1, "create", name, "--size", "32m", "--dict", "a=1m",
           "--dict", "b=1g")
    assert not os.path.exists(path_of(name))


@case
def stat_shows_figures():
    name = segment("d=1m")
    expect(0, "set", name, "d", "k", "v")
    s = answer("stat", name)
    assert s["path"] == path_of(name), s
    assert s["size_bytes"] == os.stat(path_of(name)).st_size, s
    assert s["deaths"] == 0 and s["workers_max"] == 1024, s
    assert abs(s["created_ms"] / 1000 - time.time()) < 100, s
    d = answer("stat", name, "d")
    assert d["name"] == "d" and d["entries"] == 1, d
    assert d["capacity_bytes"] == 1 << 20 and 0 < d["free_bytes"], d
    text = expect(0, "stat", name, "d").out.decode()
    assert re.search(r"^capacity_bytes +1048576 \(1M\)$", text, re.M), text
    for key, value in d.items():
        if isinstance(value, int):
            assert re.search(r"^%s +%d\b" % (key, value), text, re.M), key
    head = expect(0, "stat", name).out.decode().split("\n\n")[0]
    assert len(head.splitlines()) == len(s) - len(["objects"]), head


PARTS = ("live", "expired", "garbage", "entry", "list", "chain", "rounding",
         "free_cells", "free_pages", "page_tail", "header", "shards", "map",
         "table", "roots", "marks", "padding")


@case
def stat_explains_every_byte():
    name = segment("d=1m")
    expect(0, "set", name, "d", "k", "v")
    expect(0, "set", name, "d", "long", "--stdin", stdin=bytes(100000))
    expect(0, "set", name, "d", "gone", "v", "--ttl", "0.001")
    time.sleep(0.01)
    d = answer("stat", name, "d")
    assert d["all_bytes"] == 1 << 20, d
    assert sum(d[part + "_bytes"] for part in PARTS) == d["all_bytes"], d
    assert d["live_bytes"] == 2 + 100004 and d["expired_bytes"] == 48, d
    assert d["entries_live"] == 2 and d["entries_expired"] == 1, d
    assert d["chain_bytes"] == 25 * 24, d
    used = {c["cell_bytes"]: c["used"] for c in d["classes"]}
    assert used[48] == 3 and used[4096] == 25, used
    assert sum(c["pages"] for c in d["classes"]) == d["pages"] - d[
        "pages_free"], d
    text = expect(0, "stat", name, "d").out.decode()
    assert re.search(r"^cells_48 +3 used, 82 free, 1 pages$", text,
                     re.M), text
    # What it says fits without evicting anything does fit, and no more.
    size = d["safe_value_max_bytes"]
    expect(0, "set", name, "d", "x", "--safe", "--stdin", stdin=bytes(size))
    size = d["free_pages_bytes"] // 4096 * 4072 + 4096
    expect(1, "set", name, "d", "y", "--safe", "--stdin", stdin=bytes(size))


@case
def resize_changes_a_dict_in_use():
    name = segment("d=1m,16m")
    values = [os.urandom(3000) for _ in range(150)]
    for i, value in enumerate(values):
        expect(0, "set", name, "d", "k%d" % i, "--stdin", stdin=value)
    used = os.stat(path_of(name)).st_blocks
    expect(0, "resize", name, "d", "8m", out=b"")
    d = answer("stat", name, "d")
    assert d["capacity_bytes"] == 8 << 20, d
    assert d["capacity_max_bytes"] == 16 << 20, d
    assert d["resizes"] == 1 and d["resizing"] == 0, d
    for i, value in enumerate(values):
        expect(0, "get", name, "d", "k%d" % i, out=value)
    got = answer("resize", name, "d", "200k")
    assert got["capacity_bytes"] == 200 << 10, got
    assert got["was_bytes"] == 8 << 20, got
    assert os.stat(path_of(name)).st_blocks < used - 700, used
    expect(0, "check", name, out=b"clean\n")
    assert answer("ls", name)[0]["capacity_bytes"] == 200 << 10
    kept = [i for i, value in enumerate(values)
            if run("get", name, "d", "k%d" % i).out == value]
    assert len(kept) == 150 - got["evictions"], (kept, got)
    assert 25 < len(kept) < (200 << 10) / 3000, kept
    expect(2, "resize", name, "d", "17m", err=b"16777216 bytes at most")
    expect(2, "resize", name, "d", "8k", err=b"needs at least 16384")
    expect(2, "resize", name, "d", "much", err=b"SIZE")
    expect(3, "resize", name, "none", "1m")
    expect(3, "resize", name + "x", "d", "1m")
    # What the supervisor was told once does not undo it.
    expect(1, "create", name, "--open", "--dict", "d=1m", err=b"resize")
    expect(0, "create", name, "--open", "--dict", "d=200k")


@case
def a_maximum_below_the_size_is_refused():
    name = fresh()
    for spec in ("d=2m,1m", "d=2m,", "d=,2m", "d=2m,x", "d=1m,2m,3m"):
        expect(2, "create", name, "--dict", spec, err=b"is not like")


@case
def set_and_get_give_back_the_bytes():
    name = segment()
    for value in (b"", b"v", b"two\nlines\n", b"\x1b[2J\xff\x80", b"-5 "):
        expect(0, "set", name, "d", "k", "--", value, out=b"")
        expect(0, "get", name, "d", "k", out=value)
    big = os.urandom(300000)
    expect(0, "set", name, "d", "big", "--stdin", stdin=big)
    expect(0, "get", name, "d", "big", out=big)


@case
def get_tells_absent_by_its_exit():
    name = segment()
    expect(1, "get", name, "d", "k", out=b"", err=b"not found")
    assert answer("get", name, "d", "k", code=1) == {"key": "k",
                                                     "found": False}


@case
def get_in_json_tells_all():
    name = segment()
    expect(0, "set", name, "d", "k", "v", "--ttl", "100", "--flags", "-7")
    got = answer("get", name, "d", "k")
    assert 90 < got.pop("ttl") <= 100
    assert got == {"key": "k", "found": True, "type": "string", "value": "v",
                   "flags": -7}, got
    expect(0, "set", name, "d", "k", "")
    assert answer("get", name, "d", "k") == {
        "key": "k", "found": True, "type": "string", "value": "", "flags": 0,
        "ttl": None}


@case
def numbers_and_booleans_are_typed():
    name = segment()
    for text, value in (("0.1", 0.1), ("-3", -3), ("1e300", 1e300),
                        ("12345678901234", 12345678901234)):
        expect(0, "set", name, "d", "n", text, "--number")
        got = answer("get", name, "d", "n")
        assert got["type"] == "number" and got["value"] == value, got
        assert float(expect(0, "get", name, "d", "n").out) == value
    expect(0, "get", name, "d", "n", out=b"12345678901234")
    expect(0, "set", name, "d", "n", "0.1", "-n")
    expect(0, "get", name, "d", "n", out=b"0.1")
    expect(0, "set", name, "d", "n", "inf", "--number")
    assert answer("get", name, "d", "n")["value"] == "inf"
    for word, value in (("true", True), ("0", False)):
        expect(0, "set", name, "d", "b", word, "--boolean")
        got = answer("get", name, "d", "b")
        assert got["type"] == "boolean" and got["value"] is value, got
    expect(0, "get", name, "d", "b", out=b"false")


@case
def ttl_ends_an_entry_and_stale_still_finds_it():
    name = segment()
    expect(0, "set", name, "d", "k", "v", "--ttl", "0.05")
    until(lambda: "k" not in answer("keys", name, "d"), "expiry", 60)
    expect(1, "get", name, "d", "k")
    expect(0, "get", name, "d", "k", "--stale", out=b"v")
    got = answer("get", name, "d", "k", "--stale")
    assert got["stale"] is True and got["ttl"] < 0, got
    assert lines_of("dump", name, "d") == []
    assert lines_of("dump", name, "d", "-x")[0].startswith("k\tstring\t0\t-")
    expect(0, "set", name, "d", "k", "v", "--ttl", "0.0001")
    time.sleep(0.05)
    expect(1, "get", name, "d", "k")


@case
def add_and_replace_look_first():
    name = segment()
    expect(1, "set", name, "d", "k", "v", "--replace", err=b"not found")
    expect(0, "set", name, "d", "k", "v", "--add")
    expect(1, "set", name, "d", "k", "w", "--add", err=b"exists")
    expect(0, "get", name, "d", "k", out=b"v")
    expect(0, "set", name, "d", "k", "w", "--replace")
    expect(0, "get", name, "d", "k", out=b"w")
    assert answer("set", name, "d", "k", "w", "--add", code=1) == {
        "stored": False, "forcible": False}


@case
def safe_evicts_nothing_and_plain_does():
    name = segment("d=65536")
    value = "x" * 1000
    for i in range(100):
        r = answer("set", name, "d", "k%d" % i, value)
        assert r["stored"], r
        if r["forcible"]:
            break
    assert r["forcible"], "100 KB fit into a dict of 64 KiB"
    before = set(answer("keys", name, "d"))
    expect(1, "set", name, "d", "new", "y" * 20000, "--safe",
           err=b"no memory")
    assert set(answer("keys", name, "d")) == before
    expect(0, "set", name, "d", "new", "y" * 20000)
    assert set(answer("keys", name, "d")) < before | {"new"}
    expect(1, "set", name, "d", "new", "--stdin", stdin=b"z" * 100000,
           err=b"larger than the dict")
    expect(0, "get", name, "d", "new", out=b"y" * 20000)


@case
def set_over_an_old_value_compares():
    name = segment()
    expect(1, "set", name, "d", "k", "v", "--old", "u", err=b"not found")
    expect(0, "set", name, "d", "k", "v")
    expect(1, "set", name, "d", "k", "w", "--old", "u", err=b"changed")
    assert answer("set", name, "d", "k", "w", "--old", "vv", code=1) == {
        "stored": False, "forcible": False}
    expect(0, "set", name, "d", "k", "w\\n", "--old", "\\x76", "-e")
    expect(0, "get", name, "d", "k", out=b"w\n")
    expect(0, "set", name, "d", "n", "1", "-n")
    expect(1, "set", name, "d", "n", "3", "-n", "-o", "2", err=b"changed")
    expect(0, "set", name, "d", "n", "3", "-n", "-o", "1.0")
    expect(0, "get", name, "d", "n", out=b"3")
    expect(0, "set", name, "d", "b", "true", "-b")
    expect(0, "set", name, "d", "b", "false", "-b", "--old", "1")
    expect(2, "set", name, "d", "k", "v", "--old", "u", "--add")
    expect(2, "set", name, "d", "k", "1", "-n", "--old", "u")


@case
def append_prints_the_length():
    name = segment()
    expect(1, "append", name, "d", "k", "v", out=b"", err=b"not found")
    expect(0, "append", name, "d", "k", "bc", "-c", "--init-ttl", "50",
           out=b"2\n")
    expect(0, "append", name, "d", "k", "a", "--before", out=b"3\n")
    assert answer("append", name, "d", "k", "\\x00", "-e") == {"length": 4}
    expect(0, "get", name, "d", "k", out=b"abc\0")
    assert 40 < answer("get", name, "d", "k")["ttl"] <= 50
    expect(0, "set", name, "d", "n", "1", "-n")
    expect(1, "append", name, "d", "n", "v", err=b"not a string")
    expect(2, "append", name, "d", "k", "v", "--init-ttl", "5")


@case
def touch_makes_it_the_newest():
    name = segment()
    for key in ("a", "b"):
        expect(0, "set", name, "d", key, "v", "--ttl", "500")
    expect(0, "touch", name, "d", "a", out=b"")
    expect(0, "keys", name, "d", "--oldest", out=b"b\na\n")
    assert 400 < answer("get", name, "d", "a")["ttl"] <= 500
    expect(0, "touch", name, "d", "a", "--ttl", "50")
    assert 40 < answer("get", name, "d", "a")["ttl"] <= 50
    expect(1, "touch", name, "d", "c", err=b"not found")
    assert answer("touch", name, "d", "c", code=1) == {"touched": False}


@case
def queues_are_pushed_to_and_popped_from():
    name = segment()
    expect(3, "push", name, "jobs", "x", err=b"no queue")
    assert answer("push", name, "jobs", "one", "--create", "4k") == {"id": 1}
    expect(0, "push", name, "jobs", stdin=b"two\nlines")
    expect(0, "push", name, "jobs", "late", "--delay", "500")
    row = answer("queues", name)[0]
    assert (row["name"], row["ready"], row["delayed"]) == ("jobs", 2, 1), row
    assert row["pushed"] == 3 and row["leased"] == 0, row
    assert re.search(br"^jobs +2 +1 +0 +0 ", expect(0, "queues", name).out,
                     re.M)
    kinds = {o["name"]: o["kind"] for o in answer("ls", name)}
    assert kinds["jobs"] == "queue" and kinds["d"] == "dict", kinds
    assert b"jobs" in expect(0, "ls", name).out
    seen = answer("peek", name, "jobs")
    assert [m["message"] for m in seen] == ["one", "two\nlines"], seen
    assert [m["id"] for m in seen] == [1, 2], seen
    out = expect(0, "peek", name, "jobs", "--max", "1").out
    assert out.startswith(b"1\tready\t0\t") and out.endswith(b"\tone\n"), out
    late = answer("peek", name, "jobs", "--delayed")
    assert late[0]["message"] == "late" and late[0]["when_ms"] > 0, late
    expect(0, "pop", name, "jobs", out=b"one")
    assert answer("pop", name, "jobs")["message"] == "two\nlines"
    expect(1, "pop", name, "jobs", err=b"empty")
    expect(1, "pop", name, "jobs", "--wait", "0.01", err=b"empty")
    expect(0, "drain", name, "jobs", "--delayed", out=b"1\n")
    assert answer("requeue", name, "jobs") == {"messages": 0}
    assert answer("drain", name, "jobs", "--dead") == {"messages": 0}
    expect(1, "push", name, "jobs", "x" * 70000, err=b"jobs")
    for _ in range(16):
        expect(0, "push", name, "jobs", "x")
    expect(1, "push", name, "jobs", "x", err=b"full")
    expect(0, "push", name, "work", "x", "--create", "4k", "--deliveries",
           "1", "--dead-to", "graves")
    row = [q for q in answer("queues", name) if q["name"] == "work"][0]
    assert (row["dead_to"], row["deliveries_max"]) == ("graves", 1), row
    assert row["forwarded"] == 0, row
    expect(2, "push", name, "work", "x", "--dead-to", "graves",
           err=b"--create")
    expect(2, "push", name, "self", "x", "--create", "4k", "--dead-to",
           "self", err=b"itself")
    expect(0, "check", name)
    expect(2, "pop", name, "d", "k", "--wait", "1")
    expect(3, "pop", name, "d", err=b"is a dict, no queue")
    expect(3, "get", name, "jobs", "k", err=b"is no dict")


@case
def workers_are_written_to_and_asked():
    name = segment()
    expect(3, "send", name, "m", "0", "x", err=b"no mailbox")
    host = subprocess.Popen(["luajit", "-e", """
        local shdict = require "shdict"
        local segment = assert(shdict.open(arg[1], { worker_id = 4 }))
        local box = assert(segment:mailbox("m"))
        assert(box:listen())
        print("ready")
        io.stdout:flush()
        while true do
            local text, from, request = box:receive(60)
            if request then
                assert(box:answer(request, "is " .. text))
            elseif text ~= "go on" then
                break
            end
        end
        io.read()
        """, "-", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=dict(environment, LUA_PATH=os.path.dirname(SHDICT) +
                 "/lua/?.lua;;"))
    try:
        assert host.stdout.readline() == b"ready\n"
        expect(0, "request", name, "m", "4", "it", out=b"is it")
        assert answer("request", name, "m", "4", "x" * 9)["answer"] == (
            "is " + "x" * 9)
        assert answer("send", name, "m", "4", "go on")["id"] > 0
        expect(0, "send", name, "m", "all", out=b"1\n", stdin=b"end")
        expect(1, "send", name, "m", "5", "x", err=b"no worker 5 listens")
        expect(1, "send", name, "m", "@1", "x", err=b"dead")
        expect(0, "send", name, "m", "4", "unread\n")
        expect(0, "send", name, "m", "4", "later")
        seen = answer("peek", name, "m", "4")
        assert [m["message"] for m in seen] == ["unread\n", "later"], seen
        assert not seen[0]["request"] and seen[0]["len"] == 7, seen
        assert seen == answer("peek", name, "m"), seen
        assert seen == answer("peek", name, "m", "@%d" % seen[0]["to"])
        out = expect(0, "peek", name, "m", "--max", "1").out
        assert re.fullmatch(br"\d+\tpost\t@\d+\t@\d+\t\S+\tunread\\n\n",
                            out), out
        expect(1, "peek", name, "m", "@1", err=b"has no box")
        expect(1, "peek", name, "m", "5", err=b"no worker 5 listens")
        expect(2, "peek", name, "m", "--dead", err=b"for a queue")
        boxes = [b for b in answer("mailboxes", name, "m") if not b["dead"]]
        assert [b["worker_id"] for b in boxes] == [4], boxes
        assert b" listening " in expect(0, "mailboxes", name, "m").out
        expect(1, "request", name, "m", "4", "x", "--wait", "0.01",
               err=b"in time")
        host.kill()
        host.wait()
        expect(0, "reap", name)
        row = answer("mailboxes", name)[0]
        assert (row["name"], row["boxes"]) == ("m", 0), row
        assert row["answered"] == 2 and row["cells_used"] == 0, row
        assert re.search(br"^m +0 +0 ", expect(0, "mailboxes", name).out, re.M)
    finally:
        host.kill()
        host.wait()
    expect(0, "check", name)


@case
def pop_prints_and_removes():
    name = segment("d=1m")
    expect(0, "set", name, "d", "k", "--stdin", stdin=b"x" * 200000)
    expect(0, "pop", name, "d", "k", out=b"x" * 200000)
    expect(1, "pop", name, "d", "k", out=b"", err=b"not found")
    expect(0, "set", name, "d", "k", "v", "-f", "3")
    got = answer("pop", name, "d", "k")
    assert got["value"] == "v" and got["flags"] == 3, got
    assert answer("pop", name, "d", "k", code=1)["found"] is False


@case
def delete_removes_once():
    name = segment()
    expect(0, "set", name, "d", "k", "v")
    expect(0, "delete", name, "d", "k", out=b"")
    expect(1, "delete", name, "d", "k", err=b"not found")
    assert answer("delete", name, "d", "k", code=1) == {"deleted": False}


@case
def incr_counts():
    name = segment()
    expect(1, "incr", name, "d", "k", "1", out=b"", err=b"not found")
    expect(0, "incr", name, "d", "k", "1", "--init", "10", out=b"11\n")
    expect(0, "incr", name, "d", "k", "-0.5", out=b"10.5\n")
    assert answer("incr", name, "d", "k", "-10.5") == {"value": 0}
    expect(0, "set", name, "d", "s", "12")
    expect(1, "incr", name, "d", "s", "1", err=b"not a number")
    expect(0, "incr", name, "d", "t", "1", "--init", "0", "--init-ttl", "50")
    assert 40 < answer("get", name, "d", "t")["ttl"] <= 50


@case
def keys_are_printed_once_and_at_most_max():
    name = segment("d=16m")
    wanted = ["k%d" % i for i in range(50)]
    for key in wanted:
        expect(0, "set", name, "d", key, "v")
    order = answer("keys", name, "d")
    assert sorted(order) == sorted(wanted), order
    text = "".join(k + "\n" for k in order).encode()
    expect(0, "keys", name, "d", out=text)
    assert answer("keys", name, "d", "--max", "7") == order[:7]
    assert answer("keys", name, "d", "--max", "0") == order
    assert len(answer("keys", name, "d", "--oldest", "--max", "7")) == 7
    assert answer("keys", segment(), "d") == []
    assert answer("keys", segment(), "d", "--oldest") == []


@case
def keys_come_oldest_first_if_asked():
    name = segment("d=1m")
    for key in ("c", "a", "b", "e", "d"):
        expect(0, "set", name, "d", key, "v")
    expect(0, "keys", name, "d", "--oldest", out=b"c\na\nb\ne\nd\n")
    expect(0, "keys", name, "d", "--oldest", "-m", "2", out=b"c\na\n")
    expect(0, "set", name, "d", "c", "w")
    assert answer("keys", name, "d", "-o") == ["a", "b", "e", "d", "c"]


@case
def binary_keys_come_and_go_escaped():
    name = segment()
    raw = b"\x00\x01\t\xff\\ \x1b[31m\xc3\xa9"
    text = b"\\x00\\x01\\t\\xff\\\\ \\x1b[31m\xc3\xa9"
    expect(0, "set", name, "d", text, b"v\\x00", "--escaped")
    expect(0, "keys", name, "d", out=text + b"\n")
    assert re.search(re.escape(text) + rb"\tstring\t0\t-\t\d+\tv\\x00\n",
                     expect(0, "dump", name, "d").out)
    expect(0, "get", name, "d", text, "-e", out=b"v\0")
    assert answer("keys", name, "d") == [
        {"base64": base64.b64encode(raw).decode()}]
    got = answer("get", name, "d", text, "-e")
    assert got["value"] == "v\0", got
    expect(0, "incr", name, "d", b"\\x00", "1", "-e", "--init", "0")
    expect(0, "delete", name, "d", text, "-e")
    expect(0, "keys", name, "d", out=b"\\x00\n")
    expect(2, "get", name, "d", "\\q", "-e", err=b"escaped")
    expect(2, "get", name, "d", "\\x0", "-e", err=b"escaped")


@case
def base64_is_right_at_every_length():
    name = segment()
    for n in range(1, 8):
        value = bytes([255 - i for i in range(n)])
        expect(0, "set", name, "d", "k", "--stdin", stdin=value)
        got = answer("get", name, "d", "k")["value"]
        assert base64.b64decode(got["base64"], validate=True) == value, got


@case
def dump_prints_every_entry_once():
    name = segment("one=1m", "two=1m")
    wanted = {}
    for i in range(200):
        d = ("one", "two")[i % 2]
        wanted[d, "k%d" % i] = "v" * i
        expect(0, "set", name, d, "k%d" % i, "v" * i)
    got = answer("dump", name)
    assert len(got) == 200
    assert {(e["dict"], e["key"]): e["value"] for e in got} == wanted
    lines = lines_of("dump", name)
    assert sorted(s.split("\t")[0] for s in lines) == sorted(
        k for _, k in wanted)
    assert len(lines_of("dump", name, "two")) == 100
    assert len(answer("dump", name, "one")) == 100
    assert "dict" not in answer("dump", name, "one")[0]


@case
def dump_prints_every_type():
    name = segment()
    expect(0, "set", name, "d", "n", "0.25", "-n", "-f", "3")
    expect(0, "set", name, "d", "b", "true", "-b", "--ttl", "1000")
    expect(0, "set", name, "d", "big", "--stdin", stdin=b"x" * 200000)
    subprocess.run(WORKER + ["push", "list", "5"], check=True,
                   env=dict(environment, SHDICT_SEGMENT=name))
    got = {e.pop("key"): e for e in answer("dump", name, "d")}
    assert 900 < got["b"].pop("ttl") <= 1000
    assert got["big"]["value"] == "x" * 200000
    for entry in got.values():
        assert 0 <= entry.pop("age") < 100, entry
    assert got["n"] == {"type": "number", "value": 0.25, "flags": 3,
                        "ttl": None}, got["n"]
    assert got["b"] == {"type": "boolean", "value": True, "flags": 0}
    values = got["list"].pop("value")
    assert len(values) == 5, values
    assert got["list"] == {"type": "list", "flags": 0, "ttl": None,
                           "length": 5}, got["list"]
    text = expect(0, "dump", name, "d").out
    assert re.search(rb"^list\tlist\t0\t-\t\d+\t5\n(\t.*\n){5}", text,
                     re.M), text[:300]
    expect(1, "get", name, "d", "list", err=b"list")


def on_terminal(*words, locale="C.UTF-8"):
    """What the command writes when stdout and stderr are a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([SHDICT] + list(words), stdout=theirs,
                               stderr=theirs, stdin=subprocess.DEVNULL,
                               env=dict(environment, LC_ALL=locale))
    os.close(theirs)
    got = b""
    while select.select([ours], [], [], 20)[0]:
        try:
            part = os.read(ours, 65536)
        except OSError:
            part = b""
        if not part:
            break
        got += part
    os.close(ours)
    return process.wait(), got.replace(b"\r\n", b"\n")


EVIL = b"\x1b[2J\x07\r\xc2\x9b31m\xe2\x80\xaeabc\x7f\xc3\xa9"


@case
def no_control_sequence_reaches_a_terminal():
    name = segment()
    expect(0, "set", name, "d", EVIL, EVIL)
    code, got = on_terminal("get", name, "d", EVIL)
    assert code == 0
    assert got == (b"\\x1b[2J\\x07\\r\\xc2\\x9b31m\\xe2\\x80\\xaeabc\\x7f"
                   b"\xc3\xa9\n"), got
    code, got = on_terminal("get", name, "d", EVIL, locale="C")
    assert got.endswith(b"\\xc3\\xa9\n"), got
    for words in (["keys", name, "d"], ["dump", name], ["get", name, EVIL,
                  "k"], ["get", name, "d", EVIL + b"x"], [EVIL],
                  ["ls", b"/" + EVIL], ["get", name, "d", EVIL, "--json"],
                  ["dump", name, "--json"], ["get", EVIL],
                  ["set", name, "d", "k", EVIL, "--number"]):
        code, got = on_terminal(*words)
        assert got and not re.search(br"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-"
                                     br"\x9f]|\xe2\x80\xae", got), \
            (words, got)
    code, got = on_terminal("get", name, "d", EVIL, "--raw")
    assert got == EVIL, got


@case
def workers_are_listed_while_they_live():
    name = segment()
    worker = subprocess.Popen(
        WORKER + ["idle"], stdout=subprocess.PIPE,
        env=dict(environment, SHDICT_SEGMENT=name, SHDICT_WORKER="3",
                 SHDICT_GENERATION="7"))
    try:
        assert worker.stdout.readline() == b"ready\n"
        found = answer("workers", name)
        assert len(found) == 1, found
        w = found[0]
        assert (w["pid"], w["worker"], w["generation"], w["state"]) == (
            worker.pid, 3, 7, "alive"), w
        rows = expect(0, "workers", name).out.decode().splitlines()
        assert len(rows) == 2 and rows[1].split()[1:5] == [
            str(worker.pid), "3", "7", "alive"], rows
        assert (w["phase"], w["restarts"], w["silent_ms"], w["supervisor"],
                w["holds"]) == (None, 0, None, False, []), w
        worker.send_signal(signal.SIGSTOP)
        assert answer("workers", name)[0]["state"] == "alive"
    finally:
        worker.kill()
        worker.wait()
    until(lambda: answer("workers", name)[0]["state"] == "dead", "death", 60)
    assert answer("reap", name) == {"reaped": 1, "recovered": 0}
    assert answer("workers", name) == []
    expect(0, "reap", name, out=b"0 dead workers reaped, 0 operations "
           b"undone\n")
    assert answer("stat", name)["deaths"] == 1


def stopped_worker(name, mode):
    worker = subprocess.Popen(WORKER + [mode], stdout=subprocess.PIPE,
                              env=dict(environment, SHDICT_SEGMENT=name))
    assert worker.stdout.readline() == b"ready\n"
    if mode == "hammer":
        time.sleep(0.1)
    worker.send_signal(signal.SIGSTOP)
    return worker


READERS = (["dump"], ["stat"], ["stat", "d"], ["workers"], ["keys", "d"],
           ["get", "d", "k"], ["ls"], ["check"])


@case
def readers_work_while_a_worker_is_stopped():
    name = segment()
    expect(0, "set", name, "d", "k", "v")
    worker = stopped_worker(name, "idle")
    try:
        for verb, *words in READERS:
            expect(0, verb, name, *words)
    finally:
        worker.kill()
        worker.wait()


@case
def no_reader_hangs_on_a_worker_stopped_in_an_operation():
    """Where it was stopped is chance: a reader either answers, or says that
    the dict is busy, and in bounded time."""
    name = segment()
    expect(0, "set", name, "d", "k", "v")
    for _ in range(3):
        worker = stopped_worker(name, "hammer")
        try:
            for verb, *words in READERS:
                begin = time.monotonic()
                r = run(verb, name, *words)
                took = time.monotonic() - begin
                assert took < 30, (verb, took)
                # 1: the hammer may have evicted the key of get.
                allowed = (0, 1, 5) if verb == "get" else (0, 5)
                assert r.code in allowed, (verb, str(r))
                assert r.code == 0 or r.err.count(b"\n") == 1, str(r)
            worker.send_signal(signal.SIGCONT)
            expect(0, "stat", name, "d")
        finally:
            worker.kill()
            worker.wait()
        expect(0, "reap", name)
        for verb, *words in READERS:
            if verb != "get":
                expect(0, verb, name, *words)


@case
def check_says_clean():
    name = segment("a=1m", "b=8m")
    for i in range(20):
        expect(0, "set", name, "ab"[i % 2], "k%d" % i, "v" * i * 100)
    expect(0, "check", name, out=b"clean\n")
    expect(0, "check", name, "--lock", out=b"clean\n")
    assert answer("check", name) == {"clean": True, "report": ""}


@case
def rm_removes_a_dict_and_a_segment():
    name = segment("a=1m", "b=1m")
    expect(0, "rm", name, "a", out=b"")
    assert [d["name"] for d in answer("ls", name)] == ["b"]
    expect(1, "rm", name, "a", err=b"a: ")
    expect(0, "rm", name)
    assert not os.path.exists(path_of(name))
    expect(1, "rm", name, err=b"cannot remove")
    assert answer("rm", name, code=1) == {"removed": False}


@case
def readers_leave_no_trace():
    name = segment()
    expect(0, "set", name, "d", "k", "v")
    expect(0, "get", name, "d", "k")
    before = pages(name)
    for words in (["get", name, "d", "k"], ["keys", name, "d"], ["ls", name],
                  ["dump", name], ["stat", name], ["stat", name, "d"],
                  ["check", name], ["workers", name]):
        expect(0, *words)
    assert pages(name) == before


@case
def json_lines_of_a_dump_stand_for_themselves():
    name = segment()
    for i in range(5):
        expect(0, "set", name, "d", "k%d" % i, "v")
    lines = expect(0, "dump", name, "--json").out.decode().splitlines()
    assert len(lines) == 7
    for line in lines[1:-1]:
        assert json.loads(line.strip(","))["value"] == "v"

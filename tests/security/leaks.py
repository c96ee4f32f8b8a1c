# SPDX-License-Identifier: BSD-2-Clause
"""What was stored once and is gone reaches nobody: not the next value in its
cell, not the next dict in its pages, no dump, no message."""
import ctypes

from harness import case, expect, fresh, path_of, run
from library import create, lib, opened, small

SECRET = b"Kq7-never-to-be-seen-again-"
LENGTHS = (1, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 100, 127, 129, 250, 500,
           1000, 2000, 3900, 4096, 5000, 20000, 100000)
FILLER = 0xee
U32, U64 = ctypes.c_uint32, ctypes.c_uint64


class DictOptions(ctypes.Structure):
    _fields_ = [("struct_size", U32), ("shards", U32), ("capacity_bytes", U64)]


class Value(ctypes.Structure):
    _fields_ = [("words", U64 * 16)]


buffer = ctypes.create_string_buffer(120000)


def make(segment, name):
    options = DictOptions(ctypes.sizeof(DictOptions), 0, 2 << 20)
    out = ctypes.c_void_p()
    rc = lib.shd_dict_open(segment, name, ctypes.addressof(options),
                           ctypes.addressof(out))
    assert rc == 0, lib.shd_last_error()
    return out


def must(rc):
    assert rc == 0, (rc, lib.shd_last_error())


def store(d, key, value):
    must(lib.shd_set(d, key, len(key), value, len(value), 0))


def secret(n):
    return (SECRET * (n // len(SECRET) + 1))[:n]


def soak(d):
    """Values, long and short, lists, until the oldest are evicted; then all
    are freed."""
    for i in range(3000):
        n = LENGTHS[i % len(LENGTHS)]
        store(d, b"%d-" % i + SECRET, secret(n))
        if i % 7 == 0:
            lib.shd_push(d, 0, b"list" + SECRET, 4 + len(SECRET), 1, secret(n),
                         n, 0.0, None)
    for i in range(3000):
        key = b"%d-" % i + SECRET
        if i % 3:
            lib.shd_delete(d, key, len(key))
    lib.shd_flush_all(d)
    must(lib.shd_flush_expired(d, U64(0), None))


def reads_back(d, key, value, how=lib.shd_get):
    ctypes.memset(buffer, FILLER, len(buffer))
    v = Value()
    must(how(d, key, len(key), buffer, len(buffer), ctypes.addressof(v)))
    got = buffer.raw
    assert got[:len(value)] == value, key
    assert got[len(value):].count(bytes([FILLER])) == len(got) - len(value), \
        "bytes behind the value of %d" % len(value)


def fill(d):
    for n in (0,) + LENGTHS:
        key = b"k%d" % n
        store(d, key, b"a" * n)
        reads_back(d, key, b"a" * n)
        reads_back(d, key, b"a" * n, lib.shd_get_stale)
        store(d, key, b"b" * (n // 2))
        reads_back(d, key, b"b" * (n // 2))
        total = U64()
        must(lib.shd_append(d, 0, key, len(key), b"c" * 5, 5, None, 0, 0,
                            ctypes.addressof(total), None))
        reads_back(d, key, b"b" * (n // 2) + b"c" * 5)


def printed(name):
    return b"".join(expect(0, *words).out for words in (
        ("dump", name), ("dump", name, "--json"), ("keys", name, "b"),
        ("stat", name, "b"), ("ls", name)))


@case
def what_was_freed_reaches_no_later_value_and_no_dump():
    name = fresh()
    rc, s = opened(lib.shd_segment_create, name, small())
    assert rc == "SHD_OK", rc
    d = make(s, b"b")
    soak(d)
    fill(d)
    assert SECRET not in printed(name)
    lib.shd_segment_close(s)


@case
def a_dict_in_the_place_of_another_begins_with_zeroes():
    name = fresh()
    rc, s = opened(lib.shd_segment_create, name, small())
    assert rc == "SHD_OK", rc
    soak(make(s, b"a"))
    with open(path_of(name), "rb") as f:
        assert SECRET in f.read(32 << 20)  # freed, and still there
    must(lib.shd_dict_destroy(s, b"a"))
    with open(path_of(name), "rb") as f:
        assert SECRET not in f.read()
    d = make(s, b"b")
    fill(d)
    assert SECRET not in printed(name)
    lib.shd_segment_close(s)


@case
def messages_and_events_bring_nothing_of_those_before():
    name = fresh()
    expect(0, "create", name, "--size", "8m")
    expect(0, "push", name, "q", "x", "--create", "64k")
    expect(0, "drain", name, "q")
    expect(0, "publish", name, "t", "x", "--create", "4096")
    for n in (10, 100, 1000, 3000):
        text = secret(n).decode()
        expect(0, "push", name, "q", text)
        expect(0, "drain", name, "q")
        expect(0, "publish", name, "t", text)
    for i in range(400):
        expect(0, "publish", name, "t", "y" * (i % 40))
        if i < 40:
            expect(0, "push", name, "q", "y" * i)
    out = (expect(0, "peek", name, "q", "-m", "0").out +
           expect(0, "peek", name, "q", "--json").out +
           run("follow", name, "t", "-o", "-t", "0.05").out)
    assert out.count(b"y") > 400 and SECRET[:8] not in out


@case
def a_reservation_that_is_not_filled_is_zeroes():
    name = fresh()
    expect(0, "create", name, "--size", "8m")
    expect(0, "push", name, "q", "x", "--create", "256k")
    expect(0, "drain", name, "q")
    for n in (100, 3000, 60000):
        expect(0, "push", name, "q", "--", stdin=secret(n))
    expect(0, "drain", name, "q")
    rc, s = opened(lib.shd_segment_attach, name)
    assert rc == "SHD_OK", rc
    q, lease = ctypes.c_void_p(), U64()
    must(lib.shd_queue_open(s, b"q", None, ctypes.byref(q)))
    for n in (1, 100, 70000):
        must(lib.shd_queue_reserve(q, ctypes.c_size_t(n), ctypes.c_int64(0),
                                   ctypes.byref(lease)))
        must(lib.shd_queue_commit(q, lease, ctypes.c_int64(0), None))
        m = (U64 * 64)(ctypes.sizeof(U64 * 64))
        ctypes.memset(buffer, FILLER, len(buffer))
        lib.shd_queue_pop(q, buffer, ctypes.c_size_t(len(buffer)),
                          ctypes.c_int64(0), ctypes.byref(m))
        assert buffer.raw[:n] == bytes(n), n
        assert buffer.raw[n:n + 99] == bytes([FILLER]) * 99, n
    lib.shd_segment_close(s)


@case
def a_core_dump_leaves_the_segment_out():
    """By the flag of the mapping; what the kernel then leaves out is its."""
    name = fresh()
    create(name)
    rc, s = opened(lib.shd_segment_attach, name)
    assert rc == "SHD_OK", rc
    with open("/proc/self/smaps") as f:
        text = f.read()
    part = text[text.index(path_of(name)):]
    flags = part[part.index("VmFlags:"):].split("\n")[0]
    assert " dd" in flags, flags
    lib.shd_segment_close(s)

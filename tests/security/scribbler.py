# SPDX-License-Identifier: BSD-2-Clause
"""A host with a bug: it stores and reads keys, and then writes over all of
the segment's memory that it has touched. Started by scribbles.py, with or
without SHDICT_WRITE_PROTECT; also an example of what that finds."""
import ctypes
import faulthandler
import os
import sys

segment, library = sys.argv[1:]
lib = ctypes.CDLL(library)
P, S = ctypes.c_void_p, ctypes.c_size_t
lib.shd_segment_attach.argtypes = [ctypes.c_char_p, P, P]
lib.shd_dict_open.argtypes = [P, ctypes.c_char_p, P, P]
lib.shd_set.argtypes = [P, P, S, P, S, ctypes.c_int64]


def host():
    handle, d = P(), P()
    assert lib.shd_segment_attach(segment.encode(), None,
                                  ctypes.addressof(handle)) == 0
    assert lib.shd_dict_open(handle, b"d", None, ctypes.addressof(d)) == 0
    for i in range(500):
        key = b"key:%d" % i
        assert lib.shd_set(d, key, len(key), b"value", 5, 0) == 0


def bug():
    """Where the mapping is, and a store through a wild pointer."""
    with open("/proc/self/maps", encoding="utf-8") as f:
        line = next(line for line in f if line.rstrip().endswith(segment))
    begin, end = (int(word, 16) for word in line.split()[0].split("-"))
    print("scribbling", flush=True)
    # Behind the header: locks, tables, dicts, as far as they are committed.
    at = begin + 4096
    with open("/dev/shm/shdict-" + segment, "rb") as f:
        while at < end:
            try:
                data = os.lseek(f.fileno(), at - begin, os.SEEK_DATA)
            except OSError:
                break
            hole = os.lseek(f.fileno(), data, os.SEEK_HOLE)
            ctypes.memset(begin + data, 0x5a, hole - data)
            at = begin + hole
    print("not found out", flush=True)


# In gdb, or in a core dump, the culprit is the innermost frame; here it is
# named by Python's own handler.
faulthandler.enable()
host()
bug()

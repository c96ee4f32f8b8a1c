# SPDX-License-Identifier: BSD-2-Clause
"""A worker for these tests: a client of libshdict.so by ctypes.

idle         joins, says "ready" on stdout, waits
hammer       changes the dict "d" for ever
beat N       beats for N seconds, then is silent and waits
ready N      waits N seconds, says that it is ready, waits
slow N       on SIGTERM goes on for N seconds, then ends
peace        on SIGTERM gives its slot back, and ends
accept       accepts on the passed socket, tells each connection
             "WORKER GENERATION PID"
"""
import ctypes
import os
import random
import signal
import socket
import sys
import time

lib = ctypes.CDLL(os.environ["SHDICT_LIBRARY"])
lib.shd_last_error.restype = ctypes.c_char_p
READY = 2


def must(code):
    if code != 0:
        sys.exit("code %d: %s" % (code, lib.shd_last_error().decode()))


segment, dictionary = ctypes.c_void_p(), ctypes.c_void_p()
must(lib.shd_segment_attach(os.environ["SHDICT_SEGMENT"].encode(), None,
                            ctypes.byref(segment)))
must(lib.shd_worker_join(segment, None))
must(lib.shd_dict_open(segment, b"d", None, ctypes.byref(dictionary)))


def wait():
    while True:
        signal.pause()


def hammer():
    rng = random.Random(os.getpid())
    size = ctypes.c_size_t
    while True:
        key = b"key-%d" % rng.randrange(2000)
        value = b"v" * rng.randrange(6000)
        code = lib.shd_set(dictionary, key, size(len(key)), value,
                           size(len(value)), ctypes.c_int64(0))
        if code not in (0, -4):  # SHD_BUSY: a stopped one has the lock
            must(code)


def beat(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        must(lib.shd_worker_beat(segment))
        time.sleep(0.01)


def accept():
    if (os.environ["LISTEN_FDS"] != "1" or
            os.environ["LISTEN_PID"] != str(os.getpid())):
        sys.exit("no socket was passed")
    listener = socket.socket(fileno=3)
    text = "%s %s %d\n" % (os.environ["SHDICT_WORKER"],
                           os.environ["SHDICT_GENERATION"], os.getpid())
    while True:
        connection, _ = listener.accept()
        connection.sendall(text.encode())
        connection.close()


def slowly(seconds):
    def end(*_):
        time.sleep(seconds)
        os._exit(0)
    signal.signal(signal.SIGTERM, end)


def leave(*_):
    must(lib.shd_worker_leave(segment))
    os._exit(0)


def main():
    mode = sys.argv[1]
    number = float(sys.argv[2]) if len(sys.argv) > 2 else 0
    if mode == "slow":
        slowly(number)
    elif mode == "peace":
        signal.signal(signal.SIGTERM, leave)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if mode == "hammer":
        hammer()
    elif mode == "beat":
        beat(number)
    elif mode == "ready":
        time.sleep(number)
        must(lib.shd_worker_set_phase(segment, ctypes.c_uint64(0), READY))
    elif mode == "accept":
        accept()
    wait()


main()

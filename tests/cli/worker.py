# SPDX-License-Identifier: BSD-2-Clause
"""A worker for the tests: a client of libshdict.so by ctypes.

idle      joins, says "ready", waits
hammer    joins, says "ready", changes the dict "d" for ever; SIGTERM ends it
push K N  pushes N numbers on the list K of the dict "d"
serve     accepts on the passed socket for ever; each connection is told
          "WORKER GENERATION PID", and counted in the dict "d" first
"""
import ctypes
import os
import random
import signal
import socket
import sys

lib = ctypes.CDLL(os.environ["SHDICT_LIBRARY"])
lib.shd_last_error.restype = ctypes.c_char_p


def must(code):
    if code != 0:
        sys.exit("code %d: %s" % (code, lib.shd_last_error().decode()))


def join():
    segment, incarnation = ctypes.c_void_p(), ctypes.c_uint64()
    must(lib.shd_segment_attach(os.environ["SHDICT_SEGMENT"].encode(), None,
                                ctypes.byref(segment)))
    must(lib.shd_worker_join(segment, ctypes.byref(incarnation)))
    dictionary = ctypes.c_void_p()
    must(lib.shd_dict_open(segment, b"d", None, ctypes.byref(dictionary)))
    return dictionary


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def incr(d, key, by=1.0):
    result = ctypes.c_double()
    must(lib.shd_incr(d, key, ctypes.c_size_t(len(key)), ctypes.c_double(by),
                      1, ctypes.c_double(0), ctypes.c_int64(0),
                      ctypes.byref(result), None))


def store(d, key, value, ttl_ms=0):
    must(lib.shd_set(d, key, ctypes.c_size_t(len(key)), value,
                     ctypes.c_size_t(len(value)), ctypes.c_int64(ttl_ms)))


def hammer(d):
    rng = random.Random(os.getpid())
    while True:
        n = rng.randrange(2000)
        key = b"key-%d" % n
        what = rng.randrange(4)
        if what == 0:
            incr(d, b"count-%d" % (n % 20))
        elif what == 1:
            lib.shd_delete(d, key, ctypes.c_size_t(len(key)))
        else:
            store(d, key, b"v" * rng.randrange(6000),
                  rng.choice((0, 0, 1, 1000)))


def push(d, key, count):
    for i in range(count):
        must(lib.shd_push(d, 0, key, ctypes.c_size_t(len(key)), 2, None,
                          ctypes.c_size_t(0), ctypes.c_double(i), None))


def serve(d):
    if (os.environ["LISTEN_FDS"] != "1" or
            os.environ["LISTEN_PID"] != str(os.getpid())):
        sys.exit("no socket was passed")
    listener = socket.socket(fileno=3)
    text = "%s %s %d\n" % (os.environ["SHDICT_WORKER"],
                           os.environ["SHDICT_GENERATION"], os.getpid())
    while True:
        connection, _ = listener.accept()
        incr(d, b"served")
        connection.sendall(text.encode())
        # Closing without having read what came would reset it.
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(2)
        connection.recv(1)
        connection.close()


def main():
    d = join()
    mode = sys.argv[1]
    if mode == "push":
        push(d, sys.argv[2].encode(), int(sys.argv[3]))
        return
    say("ready")
    if mode == "hammer":
        hammer(d)
    elif mode == "serve":
        serve(d)
    while True:
        signal.pause()


main()

# SPDX-License-Identifier: BSD-2-Clause
"""app.py - a gunicorn application whose workers share jobs, by ctypes.

  SHDICT_SEGMENT=app SHDICT_LIBRARY=build/libshdict.so \\
      gunicorn -w 4 --chdir tests/hosts/python app:application

  GET /push?job=TEXT  a job for any worker; its number
  GET /work           takes a job, and one of two permits, and works for long
  GET /done           takes a job, and acknowledges it; its text, or 204
  GET /hammer         stores into a dict, without end

Beside it runs `shdict sidecar app`: a worker that is killed in the middle of
work gives back what it had, and nobody needs to come by for that.
"""
import ctypes
import os
import time
from ctypes import byref, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from urllib.parse import parse_qs

lib = ctypes.CDLL(os.environ["SHDICT_LIBRARY"])
lib.shd_last_error.restype = ctypes.c_char_p

NOTFOUND, SEMAPHORE, LOCK_CREATE = -1, 5, 1



class QueueOptions(ctypes.Structure):
    """struct shd_queue_options"""
    _fields_ = [("struct_size", c_uint32), ("deliveries_max", c_uint32),
                ("capacity_bytes", c_uint64), ("message_bytes", c_uint64),
                ("messages_max", c_uint64), ("lease_ms", c_uint64)]


class LockOptions(ctypes.Structure):
    """struct shd_lock_options"""
    _fields_ = [("struct_size", c_uint32), ("flags", c_uint32),
                ("permits", c_uint32), ("waiters_max", c_uint32)]


class Grant(ctypes.Structure):
    """struct shd_grant"""
    _fields_ = [("token", c_uint64), ("former", c_uint32),
                ("reserved", c_uint32)]


class Message(ctypes.Structure):
    """struct shd_message"""
    _fields_ = [("len", c_uint64), ("id", c_uint64), ("lease", c_uint64),
                ("sender", c_uint64), ("holder", c_uint64),
                ("pushed_ms", c_uint64), ("when_ms", c_int64),
                ("attempts", c_uint32), ("state", c_uint32)]


class Failed(Exception):
    pass


def must(code):
    if code < 0:
        raise Failed(lib.shd_last_error().decode())
    return code


def opened(function, segment, name, *rest):
    out = c_void_p()
    must(function(segment, name, *rest, byref(out)))
    return out


class Shared:
    """What this worker has open. Attached in the worker, after the fork: the
    segment's liveness lock is a process's own."""

    def __init__(self):
        self.segment = c_void_p()
        must(lib.shd_segment_attach(os.environ["SHDICT_SEGMENT"].encode(),
                                    None, byref(self.segment)))
        queue = QueueOptions(ctypes.sizeof(QueueOptions), 5, 1 << 20)
        slots = LockOptions(ctypes.sizeof(LockOptions), LOCK_CREATE, 2)
        self.dict = opened(lib.shd_dict_open, self.segment, b"d", None)
        self.jobs = opened(lib.shd_queue_open, self.segment, b"jobs",
                           byref(queue))
        self.slots = opened(lib.shd_lock_open, self.segment, b"slots",
                            c_uint32(SEMAPHORE), byref(slots))
        self.buffer = ctypes.create_string_buffer(65536)

    def push(self, job):
        number = c_uint64()
        must(lib.shd_queue_push(self.jobs, job, c_size_t(len(job)),
                                c_int64(0), c_int64(0), byref(number)))
        return number.value

    def take(self):
        """(text, lease), or None."""
        m = Message()
        code = lib.shd_queue_take(self.jobs, self.buffer,
                                  c_size_t(len(self.buffer)), c_int64(0),
                                  byref(m))
        if code == NOTFOUND:
            return None
        must(code)
        return self.buffer.raw[:m.len], m.lease

    def ack(self, lease):
        must(lib.shd_queue_ack(self.jobs, c_uint64(lease)))

    def acquire(self):
        grant = Grant()
        must(lib.shd_lock_acquire(self.slots, c_int64(5000), c_int64(0),
                                  byref(grant)))
        return grant.token

    def release(self, token):
        must(lib.shd_lock_release(self.slots, c_uint64(token)))

    def store(self, key, value):
        must(lib.shd_set(self.dict, key, c_size_t(len(key)), value,
                         c_size_t(len(value)), c_int64(0)))


shared = None


def work(seconds):
    job = shared.take()
    if job is None:
        return None
    token = shared.acquire()
    time.sleep(seconds)
    shared.release(token)
    shared.ack(job[1])
    return job[0]


def hammer():
    for i in range(1 << 62):
        shared.store(b"key-%d" % (i % 2000), b"v" * (i * 37 % 6000))


def answer(path, query):
    if path == "/push":
        return b"%d" % shared.push(query["job"][0].encode())
    if path == "/work":
        return work(float(query.get("seconds", ["1000"])[0]))
    if path == "/done":
        return work(0)
    if path == "/hammer":
        return hammer()
    return None


def application(environ, start_response):
    global shared
    shared = shared or Shared()
    body = answer(environ["PATH_INFO"], parse_qs(environ["QUERY_STRING"]))
    start_response("204 No Content" if body is None else "200 OK",
                   [("Content-Type", "text/plain")] if body is None else
                   [("Content-Type", "text/plain"),
                    ("Content-Length", str(len(body)))])
    return [] if body is None else [body]

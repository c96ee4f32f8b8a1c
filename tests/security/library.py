# SPDX-License-Identifier: BSD-2-Clause
"""libshdict by ctypes, and another user to run it as."""
import ctypes
import os
import shutil
import stat
import subprocess

from harness import SHDICT, directory, environment

NOBODY = 65534
CODES = {}
lib = ctypes.CDLL(environment["SHDICT_LIBRARY"])
lib.shd_last_error.restype = ctypes.c_char_p
lib.shd_strerror_name.restype = ctypes.c_char_p
P, S, I64, U64 = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64,
                  ctypes.c_uint64)
for name, types in {
        "shd_segment_open": [ctypes.c_char_p, P, P],
        "shd_segment_attach": [ctypes.c_char_p, P, P],
        "shd_segment_create": [ctypes.c_char_p, P, P],
        "shd_segment_destroy": [ctypes.c_char_p],
        "shd_worker_join": [P, P], "shd_segment_close": [P],
        "shd_segment_fd": [P],
        "shd_dict_open": [P, ctypes.c_char_p, P, P],
        "shd_dict_destroy": [P, ctypes.c_char_p],
        "shd_set": [P, P, S, P, S, I64],
        "shd_get": [P, P, S, P, S, P],
        "shd_get_stale": [P, P, S, P, S, P],
        "shd_pop": [P, ctypes.c_int, P, S, P, S, P],
        "shd_append": [P, ctypes.c_int, P, S, P, S, P, S, I64, P, P],
        "shd_push": [P, ctypes.c_int, P, S, ctypes.c_uint32, P, S,
                     ctypes.c_double, P],
        "shd_ltake": [P, ctypes.c_int, P, S, P, S, P, P],
        "shd_delete": [P, P, S]}.items():
    getattr(lib, name).argtypes = types


class SegmentOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("flags", ctypes.c_uint32),
                ("size_bytes", U64), ("mode", ctypes.c_uint32),
                ("workers_max", ctypes.c_uint32),
                ("objects_max", ctypes.c_uint32),
                ("locks_max", ctypes.c_uint32), ("wait_ms", ctypes.c_uint32),
                ("worker_id", ctypes.c_int32),
                ("generation", ctypes.c_uint32), ("reserved", ctypes.c_uint32),
                ("worker_name", ctypes.c_char_p)]


def small(**more):
    """Options of a segment that costs nothing."""
    return SegmentOptions(struct_size=ctypes.sizeof(SegmentOptions),
                          size_bytes=64 << 20, workers_max=16, objects_max=16,
                          locks_max=64, **more)


def code(rc):
    return "SHD_OK" if rc >= 0 else lib.shd_strerror_name(rc).decode()


def opened(function, name, options=None):
    """(code, handle or None)"""
    handle = P()
    rc = function(name.encode(), None if options is None else
                  ctypes.addressof(options), ctypes.addressof(handle))
    return code(rc), (handle if rc == 0 else None)


def create(path, **more):
    """Makes a segment there, and lets go of it."""
    options = small(**more)
    rc, handle = opened(lib.shd_segment_create, path, options)
    assert rc == "SHD_OK", (rc, lib.shd_last_error())
    lib.shd_segment_close(handle)


def owner_of(handle):
    """The user whose file is mapped."""
    return os.fstat(lib.shd_segment_fd(handle)).st_uid


def is_root():
    if os.geteuid() == 0:
        return True
    print("skip (not root)")
    return False


def as_user(function, user=NOBODY, group=NOBODY, groups=()):
    """Runs it as another user; what it returns, a string."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = "died"
        try:
            os.setgroups(list(groups))
            os.setgid(group)
            os.setuid(user)
            text = function()
        except BaseException as e:
            text = repr(e)
        os.write(theirs, text.encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as f:
        text = f.read().decode()
    os.waitpid(pid, 0)
    return text


def command_for_all():
    """The command, where any user can run it."""
    place = os.path.join(directory, "bin")
    if not os.path.isdir(place):
        os.mkdir(place)
        for f in (SHDICT, os.path.realpath(environment["SHDICT_LIBRARY"])):
            shutil.copy(f, place)
        os.symlink(os.path.basename(os.path.realpath(
            environment["SHDICT_LIBRARY"])),
            os.path.join(place, "libshdict.so.0"))
        for f in os.listdir(place):
            if not os.path.islink(os.path.join(place, f)):
                os.chmod(os.path.join(place, f), 0o755)
        os.chmod(place, 0o755)
        os.chmod(directory, os.stat(directory).st_mode | stat.S_IXOTH |
                 stat.S_IXGRP)
    return place


def run_as(*words, user=NOBODY, group=NOBODY):
    place = command_for_all()
    done = subprocess.run(
        [os.path.join(place, "shdict")] + list(words), user=user, group=group,
        extra_groups=[], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, timeout=60,
        env=dict(environment, LD_LIBRARY_PATH=place))
    return done.returncode, done.stdout, done.stderr


def made_directory(name, mode):
    path = os.path.join(directory, name)
    os.mkdir(path)
    os.chmod(path, mode)
    os.chmod(directory, os.stat(directory).st_mode | stat.S_IXOTH |
             stat.S_IXGRP)
    return path

# SPDX-License-Identifier: BSD-2-Clause
"""What another user may have put where a segment is looked for, in a
directory that all may write to, with the sticky bit and without."""
import ctypes
import errno
import fcntl
import itertools
import os
import signal
import socket
import stat

from harness import PREFIX, case, expect, fresh, path_of, run
from library import (NOBODY, as_user, code, create, is_root, lib,
                     made_directory, opened, owner_of, small)

STICKY, OPEN = 0o1777, 0o777
numbers = itertools.count()


def shared(mode):
    return made_directory("shared-%d" % next(numbers), mode)


def state_of(path):
    st = os.lstat(path)
    content = b""
    if stat.S_ISREG(st.st_mode):
        with open(path, "rb") as f:
            content = f.read(65536)
    return st.st_mode, st.st_ino, st.st_uid, st.st_mtime_ns, content


def refuses(path, *guarded):
    """Neither attached, nor replaced, nor removed, and nothing happens to
    what lies there or behind it."""
    before = [state_of(p) for p in (path,) + guarded]
    for function, codes in (
            (lib.shd_segment_attach, ("SHD_FOREIGN", "SHD_PERM")),
            (lib.shd_segment_open, ("SHD_FOREIGN", "SHD_PERM")),
            (lib.shd_segment_create, ("SHD_EXISTS",))):
        rc, _ = opened(function, path, small())
        assert rc in codes, (function.__name__, rc, lib.shd_last_error())
    assert [state_of(p) for p in (path,) + guarded] == before


def not_removed(path):
    rc = code(lib.shd_segment_destroy(path.encode()))
    assert rc == "SHD_FOREIGN", (rc, lib.shd_last_error())
    assert os.path.lexists(path)


@case
def what_is_no_regular_file_is_refused_at_once():
    signal.alarm(60)  # a pipe that is opened waits for its other end
    place = shared(STICKY)
    path = os.path.join(place, "trap")

    def pipe():
        os.mkfifo(path, 0o666)

    def folder():
        os.mkdir(path)

    def local():
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path)

    def device():
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))

    for make in (pipe, folder, local, device):
        try:
            make()
        except PermissionError:
            print("skip (%s needs root)" % make.__name__)
            continue
        refuses(path)
        not_removed(path)
        (os.rmdir if make is folder else os.unlink)(path)
    signal.alarm(0)


@case
def links_are_not_followed():
    place = shared(STICKY)
    path, target = (os.path.join(place, n) for n in ("link", "target"))
    create(target)
    os.symlink(target, path)
    refuses(path, target)
    not_removed(path)
    os.unlink(path)
    os.symlink(os.path.join(place, "nothing"), path)
    rc, _ = opened(lib.shd_segment_open, path, small())
    assert rc == "SHD_FOREIGN", rc
    assert not os.path.lexists(os.path.join(place, "nothing"))
    os.unlink(path)
    with open(target + ".txt", "w") as f:
        f.write("mine")
    os.symlink(target + ".txt", path)
    refuses(path, target + ".txt")
    # By its plain name too.
    name = fresh()
    os.symlink(target, path_of(name))
    for words in (["stat", name], ["set", name, "d", "k", "v"]):
        expect(3, *words, err=b"symbolic link")
    assert run("create", name, "--size", "1m").code != 0
    assert os.readlink(path_of(name)) == target


@case
def a_second_name_of_another_segment_is_refused():
    for mode in (STICKY, OPEN):
        place = shared(mode)
        other, path = (os.path.join(place, n) for n in ("other", "app"))
        create(other)
        os.link(other, path)
        refuses(path, other)
        refuses(other)
        os.unlink(path)
        rc, handle = opened(lib.shd_segment_attach, other)
        assert rc == "SHD_OK", rc
        lib.shd_segment_close(handle)
    name, copy = fresh(), fresh()
    expect(0, "create", name, "--size", "1m")
    os.link(path_of(name), path_of(copy))
    expect(3, "set", copy, "d", "k", "v", err=b"2 names")
    os.unlink(path_of(copy))


@case
def what_is_no_segment_is_left_alone():
    place = shared(STICKY)
    path = os.path.join(place, "file")
    for content, size in ((b"", 0), (b"x" * 100, 100), (b"x" * 8192, 8192),
                          (b"", 1 << 30), (b"SSHDICT1" * 512, 1 << 20)):
        with open(path, "wb") as f:
            f.write(content)
            f.truncate(size)
        before = state_of(path)
        for function in (lib.shd_segment_attach, lib.shd_segment_open):
            rc, _ = opened(function, path, small())
            assert rc in ("SHD_FOREIGN", "SHD_ENDIAN", "SHD_LAYOUT"), rc
        rc, _ = opened(lib.shd_segment_create, path, small())
        assert rc == "SHD_EXISTS", rc
        assert state_of(path) == before
        os.unlink(path)


@case
def a_name_that_another_user_has_taken_is_refused():
    if not is_root():
        return
    for mode in (STICKY, OPEN):
        place = shared(mode)
        path = os.path.join(place, "app")

        def take():
            create(path, mode=0o666)
            return "taken"
        assert as_user(take) == "taken"
        refuses(path)
        rc, handle = opened(lib.shd_segment_attach, path, small(flags=1))
        assert rc == "SHD_OK", rc  # looking is allowed
        lib.shd_segment_close(handle)
        fd = os.open(path, os.O_RDWR)
        rc, handle = opened(lib.shd_segment_attach, "fd:%d" % fd)
        assert rc == "SHD_OK", rc  # and who opened it himself has looked
        lib.shd_segment_close(handle)
        os.close(fd)


@case
def the_temporary_name_is_nothing_to_aim_at():
    """There is none: it is made without a name, in the directory."""
    place = shared(OPEN)
    seen = set()
    for i in range(50):
        create(os.path.join(place, "s%d" % i))
        seen |= set(os.listdir(place))
    assert seen == {"s%d" % i for i in range(50)}, seen


# So many openings beside somebody who puts other things there.
OPENINGS = 400


def swap(place, path):
    """For ever: a segment of one's own, links, a pipe, nothing."""
    mine, hard = path + "-mine", path + "-hard"
    create(mine, mode=0o666)
    while True:
        for turn in range(6):
            new = "%s-%d" % (path, os.getpid())
            try:
                if turn == 0:
                    os.link(mine, new)
                elif turn == 1:
                    os.symlink(mine, new)
                elif turn == 2:
                    os.mkfifo(new)
                elif turn == 3:
                    with open(mine, "rb") as f, open(new, "wb") as g:
                        g.write(f.read(4096))
                        g.truncate(os.fstat(f.fileno()).st_size)
                elif turn == 4:
                    os.link(hard, new)
                if turn == 5:
                    os.unlink(path)
                else:
                    os.rename(new, path)
            except OSError:
                try:
                    os.unlink(new)
                except OSError:
                    pass


@case
def whoever_swaps_files_is_never_attached_to():
    """Without the sticky bit anybody may remove and rename: what is opened is
    refused, or the opener's own."""
    if not is_root():
        return
    signal.alarm(300)
    place = shared(OPEN)
    path = os.path.join(place, "app")
    pid = os.fork()
    if pid == 0:
        signal.alarm(300)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        swap(place, path)
    counts = {}
    try:
        for i in range(OPENINGS):
            function = (lib.shd_segment_open, lib.shd_segment_attach)[i % 2]
            rc, handle = opened(function, path, small())
            counts[rc] = counts.get(rc, 0) + 1
            if handle is not None:
                assert owner_of(handle) == 0
                assert lib.shd_segment_close(handle) == 0
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        signal.alarm(0)
    assert set(counts) <= {"SHD_OK", "SHD_FOREIGN", "SHD_PERM", "SHD_NOTFOUND",
                           "SHD_EXISTS"}, counts
    print("     %s" % counts)


@case
def an_anonymous_segment_cannot_be_cut_or_sealed():
    options = small()
    handle = ctypes.c_void_p()
    rc = lib.shd_segment_create(None, ctypes.addressof(options),
                                ctypes.addressof(handle))
    assert rc == 0, lib.shd_last_error()
    fd = lib.shd_segment_fd(handle)
    for act in (lambda: os.ftruncate(fd, 4096),
                lambda: os.ftruncate(fd, 1 << 30),
                # F_ADD_SEALS, F_SEAL_FUTURE_WRITE
                lambda: fcntl.fcntl(fd, 1033, 0x10)):
        try:
            act()
        except OSError as e:
            assert e.errno == errno.EPERM, e
        else:
            raise AssertionError("allowed")
    lib.shd_segment_close(handle)


@case
def nothing_of_ours_is_left_lying_about():
    left = [f for f in os.listdir("/dev/shm")
            if f.startswith("shdict-" + PREFIX) and ".new-" in f]
    assert left == [], left

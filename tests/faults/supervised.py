# SPDX-License-Identifier: BSD-2-Clause
"""supervised.py BUILD [PART-OF-A-NAME] - runs `faults`, then the command
with each of its system calls and allocations failing in turn, the supervisor
too, and with its segment cut off."""
import os
import signal
import subprocess
import sys

BUILD, PART = sys.argv[1], (sys.argv + [""])[2]
SHDICT = os.path.join(BUILD, "shdict")
NAME = "faults-cli-%d" % os.getpid()
PATH = "/dev/shm/shdict-" + NAME
CALLS_MAX = 2000
passed = failed = 0


def run(*words, nth=0, stdin=b"", **more):
    env = dict(os.environ)
    if nth:
        env.update(INJECT_NTH=str(nth), INJECT_TELL="1", LD_PRELOAD=os.path.join(
            BUILD, "tests/faults/libinject.so"))
    return subprocess.run([SHDICT] + list(words), input=stdin, env=env,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60, **more)


def case(function, *words):
    global passed, failed
    name = function.__name__ + ("_" + words[0] if words else "")
    if PART not in name:
        return
    try:
        print("ok    %s%s" % (name, function(*words) or ""))
        passed += 1
    except Exception as e:
        print("FAIL  %s: %s" % (name, str(e)[:1500]))
        failed += 1
    finally:
        if os.path.exists(PATH):
            os.unlink(PATH)


template = []


def make():
    for words in (["create", NAME, "--size", "8m", "--dict", "d=1m"],
                  ["set", NAME, "d", "k", "v"],
                  ["push", NAME, "q", "m", "--create", "64k"],
                  ["publish", NAME, "t", "e", "--create", "4096"]):
        r = run(*words)
        assert r.returncode == 0, r
    with open(PATH, "rb") as f:
        end, at = f.seek(0, os.SEEK_END), 0
        template.append(end)
        while at < end:
            try:
                begin = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            at = os.lseek(f.fileno(), begin, os.SEEK_HOLE)
            template.append((begin, os.pread(f.fileno(), at - begin, begin)))


def fresh():
    """The same segment as at first: made once, and copied."""
    if os.path.exists(PATH):
        os.unlink(PATH)
    if not template:
        return make()
    with open(PATH, "wb") as f:
        f.truncate(template[0])
        for at, data in template[1:]:
            os.pwrite(f.fileno(), data, at)
    os.chmod(PATH, 0o600)


def every_call_fails_in_turn(*words, stdin=b""):
    for nth in range(1, CALLS_MAX):
        fresh()
        r = run(*words, nth=nth, stdin=stdin)
        hit = [w for w in r.stderr.split(b"\n") if w.startswith(b"inject: ")]
        where = "call %d, %s: %s" % (nth, hit, r)
        assert r.returncode in (0, 1, 3, 4, 5), where
        if not hit:
            assert r.returncode == 0, where
            assert nth > 3, "nothing was made to fail"
            return " (%d calls)" % (nth - 1)
        # What did not happen is said, in a line.
        said = [w for w in r.stderr.split(b"\n") if w and w not in hit]
        assert r.returncode == 0 or said, where
        if os.path.exists(PATH):
            r = run("check", NAME)
            assert r.returncode == 0, (where, r)
    raise AssertionError("it comes to no end")


def a_supervisor_says_what_failed(*_):
    """Workers that die at once: it gives up by itself."""
    for nth in range(1, CALLS_MAX):
        fresh()
        r = run("supervise", "--segment", NAME, "--restart-limit", "1",
                "--workers", "2", "--", "false", nth=nth)
        hit = b"inject: " in r.stderr
        where = "call %d: %s" % (nth, r)
        assert r.returncode > 0, where
        r = run("check", NAME)
        assert r.returncode == 0, (where, r)
        r = run("workers", NAME)
        assert r.returncode == 0 and b" alive " not in r.stdout, (where, r)
        if not hit:
            return " (%d calls)" % (nth - 1)
    raise AssertionError("it comes to no end")


def what_was_cut_is_a_sentence_and_an_exit_status(*_):
    fresh()
    watcher = subprocess.Popen([SHDICT, "watch", NAME, "d", "k", "-i", "0.01"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert watcher.stdout.readline().startswith(b"string\tv")
    os.truncate(PATH, 4096)
    out, err = watcher.communicate(timeout=60)
    assert watcher.returncode == 4 and b"cut off" in err, (
        watcher.returncode, out, err)
    for words in (["dump", NAME], ["set", NAME, "d", "k", "v"], ["check", NAME]):
        r = run(*words)
        assert r.returncode == 3 and b"truncated" in r.stderr, r
    r = run("ls")
    assert r.returncode == 0, r
    r = run("rm", NAME)
    assert r.returncode == 0, r


def interrupted(*_):
    signal.alarm(0)
    print("0 passed, 1 failed")
    sys.exit(1)


signal.signal(signal.SIGTERM, interrupted)
program = os.path.join(BUILD, "tests/faults/faults")
done = subprocess.run([program] + ([PART] if PART else []),
                      stdout=subprocess.PIPE, text=True)
lines = done.stdout.splitlines()
print("\n".join(lines[:-1]))
counts = lines[-1].split() if lines else []
if len(counts) == 4:
    passed, failed = int(counts[0]), int(counts[2])
if done.returncode != 0 and failed == 0 and passed > 0:
    failed += 1
for verb, *more in (("stat",), ("stat", "d"), ("get", "d", "k"), ("dump",),
                    ("set", "d", "k2", "v2"), ("keys", "d"),
                    ("incr", "d", "n", "1", "--init", "0"),
                    ("check",), ("workers",), ("queues",), ("peek", "q"),
                    ("push", "q", "m2"), ("topics",), ("locks",), ("export",),
                    ("publish", "t", "e2"), ("reap",), ("resize", "d", "2m"),
                    ("rm", "d")):
    case(every_call_fails_in_turn, verb, NAME, *more)
case(a_supervisor_says_what_failed)
case(what_was_cut_is_a_sentence_and_an_exit_status)
print("%d passed, %d failed" % (passed, failed))
sys.exit(0 if failed == 0 and passed > 0 else 1)

# SPDX-License-Identifier: BSD-2-Clause
"""One supervisor after the other: refusal, hand-over, death at any moment."""
import os
import random
import signal
import socket
import subprocess
import time

from harness import SHDICT, answer, case, environment, expect, fresh, run, \
    until
from supervisor import Supervisor, environ, is_running
from common import WORKER, clean, connect, hear, joined, port_of, \
    started_for, workers


@case
def a_second_supervisor_is_refused_and_told_which_one_there_is():
    with Supervisor(command=WORKER + ["idle"]) as s:
        s.wait_starts(1)
        pid = str(s.process.pid)
        r = run("supervise", "-s", s.name, "--", "true")
        assert r.code == 5 and ("process %s supervises" % pid).encode() in \
            r.err and b"--takeover" in r.err, r
        r = run("sidecar", s.name)
        assert r.code == 5 and pid.encode() in r.err, r
        found = [w for w in answer("workers", s.name) if w["supervisor"]]
        assert [w["pid"] for w in found] == [s.process.pid], found
        assert len(started_for(s.name)) == 1
        assert s.end() == 0


@case
def a_supervisor_hands_over_its_workers_and_its_socket():
    with Supervisor("-n", "2", "--listen", "127.0.0.1:0",
                    command=WORKER + ["accept"]) as first:
        old = first.wait_starts(2)
        joined(first.name, 2)
        port = port_of(first)
        with Supervisor("-n", "2", "--listen", "127.0.0.1:0", "--takeover",
                        name=first.name, command=WORKER + ["accept"]) as s:
            assert sorted(int(e["pid"])
                          for e in s.wait_events("adopt", 2)) == sorted(old)
            assert first.process.wait(timeout=20) == 0
            assert len(first.events("handover")) == 1, first.lines
            assert port_of(s) == port
            assert int(hear(connect(port))[2]) in old
            assert not s.events("start"), s.lines
            # What is adopted is replaced when it dies, and rolled, as well.
            os.kill(old[0], signal.SIGKILL)
            died = s.wait_events("death", 1)[0]
            assert (died["pid"], died["status"]) == (str(old[0]),
                                                     "unknown"), died
            new = s.wait_starts(1)[0]
            assert environ(new)["SHDICT_GENERATION"] == "1"
            until(lambda: int(hear(connect(port))[2]) == new, "it serves")
            assert s.end() == 0
        assert not started_for(s.name)


@case
def a_successor_with_nobody_to_replace_takes_over_at_once():
    with Supervisor() as s:
        s.wait_starts(1)
        s.end(signal.SIGKILL)
        with Supervisor("--takeover", name=s.name) as t:
            t.wait_events("adopt", 1)
            assert t.end() == 0


@case
def connections_outlive_a_supervisor_that_is_killed():
    with Supervisor("-n", "1", "--listen", "127.0.0.1:0",
                    command=WORKER + ["accept"]) as first:
        pid = first.wait_starts(1)[0]
        joined(first.name, 1)
        port = port_of(first)
        first.end(signal.SIGKILL)
        # (Not before: the kernel sends SIGHUP to stopped orphans.)
        os.kill(pid, signal.SIGSTOP)
        queued = [connect(port) for _ in range(5)]
        with Supervisor("-n", "1", "--listen", "127.0.0.1:%d" % port,
                        name=first.name, command=WORKER + ["accept"]) as s:
            s.wait_events("listen", 1)
            # What the stopped one had been woken for already is its own.
            os.kill(pid, signal.SIGKILL)
            s.wait_starts(1)
            heard = [hear(c) for c in queued]
            assert heard.count([]) <= 1, heard
            assert s.end() == 0


@case
def a_socket_that_the_supervisor_was_given_is_passed_on():
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    name = fresh()
    process = subprocess.Popen(
        ["sh", "-c", "eval \"exec 3<&$0\"; "
         "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", str(listener.fileno()),
         SHDICT, "supervise", "-s", name, "--dict", "d=1m", "--"] + WORKER +
        ["accept"], env=environment, stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, pass_fds=[listener.fileno()])
    try:
        listener.close()
        heard = hear(connect(port))
        assert heard[:2] == ["0", "1"], heard
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


@case
def fewer_workers_and_old_generations_end_with_the_next_supervisor():
    with Supervisor("-n", "3", "--grace", "60",
                    command=WORKER + ["idle"]) as first:
        first.wait_starts(3)
        joined(first.name, 3)
        first.process.send_signal(signal.SIGHUP)
        first.wait_starts(6)
        joined(first.name, 6)
        first.end(signal.SIGKILL)
        with Supervisor("-n", "2", name=first.name,
                        command=WORKER + ["idle"]) as s:
            # Both are complete: the newer one goes on, as far as wanted.
            s.wait_events("adopt", 6)
            s.wait_events("exit", 4)
            found = joined(first.name, 2)
            assert sorted((w["worker"], w["generation"])
                          for w in found.values()) == [(0, 2), (1, 2)]
            assert not s.events("start"), s.lines
            assert s.end() == 0


@case
def a_generation_that_was_not_whole_gives_way():
    with Supervisor("-n", "2", "--grace", "60",
                    command=WORKER + ["idle"]) as first:
        old = first.wait_starts(2)
        joined(first.name, 2)
        first.process.send_signal(signal.SIGHUP)
        new = first.wait_starts(4)[2:]
        joined(first.name, 4)
        first.end(signal.SIGKILL)
        os.kill(new[0], signal.SIGKILL)
        until(lambda: not is_running(new[0]), "gone")
        with Supervisor("-n", "2", name=first.name,
                        command=WORKER + ["idle"]) as s:
            s.wait_events("exit", 1)
            assert sorted(joined(first.name, 2)) == sorted(old), s.lines
            assert s.end() == 0


@case
def who_had_been_told_to_end_is_told_again():
    with Supervisor("-n", "2", "--drain", "60",
                    command=WORKER + ["slow", "1"]) as first:
        first.wait_starts(2)
        joined(first.name, 2)
        first.process.send_signal(signal.SIGTERM)
        first.wait_events("drain", 1)
        until(lambda: [w["phase"] for w in workers(first.name).values()] ==
              ["draining"] * 2, "draining")
        first.end(signal.SIGKILL)
        with Supervisor("-n", "2", "--drain", "20", name=first.name,
                        command=WORKER + ["idle"]) as s:
            s.wait_starts(2)
            s.wait_events("exit", 2)
            found = joined(first.name, 2)
            assert [w["generation"] for w in found.values()] == [2, 2]
            assert s.end() == 0


def kill(pid):
    """It may have ended meanwhile."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


@case
def supervisors_killed_at_any_moment_lose_nothing():
    """Each is killed while it starts, adopts, replaces, rolls or drains; in
    the end there are as many workers as wanted, and nobody else."""
    rng = random.Random(int(os.environ.get("SEED", "1")))
    name = fresh()
    expect(0, "create", name, "--dict", "d=1m")
    end = time.monotonic() + float(os.environ.get("SECONDS", "5"))
    rounds, killed = 0, set()
    process = None
    try:
        while time.monotonic() < end or rounds < 8:
            process = subprocess.Popen(
                [SHDICT, "supervise", "-s", name, "-n", "3", "--grace",
                 "0.05", "--drain", "0.3", "--restart-limit", "0", "--"] +
                WORKER + ["hammer"], env=environment,
                stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL)
            time.sleep(rng.choice((0.0, 0.01, 0.05, 0.2)) * rng.random())
            if rng.random() < 0.5:
                process.send_signal(signal.SIGHUP)
                time.sleep(0.1 * rng.random())
            for pid in list(started_for(name)):
                if rng.random() < 0.3:
                    killed.add(pid)
                    kill(pid)
            time.sleep(0.1 * rng.random())
            if rng.random() < 0.2:
                process.send_signal(signal.SIGTERM)
                time.sleep(0.05 * rng.random())
            process.kill()
            process.wait()
            rounds += 1
        with Supervisor("-n", "3", "--drain", "2", name=name, dicts=(),
                        command=WORKER + ["hammer"]) as s:
            until(lambda: sorted(w for w, _ in started_for(name).values()) ==
                  [0, 1, 2] and len(workers(name)) == 3, "three workers", 40)
            assert len({g for _, g in started_for(name).values()}) == 1
            until(lambda: all(w["state"] == "alive"
                              for w in answer("workers", name)), "reaped")
            assert s.end() == 0
        assert not started_for(name)
        clean(name)
        assert answer("workers", name) == []
        assert killed
    finally:
        process.kill()
        process.wait()
        for pid in started_for(name):
            kill(pid)

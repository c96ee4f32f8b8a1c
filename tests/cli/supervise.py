# SPDX-License-Identifier: BSD-2-Clause
"""shdict supervise: deaths, backoff, rolls, drains, and its own death."""
import json
import os
import random
import re
import signal
import socket
import subprocess
import time

from harness import (SHDICT, WORKER, answer, case, environment, expect,
                     fresh, path_of, run, until)
from supervisor import Supervisor, environ, is_running, name_of


@case
def workers_get_their_environment():
    with Supervisor("-n", "3", env={"LISTEN_FDS": "2"}) as s:
        pids = s.wait_starts(3)
        for i, pid in enumerate(pids):
            e = environ(pid)
            assert e["SHDICT_SEGMENT"] == s.name
            assert e["SHDICT_WORKER"] == str(i)
            assert e["SHDICT_GENERATION"] == "1"
            assert "LISTEN_FDS" not in e
            assert os.getpgid(pid) == pid
            with open("/proc/%d/status" % pid) as f:
                text = f.read()
            assert re.search(r"^SigBlk:\s*0+$", text, re.M), text
            ignored = re.search(r"^SigIgn:\s*(\w+)$", text, re.M).group(1)
            for sig in (signal.SIGPIPE, signal.SIGHUP, signal.SIGTERM,
                        signal.SIGINT, signal.SIGCHLD):
                assert not int(ignored, 16) >> (sig - 1) & 1, (sig, ignored)
            # It may be reading a file of its own just now.
            until(lambda: set(os.listdir("/proc/%d/fd" % pid)) ==
                  {"0", "1", "2"}, "no other descriptors")
        assert [d["name"] for d in answer("ls", s.name)] == ["d"]
        assert s.end() == 0, s.lines


@case
def a_killed_worker_is_back_at_once():
    with Supervisor("-n", "2", command=WORKER + ["idle"]) as s:
        s.wait_starts(2)
        until(lambda: len(answer("workers", s.name)) == 3, "joined")
        time.sleep(0.2)
        victim = s.live()[1]
        os.kill(victim, signal.SIGKILL)
        s.wait_starts(3)
        death = s.events("death")[0]
        assert (death["worker"], death["pid"], death["signal"]) == (
            "1", str(victim), "9"), death
        assert death["restart_in_ms"] == "0", death
        assert not is_running(victim)
        until(lambda: len(answer("workers", s.name)) == 3, "joined again")
        found = answer("workers", s.name)
        assert all(w["state"] == "alive" for w in found), found
        assert sorted(w["worker"] for w in found
                      if w["worker"] is not None) == [0, 1]
        assert answer("stat", s.name)["deaths"] == 1
        assert s.end() == 0


@case
def no_zombie_is_left():
    inherited = ["sh", "-c", "sleep 0.3 & exec \"$@\"", "sh"]
    name = fresh()
    process = subprocess.Popen(
        inherited + [SHDICT, "supervise", "-s", name, "--", "sleep", "1000"],
        env=environment, stderr=subprocess.PIPE)
    try:
        def children():
            with open("/proc/%d/task/%d/children" %
                      (process.pid, process.pid)) as f:
                return f.read().split()
        until(lambda: len(children()) == 2, "both children", 60)
        until(lambda: len(children()) == 1, "the stranger collected", 60)
        pid = int(children()[0])
        process.terminate()
        assert process.wait(20) == 0
        assert not is_running(pid)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@case
def a_worker_that_dies_young_backs_off_and_the_supervisor_gives_up():
    begin = time.monotonic()
    with Supervisor("-n", "1", "--restart-limit", "3", "--healthy-after",
                    "5", command=("sh", "-c", "exit 3")) as s:
        assert s.process.wait(timeout=30) == 5
        s.reader.join()
        deaths = s.events("death")
        assert [d["restart_in_ms"] for d in deaths] == [
            "100", "200", "400", "800"], s.lines
        assert all(d["status"] == "3" for d in deaths)
        assert s.events("give_up")[0]["reason"] == "crash_loop"
        assert "giving up" in "".join(s.lines)
        assert time.monotonic() - begin >= 0.7


@case
def giving_up_drains_the_others():
    command = ("sh", "-c",
               "test $SHDICT_WORKER = 0 && exit 1; exec sleep 1000")
    with Supervisor("-n", "2", "--restart-limit", "1", command=command) as s:
        other = s.wait_starts(2)[1]
        assert s.process.wait(timeout=30) == 5
        assert not is_running(other)


@case
def early_deaths_are_forgotten_after_a_healthy_run():
    flag = path_of(fresh())
    # Dies at once the first two times, then runs for a while, and so on.
    command = ("sh", "-c", "n=$(cat %s 2>/dev/null || echo 0); "
               "echo $((n + 1)) >%s; test $((n %% 3)) = 2 && exec sleep 0.4; "
               "exit 1" % (flag, flag))
    with Supervisor("--restart-limit", "2", "--healthy-after", "0.3",
                    command=command) as s:
        def forgotten():
            """A young death after one that was not, after young ones."""
            strikes = [int(d["strikes"]) for d in s.events("death")]
            return any(a > 0 and b == 0 and c == 1 for a, b, c in
                       zip(strikes, strikes[1:], strikes[2:]))
        until(forgotten, "strikes forgotten", 60)
        before = 0
        for d in s.events("death"):
            young = int(d["lived_ms"]) < 300
            assert int(d["strikes"]) == (before + 1 if young else 0), d
            assert int(d["restart_in_ms"]) == \
                (100 * 2 ** before if young else 0), d
            before = int(d["strikes"])
        assert s.end() == 0
    os.unlink(flag)


@case
def kills_are_no_crash_loop():
    with Supervisor("-n", "1", "--restart-limit", "2") as s:
        for i in range(12):
            pid = s.wait_starts(i + 1)[i]
            time.sleep(0.12 if i < 6 else 0)
            os.kill(pid, signal.SIGKILL)
        s.wait_starts(13)
        deaths = s.events("death")
        assert all(d["strikes"] == "0" for d in deaths), deaths
        assert all(int(d["restart_in_ms"]) == 0 for d in deaths[:6]), deaths
        assert all(int(d["restart_in_ms"]) <= 100 for d in deaths), deaths
        assert s.end() == 0


@case
def a_command_that_cannot_run_is_said_at_once():
    name = fresh()
    r = run("supervise", "-n", "2", "-s", name, "--", "/nonexistent/program")
    assert r.code == 5, r
    assert b'cannot run "/nonexistent/program": No such file' in r.err, r


@case
def wrong_segments_and_dicts_cannot_be_supervised():
    name = fresh()
    expect(0, "create", name, "--dict", "d=1m")
    r = expect(3, "supervise", "-s", name, "--dict", "d=2m", "--", "true")
    assert b"d" in r.err
    expect(2, "supervise", "-s", "a/b", "--", "true")
    expect(3, "supervise", "-s", "/nonexistent/dir/file", "--", "true")
    expect(5, "supervise", "-s", name, "--listen", "192.0.2.1:1", "--",
           "true")


@case
def sigterm_and_sigint_drain():
    for sig in (signal.SIGTERM, signal.SIGINT):
        with Supervisor("-n", "3") as s:
            pids = s.wait_starts(3)
            assert s.end(sig) == 0
            assert not any(is_running(p) for p in pids)
            assert len(s.events("exit")) == 3 and not s.events("kill")
            assert answer("workers", s.name) == []


@case
def a_worker_that_ignores_sigterm_is_killed_after_the_drain():
    command = ("sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    with Supervisor("--drain", "0.3", command=command) as s:
        pid = s.wait_starts(1)[0]
        time.sleep(0.3)  # until the shell has set its trap
        begin = time.monotonic()
        assert s.end() == 0
        took = time.monotonic() - begin
        assert took > 0.25, took
        assert not is_running(pid)
        assert s.events("exit")[0]["signal"] == "9", s.lines
        assert len(s.events("kill")) == 1


@case
def a_second_sigterm_cuts_the_drain_short():
    command = ("sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    with Supervisor("--drain", "60", command=command) as s:
        s.wait_starts(1)
        time.sleep(0.3)
        s.process.terminate()
        s.wait_events("drain", 1)
        # (end() waits for half of the drain at most.)
        assert s.end() == 0


@case
def sighup_rolls_a_generation():
    with Supervisor("-n", "2", "--grace", "0.3",
                    command=WORKER + ["idle"]) as s:
        old = s.wait_starts(2)
        until(lambda: len(answer("workers", s.name)) == 3, "joined")
        s.process.send_signal(signal.SIGHUP)
        new = s.wait_starts(4)[2:]
        assert all(is_running(p) for p in old), "old ones left too early"
        s.wait_events("rolled", 1)
        s.wait_events("exit", 2)
        assert not any(is_running(p) for p in old)
        assert all(is_running(p) for p in new)
        assert [environ(p)["SHDICT_GENERATION"] for p in new] == ["2", "2"]
        assert [environ(p)["SHDICT_WORKER"] for p in new] == ["0", "1"]
        assert not s.events("death")
        os.kill(new[0], signal.SIGKILL)
        again = s.wait_starts(5)[4]
        assert environ(again)["SHDICT_GENERATION"] == "2"
        assert s.end() == 0


@case
def signals_count_even_if_the_parent_ignored_them():
    def like_nohup():
        for sig in (signal.SIGHUP, signal.SIGINT, signal.SIGCHLD):
            signal.signal(sig, signal.SIG_IGN)
    with Supervisor("--grace", "0.1", preexec=like_nohup) as s:
        s.wait_starts(1)
        s.process.send_signal(signal.SIGHUP)
        s.wait_events("rolled", 1)
        s.wait_events("exit", 1)
        assert s.end(signal.SIGINT) == 0


@case
def two_sighups_roll_twice():
    with Supervisor("-n", "2", "--grace", "0.3") as s:
        s.wait_starts(2)
        s.process.send_signal(signal.SIGHUP)
        s.wait_events("roll", 1)
        s.process.send_signal(signal.SIGHUP)
        s.wait_events("rolled", 2)
        s.wait_events("exit", 4)
        assert [e["generation"] for e in s.events("rolled")] == ["2", "3"]
        assert s.end() == 0


@case
def a_generation_that_does_not_come_up_does_not_replace_one_that_runs():
    flag = path_of(fresh())
    command = ("sh", "-c", "test -e %s && exit 1; exec sleep 1000" % flag)
    with Supervisor("-n", "2", "--grace", "1", command=command) as s:
        old = s.wait_starts(2)
        until(lambda: [name_of(p) for p in old] == ["sleep"] * 2, "asleep")
        with open(flag, "w"):
            pass
        s.process.send_signal(signal.SIGHUP)
        s.wait_events("roll_failed", 1)
        os.unlink(flag)
        assert all(is_running(p) for p in old)
        s.process.send_signal(signal.SIGHUP)
        s.wait_events("rolled", 1)
        s.wait_events("exit", 3)
        assert sorted(s.live()) == [0, 1], s.lines
        assert not any(is_running(p) for p in old)
        assert s.end() == 0


def connect(port):
    c = socket.create_connection(("127.0.0.1", port), timeout=20)
    return c


def hear(c):
    text = b""
    while not text.endswith(b"\n"):
        part = c.recv(100)
        if not part:
            break
        text += part
    c.close()
    return text.decode().split()


def port_of(s):
    return int(s.wait_events("listen", 1)[0]["port"])


@case
def a_socket_is_passed_and_outlives_its_workers():
    with Supervisor("-n", "2", "--listen", "127.0.0.1:0",
                    command=WORKER + ["serve"]) as s:
        pids = s.wait_starts(2)
        port = port_of(s)
        assert int(hear(connect(port))[2]) in pids
        time.sleep(0.2)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        queued = [connect(port) for _ in range(20)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        heard = [hear(c) for c in queued]
        lost = heard.count([])
        # What a stopped worker had been woken up for already was its own.
        assert lost <= 2, heard
        assert all(int(h[2]) not in pids for h in heard if h), heard
        assert answer("get", s.name, "d", "served")["value"] == \
            21 - lost, heard
        assert s.end() == 0


@case
def connections_that_wait_are_kept_while_no_worker_runs():
    gate = path_of(fresh())
    command = ["sh", "-c", "while ! test -e %s; do sleep 0.02; done; "
               "exec \"$@\"" % gate, "sh"] + WORKER + ["serve"]
    with Supervisor("-n", "1", "--listen", "127.0.0.1:0",
                    command=command) as s:
        pid = s.wait_starts(1)[0]
        queued = [connect(port_of(s)) for _ in range(10)]
        os.kill(pid, signal.SIGKILL)
        s.wait_starts(2)
        # The shell asks for its own pid when it execs: same process.
        with open(gate, "w"):
            pass
        assert len([h for h in map(hear, queued) if len(h) == 3]) == 10
        os.unlink(gate)
        assert s.end() == 0


@case
def a_killed_supervisor_leaves_its_workers_to_the_next_one():
    with Supervisor("-n", "2", "--listen", "127.0.0.1:0",
                    command=WORKER + ["serve"]) as first:
        old = first.wait_starts(2)
        port = port_of(first)
        until(lambda: len(answer("workers", first.name)) == 3, "joined")
        first.end(signal.SIGKILL)
        time.sleep(0.2)
        assert all(is_running(p) for p in old)
        assert int(hear(connect(port))[2]) in old
        with Supervisor("-n", "2", "--listen", "127.0.0.1:%d" % port,
                        name=first.name, command=WORKER + ["serve"]) as s:
            adopted = s.wait_events("adopt", 2)
            assert sorted(int(e["pid"]) for e in adopted) == sorted(old)
            assert int(hear(connect(port))[2]) in old
            os.kill(old[0], signal.SIGKILL)
            new = s.wait_starts(1)[0]
            assert environ(new)["SHDICT_GENERATION"] == "1"
            until(lambda: len(answer("workers", s.name)) == 3, "all joined")
            assert s.end() == 0
        assert not any(is_running(p) for p in old + [new])


@case
def a_segment_without_a_name_is_passed_as_a_descriptor():
    process = subprocess.Popen(
        [SHDICT, "supervise", "--dict", "d=1m", "--json", "--"] + WORKER +
        ["push", "list", "3"], env=environment, stderr=subprocess.PIPE)
    try:
        first = json.loads(process.stderr.readline())
        assert first["event"] == "segment" and first["name"] == "fd:4", first
        fd = os.open(first["path"], os.O_RDONLY)
        name = "fd:%d" % fd
        until(lambda: answer("dump", name, "d", pass_fds=[fd]), "the list")
        entry = answer("dump", name, "d", pass_fds=[fd])[0]
        os.close(fd)
        assert entry["key"] == "list" and entry["type"] == "list", entry
        process.terminate()
        rest = [json.loads(line) for line in process.stderr]
        assert rest[-1]["event"] == "stopped" and process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@case
def a_log_that_nobody_reads_stops_nothing():
    reading, writing = os.pipe()
    name = fresh()
    process = subprocess.Popen(
        [SHDICT, "supervise", "-s", name, "--restart-limit", "0",
         "--healthy-after", "0", "--", "true"], env=environment,
        stderr=writing)
    os.close(writing)
    try:
        # A pipe holds 64 KiB: some hundred lines of starts and deaths.
        time.sleep(3)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)


@case
def killing_workers_that_hammer_leaves_the_segment_clean():
    rng = random.Random(1)
    with Supervisor("-n", "4", "--restart-limit", "0", dicts=("d=1m",),
                    command=WORKER + ["hammer"]) as s:
        s.wait_starts(4)
        until(lambda: len(answer("workers", s.name)) == 5, "joined")
        killed = set()
        while len(killed) < 60:
            time.sleep(rng.uniform(0.02, 0.15))
            victims = sorted(set(s.live().values()) - killed)
            if not victims:
                continue
            victim = rng.choice(victims)
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
            if len(killed) % 20 == 0:
                expect(0, "check", s.name, "--lock", out=b"clean\n")
        until(lambda: len(s.events("death")) == len(killed),
              "every death told")
        assert not s.events("reap_failed"), s.lines
        assert s.end() == 0
    expect(0, "check", s.name, out=b"clean\n")
    expect(0, "check", s.name, "--lock", out=b"clean\n")
    stat = answer("stat", s.name)
    assert stat["deaths"] > 0, stat
    entries = answer("dump", s.name, "d")
    keys = [e["key"] for e in entries]
    assert len(keys) == len(set(keys)) > 20, len(keys)
    assert sorted(keys) == sorted(answer("keys", s.name, "d"))

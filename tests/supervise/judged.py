# SPDX-License-Identifier: BSD-2-Clause
"""Workers that hang, sit on a lock, are not ready; what `workers` shows."""
import json
import os
import signal
import subprocess
import time

from harness import SHDICT, answer, case, environment, expect, fresh, until
from supervisor import Supervisor, environ, is_running
from common import WORKER, Started, clean, joined, workers


@case
def a_worker_whose_heart_stops_is_killed_and_replaced():
    with Supervisor("--hang", "0.3", command=WORKER + ["beat", "0.2"]) as s:
        pid = s.wait_starts(1)[0]
        told = s.wait_events("hang", 1)[0]
        assert (told["pid"], told["worker"], told["action"]) == (
            str(pid), "0", "kill"), told
        assert int(told["silent_ms"]) >= 300, told
        death = s.wait_events("death", 1)[0]
        assert (death["pid"], death["signal"]) == (str(pid), "9"), death
        assert s.wait_starts(2)[1] != pid
        assert s.end() == 0


@case
def who_never_beats_is_not_judged():
    with Supervisor("--hang", "0.2", command=WORKER + ["idle"]) as s:
        s.wait_starts(1)
        joined(s.name, 1)
        time.sleep(0.6)
        assert not s.events("hang") and not s.events("death"), s.lines
        assert s.end() == 0


@case
def limits_of_zero_judge_nobody():
    with Supervisor("--hang", "0", "--lock-limit", "0",
                    command=WORKER + ["beat", "0.1"]) as s:
        s.wait_starts(1)
        joined(s.name, 1)
        time.sleep(0.5)
        assert not s.events("hang") and not s.events("death"), s.lines
        assert s.end() == 0


def stop_inside(name, pid):
    """Stops a worker while it holds a lock, which `workers` must tell."""
    def holds():
        os.kill(pid, signal.SIGSTOP)
        until(lambda: state_of(pid) == "T", "stopped")
        held = [w["holds"] for w in answer("workers", name)
                if w["pid"] == pid]
        if held and held[0]:
            return held[0]
        os.kill(pid, signal.SIGCONT)
        return None
    return until(holds, "stopped inside", 30)


def state_of(pid):
    with open("/proc/%d/stat" % pid) as f:
        return f.read().rsplit(")", 1)[1].split()[0]


@case
def a_worker_that_sits_on_a_lock_is_killed_and_recovered_from():
    with Supervisor("-n", "2", "--lock-limit", "1", dicts=("d=1m",),
                    command=WORKER + ["hammer"]) as s:
        s.wait_starts(2)
        pid = sorted(joined(s.name, 2))[0]
        held = stop_inside(s.name, pid)
        assert held == [{"kind": "dict", "object": "d", "count": 1,
                             "locks": 1}], held
        told = s.wait_events("stuck", 1)[0]
        assert (told["pid"], told["object"], told["action"]) == (
            str(pid), "d", "kill"), told
        assert int(told["held_ms"]) >= 1000, told
        death = s.wait_events("death", 1)[0]
        assert death["pid"] == str(pid), death
        joined(s.name, 2)
        assert len(s.events("stuck")) == 1, s.lines
        clean(s.name)
        assert s.end() == 0


@case
def a_stranger_that_sits_on_a_lock_is_killed_too():
    with Supervisor("--lock-limit", "0.5", dicts=("d=1m",)) as s:
        s.wait_starts(1)
        with Started(s.name, "hammer", number=7) as stranger:
            stop_inside(s.name, stranger.pid)
            told = s.wait_events("stuck", 1)[0]
            assert told["pid"] == str(stranger.pid), told
            assert stranger.process.wait(timeout=20) == -signal.SIGKILL
            died = s.wait_events("worker_died", 1)[0]
            assert died["pid"] == str(stranger.pid), died
        clean(s.name)
        assert s.end() == 0


@case
def a_death_is_recovered_from_and_the_log_tells():
    with Supervisor(dicts=("d=1m",),
                    command=WORKER + ["hammer"]) as s:
        s.wait_starts(1)
        pid = sorted(joined(s.name, 1))[0]
        stop_inside(s.name, pid)
        os.kill(pid, signal.SIGKILL)
        death = s.wait_events("death", 1)[0]
        assert death["recovered"] == "1", death
        assert int(death["recovery_us"]) >= 0, death
        assert answer("stat", s.name)["deaths"] == 1
        assert s.end() == 0


@case
def a_worker_that_is_ready_in_time_stays():
    with Supervisor("-n", "2", "--ready", "20",
                    command=WORKER + ["ready", "0.2"]) as s:
        s.wait_starts(2)
        s.wait_events("ready", 2)
        assert [w["phase"] for w in workers(s.name).values()] == \
            ["ready"] * 2
        assert not s.events("death"), s.lines
        assert s.end() == 0


@case
def a_worker_that_is_not_ready_in_time_is_killed_and_that_counts():
    with Supervisor("--ready", "0.5", "--restart-limit", "1",
                    "--healthy-after", "60", command=WORKER + ["idle"]) as s:
        assert s.process.wait(timeout=40) == 5
        s.reader.join()
        assert len(s.events("not_ready")) == 2, s.lines
        assert [d["strikes"] for d in s.events("death")] == ["1", "2"]
        assert s.events("give_up")[0]["reason"] == "crash_loop"


@case
def a_roll_waits_for_the_new_generation_to_be_ready():
    with Supervisor("-n", "2", "--ready", "30",
                    command=WORKER + ["ready", "0.7"]) as s:
        old = s.wait_starts(2)
        s.wait_events("ready", 2)
        s.process.send_signal(signal.SIGHUP)
        new = s.wait_starts(4)[2:]
        found = joined(s.name, 4)
        assert sorted(w["generation"] for w in found.values()) == [1, 1, 2, 2]
        s.wait_events("rolled", 1)
        assert len(s.events("ready")) == 4, s.lines
        s.wait_events("exit", 2)
        assert not any(is_running(p) for p in old)
        assert all(is_running(p) for p in new)
        assert s.end() == 0


@case
def a_generation_that_is_never_ready_does_not_replace_one_that_is():
    flag = "/dev/shm/shdict-" + fresh()
    command = ["sh", "-c", "test -e %s && exec \"$@\" idle; "
               "exec \"$@\" ready 0" % flag, "sh"] + WORKER
    with Supervisor("-n", "2", "--ready", "2", command=command) as s:
        old = s.wait_starts(2)
        s.wait_events("ready", 2)
        with open(flag, "w"):
            pass
        s.process.send_signal(signal.SIGHUP)
        s.wait_events("roll_failed", 1)
        assert all(is_running(p) for p in old), s.lines
        os.unlink(flag)
        s.wait_events("exit", 1)
        until(lambda: sorted(workers(s.name)) == sorted(old), "the old ones")
        assert sorted(workers(s.name)) == sorted(old)
        assert s.end() == 0


@case
def those_that_drain_are_shown_as_draining_and_restarts_are_counted():
    with Supervisor("-n", "2", "--grace", "0.2", "--drain", "30",
                    command=WORKER + ["slow", "2"]) as s:
        old = s.wait_starts(2)
        joined(s.name, 2)
        os.kill(old[0], signal.SIGKILL)
        again = s.wait_starts(3)[2]
        found = joined(s.name, 2)
        assert found[again]["restarts"] == 1 and \
            found[old[1]]["restarts"] == 0, found
        assert environ(again)["SHDICT_RESTARTS"] == "1"
        s.process.send_signal(signal.SIGHUP)
        s.wait_events("rolled", 1)
        found = workers(s.name)
        for pid in (again, old[1]):
            assert found[pid]["phase"] == "draining", found
            assert found[pid]["generation"] == 1, found
        rows = expect(0, "workers", s.name).out.decode().splitlines()
        assert rows[0].split()[4:9] == ["STATE", "PHASE", "RESTARTS",
                                        "SILENT", "HOLDS"], rows
        assert any(r.split()[1:9] == [str(again), "0", "1", "alive",
                                      "draining", "1", "-", "-"]
                   for r in rows), rows
        s.wait_events("exit", 2)
        assert s.end() == 0


@case
def every_line_of_the_log_is_json_if_asked_for():
    name = fresh()
    process = subprocess.Popen(
        [SHDICT, "supervise", "-s", name, "--dict", "d=1m", "--json",
         "--hang", "0.2", "--"] + WORKER + ["beat", "0.1"], env=environment,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        seen = []
        while "death" not in [e["event"] for e in seen]:
            seen.append(json.loads(process.stderr.readline()))
        process.terminate()
        seen += [json.loads(line) for line in process.stderr]
        assert process.wait(20) == 0
        kinds = {e["event"] for e in seen}
        assert {"segment", "start", "hang", "death", "drain",
                "stopped"} <= kinds, kinds
        hang = [e for e in seen if e["event"] == "hang"][0]
        assert isinstance(hang["silent_ms"], int), hang
    finally:
        process.kill()
        process.wait()
        process.stderr.close()

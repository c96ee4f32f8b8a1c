# SPDX-License-Identifier: BSD-2-Clause
"""shdict sidecar, beside workers that somebody else starts."""
import os
import signal
import time

from harness import answer, case, expect, run, segment, until
from supervisor import Supervisor
from common import Sidecar, Started, clean, workers
from judged import stop_inside


@case
def a_sidecar_recovers_after_each_death_at_once():
    name = segment("d=1m")
    with Sidecar(name) as s:
        s.wait_events("segment", 1)
        for i in range(5):
            with Started(name, "hammer") as worker:
                s.wait_events("worker_joined", i + 1)
                stop_inside(name, worker.pid)
                worker.kill()
                died = s.wait_events("worker_died", i + 1)[i]
                assert died["pid"] == str(worker.pid), died
                assert died["recovered"] == "1", died
                assert not workers(name)
        assert answer("stat", name)["deaths"] == 5
        clean(name)
        assert s.end() == 0
    # It left its own slot in peace.
    assert answer("workers", name) == []


@case
def a_sidecar_finds_those_that_were_there_before_and_the_dead():
    name = segment("d=1m")
    with Started(name, "idle", number=3) as alive:
        with Started(name, "idle", number=4) as dead:
            dead.kill()
            with Sidecar(name) as s:
                joined = s.wait_events("worker_joined", 1)
                s.wait_events("worker_died", 1)
                assert str(alive.pid) in [e["pid"] for e in joined]
                until(lambda: list(workers(name)) == [alive.pid], "reaped")
                assert s.end() == 0


@case
def who_leaves_in_peace_has_not_died():
    name = segment("d=1m")
    with Sidecar(name) as s:
        s.wait_events("segment", 1)
        with Started(name, "peace") as worker:
            s.wait_events("worker_joined", 1)
            worker.process.terminate()
            assert worker.process.wait(20) == 0
        left = s.wait_events("worker_left", 1)[0]
        assert left["pid"] == s.events("worker_joined")[0]["pid"]
        assert not s.events("worker_died")
        assert s.end(signal.SIGINT) == 0


@case
def a_sidecar_tells_of_those_that_hang_and_kills_only_if_asked_to():
    for kill in (False, True):
        name = segment("d=1m")
        with Sidecar(name, "--hang", "0.2", "--lock-limit", "0.5",
                     *(["--kill"] if kill else [])) as s:
            s.wait_events("segment", 1)
            with Started(name, "beat", "0.1") as hung, \
                    Started(name, "hammer", number=1) as stuck:
                told = s.wait_events("hang", 1)[0]
                assert (told["pid"], told["action"]) == (
                    str(hung.pid), "kill" if kill else "none"), told
                stop_inside(name, stuck.pid)
                told = s.wait_events("stuck", 1)[0]
                assert (told["pid"], told["object"]) == (str(stuck.pid),
                                                         "d"), told
                if kill:
                    assert hung.process.wait(20) == -signal.SIGKILL
                    assert stuck.process.wait(20) == -signal.SIGKILL
                    s.wait_events("worker_died", 2)
                else:
                    time.sleep(0.2)
                    assert hung.process.poll() is None
                    assert stuck.process.poll() is None
                    assert len(s.events("stuck")) == 1
            assert s.end() == 0


@case
def a_sidecar_ends_when_its_segment_is_gone():
    name = segment("d=1m")
    with Sidecar(name) as s:
        s.wait_events("segment", 1)
        expect(0, "rm", name)
        assert s.process.wait(timeout=30) == 0
        s.reader.join()
        assert s.events("gone") and s.events("stopped"), s.lines
    r = run("sidecar", name)
    assert r.code == 3, r


@case
def a_supervisor_takes_the_place_of_a_sidecar_that_has_died():
    name = segment("d=1m")
    with Sidecar(name) as s:
        s.wait_events("segment", 1)
        s.end(signal.SIGKILL)
    with Supervisor(name=name, dicts=()) as s:
        s.wait_starts(1)
        assert s.end() == 0

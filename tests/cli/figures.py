# SPDX-License-Identifier: BSD-2-Clause
"""What is counted is shown: stat, its rates, export, flush, completion."""
import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request

from harness import (SHDICT, answer, case, directory, environment, expect,
                     fresh, run, segment)


SAMPLE = re.compile(r'^(shdict_[a-z_]+)\{((?:[a-z]+="(?:[^"\\]|\\.)*",?)*)\} '
                    r'(\d+)$')


def samples(text):
    """{(name, labels): value}; each line is one or a comment, and the lines
    of a name stand together after its TYPE."""
    found, typed, current = {}, set(), None
    for line in text.splitlines():
        m = re.match(r"# (HELP|TYPE) (\S+) (.+)$", line)
        if m:
            if m.group(1) == "TYPE":
                assert m.group(2) not in typed, line
                assert m.group(3) == ("counter" if m.group(2).endswith(
                    "_total") else "gauge"), line
                typed.add(m.group(2))
                current = m.group(2)
            continue
        m = SAMPLE.match(line)
        assert m and m.group(1) == current, line
        assert (m.group(1), m.group(2)) not in found, line
        found[m.group(1), m.group(2)] = int(m.group(3))
    return found


@case
def stat_shows_all_objects():
    name = segment("a=1m", "b=2m")
    expect(0, "set", name, "a", "k", "v")
    text = expect(0, "stat", name).out.decode()
    assert re.search(r"^NAME +KIND +ENTRIES .* RATIO ", text, re.M), text
    assert re.search(r"^a +dict +1 +1M .* - ", text, re.M), text
    got = {o["name"]: o for o in answer("stat", name)["objects"]}
    assert sorted(got) == ["a", "b"] and got["b"]["kind"] == "dict", got
    assert got["a"]["entries"] == 1 and got["b"]["entries"] == 0, got
    assert got["a"]["changes"] >= 1 and got["a"]["hits"] == 0, got


@case
def stat_shows_rates():
    name = segment("a=1m", "b=1m")
    r = expect(0, "stat", name, "--interval", "0.01", "--count", "3")
    assert r.out.count(b"READS/S") == 3 and r.out.count(b"\na ") == 3, r
    r = expect(0, "stat", name, "b", "-i", "0.01", "-n", "2", "--json")
    docs = [json.loads(s) for s in r.out.splitlines()]
    assert len(docs) == 2, r
    for doc in docs:
        assert doc["schema"] == 1 and doc["seconds"] >= 0.01, doc
        assert [o["name"] for o in doc["objects"]] == ["b"], doc
        assert doc["objects"][0]["hits_per_second"] == 0, doc
    expect(2, "stat", name, "--count", "1")
    expect(2, "stat", name, "--interval", "0")
    expect(3, "stat", name, "none", "--interval", "1")


@case
def export_is_what_prometheus_reads():
    name = segment("a=1m", 'odd "\\name=1m')
    expect(0, "set", name, "a", "k", "v")
    got = samples(expect(0, "export", name).out.decode())
    labels = 'segment="%s"' % name
    assert got["shdict_segment_deaths_total", labels] == 0, got
    assert got["shdict_workers", labels + ',state="alive"'] == 0, got
    mine = labels + ',object="a",kind="dict"'
    assert got["shdict_entries", mine] == 1, got
    assert got["shdict_capacity_bytes", mine] == 1 << 20, got
    assert got["shdict_hits_total", mine] == 0, got
    odd = labels + ',object="odd \\"\\\\name",kind="dict"'
    assert got["shdict_entries", odd] == 0, got
    expect(2, "export", name, "--json")
    expect(3, "export", fresh())


@case
def export_replaces_a_file():
    name = segment("a=1m")
    path = os.path.join(directory, "shdict.prom")
    for n in (1, 2):
        expect(0, "set", name, "a", "k%d" % n, "v")
        expect(0, "export", name, "--output", path, out=b"")
        with open(path) as f:
            got = samples(f.read())
        key = 'segment="%s",object="a",kind="dict"' % name
        assert got["shdict_entries", key] == n, got
    assert os.stat(path).st_mode & 0o777 == 0o644
    assert [f for f in os.listdir(directory) if f.startswith("shdict.p")] == \
        ["shdict.prom"]
    expect(5, "export", name, "-o", directory + "/none/file", err=b"No such")


@case
def export_serves_over_http():
    name = segment("a=1m")
    for spec in ("nowhere", "127.0.0.1:x", "127.0.0.1:65536", "host name:1"):
        expect(2, "export", name, "--listen", spec)
    p = subprocess.Popen([SHDICT, "export", name, "--listen", "127.0.0.1:0"],
                         env=environment, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    try:
        line = p.stdout.readline().decode()
        port = int(re.match(r"listening on port (\d+), path /metrics$",
                            line).group(1))
        url = "http://127.0.0.1:%d" % port
        for n in (1, 2):
            expect(0, "set", name, "a", "k%d" % n, "v")
            with urllib.request.urlopen(url + "/metrics", timeout=30) as r:
                assert "version=0.0.4" in r.headers["Content-Type"]
                got = samples(r.read().decode())
            key = 'segment="%s",object="a",kind="dict"' % name
            assert got["shdict_entries", key] == n, got
        for path, data, code in (("/", None, 404), ("/metrics", b"x", 405)):
            try:
                urllib.request.urlopen(url + path, data=data, timeout=30)
                raise AssertionError("no error for " + path)
            except urllib.error.HTTPError as e:
                assert e.code == code, e
    finally:
        p.send_signal(signal.SIGTERM)
        out, err = p.communicate(timeout=60)
    assert p.returncode == 0 and err == b"", (p.returncode, err)


@case
def flush_removes_all_or_the_expired():
    name = segment()
    for i in range(5):
        expect(0, "set", name, "d", "k%d" % i, "v")
    expect(0, "set", name, "d", "gone", "v", "--ttl", "0.001")
    while run("get", name, "d", "gone").code == 0:
        pass
    assert answer("flush", name, "d", "--expired") == {"freed": 1}
    expect(0, "get", name, "d", "k3", out=b"v")
    expect(0, "flush", name, "d", out=b"5 entries freed\n")
    assert answer("stat", name, "d")["entries"] == 0
    expect(3, "flush", name, "none")


@case
def watch_prints_what_changes():
    name = segment()
    p = subprocess.Popen([SHDICT, "watch", name, "d", "k", "-i", "0.005"],
                         env=environment, stdout=subprocess.PIPE)
    try:
        assert p.stdout.readline() == b"-\n"
        for words, line in ((["v\n"], b"string\tv\\n\n"),
                            (["7", "-n"], b"number\t7\n"),
                            (["7", "-n", "-f", "1"], b"number\t7\n"),
                            (["true", "-b"], b"boolean\ttrue\n")):
            expect(0, "set", name, "d", "k", *words)
            assert p.stdout.readline() == line, words
        expect(0, "delete", name, "d", "k")
        assert p.stdout.readline() == b"-\n"
    finally:
        p.kill()
        p.wait()
    expect(0, "set", name, "d", "k", "v")
    assert answer("watch", name, "d", "k", "--count", "1") == {
        "key": "k", "found": True, "type": "string", "value": "v", "flags": 0,
        "ttl": None}
    expect(2, "watch", name, "d", "")
    expect(2, "watch", name, "d", "k", "--interval", "0")
    expect(3, "watch", name, "none", "k")


@case
def completion_is_a_script_that_knows_the_verbs():
    verbs = re.findall(r"^  ([a-z]+) {2,}\S",
                       expect(0, "--help").out.decode(), re.M)
    name = segment("a=1m", "b=1m")
    script = expect(0, "completion", "bash").out.decode()

    def complete(*words):
        text = script + (
            "\nCOMP_WORDS=(%s); COMP_CWORD=%d; _shdict; "
            'printf "%%s\\n" "${COMPREPLY[@]}"' % (
                " ".join("'%s'" % w for w in ("shdict",) + words),
                len(words)))
        done = subprocess.run(
            ["bash", "-c", text], stdout=subprocess.PIPE, check=True,
            env=dict(environment, PATH=os.path.dirname(SHDICT) + ":" +
                     os.environ["PATH"]))
        return done.stdout.decode().split()
    assert set(complete("")) == set(verbs) | {"--help", "--version"}
    assert complete("expo") == ["export"]
    assert complete("dump", "--ma") == ["--match"]
    assert complete("stat", name[:-1] + name[-1]) == [name]
    assert complete("stat", name, "") == ["a", "b"]
    assert complete("get", "--stale", name, "b") == ["b"]
    assert complete("completion", "") == ["bash", "zsh", "fish"]
    for shell in ("zsh", "fish"):
        out = expect(0, "completion", shell).out.decode()
        for verb in verbs:
            assert re.search(r"\b%s\b" % verb, out), (shell, verb)
    expect(2, "completion", "tcsh")
    expect(2, "completion", "bash", "--json")

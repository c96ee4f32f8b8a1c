# SPDX-License-Identifier: BSD-2-Clause
"""map and layout: what is drawn is what stat says, wherever it is drawn, on
sound segments and damaged ones, and whoever hangs."""
import os
import re
import signal
import struct
import subprocess
import xml.etree.ElementTree
import zlib

from harness import (WORKER, answer, case, directory, environment, expect,
                     fresh, pages, path_of, run, segment, until)
from screen import Screen

BLOCKS = "░▒▓█·"
SVG = "{http://www.w3.org/2000/svg}"


def filled(*dicts):
    name = segment(*dicts or ("d=1m", "quiet=1m"))
    for i in range(60):
        expect(0, "set", name, "d", "key%d" % i, "v" * (i * 40))
    return name


def lines_of(name, *words, env=None):
    return expect(0, "map", name, *words, env=env).out.decode().splitlines()


def strip_of(document, name, part="pages"):
    found, = [s for s in document["strips"]
              if (s["object"], s["part"]) == (name, part)]
    return found


def png_size(path):
    """After each chunk's checksum was found right, and its lines complete."""
    with open(path, "rb") as f:
        data = f.read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, image = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        crc, = struct.unpack(">I", data[at + 8 + length:at + 12 + length])
        assert zlib.crc32(kind + body) == crc, kind
        if kind == b"IHDR":
            width, height, depth, colours = struct.unpack(">IIBB", body[:10])
            assert (depth, colours) == (8, 2), (depth, colours)
        if kind == b"IDAT":
            image += body
        at += 12 + length
    assert len(zlib.decompress(image)) == height * (1 + 3 * width)
    return width, height


@case
def map_agrees_with_stat():
    name = filled()
    document = answer("map", name, "--group", "3")
    assert document["pages_per_cell"] == 3, document
    for dictionary in ("d", "quiet"):
        told = answer("stat", name, dictionary)
        strip = strip_of(document, dictionary)
        assert strip["pages"] == told["pages"], strip
        assert strip["free"] + strip["untouched"] == told["pages_free"]
        assert strip["used"] == told["pages"] - told["pages_free"]
        assert strip["entries"] == told["entries"]
        assert strip["used_bytes"] == told["cells_bytes"]
        assert strip["damaged"] == strip["beyond"] == strip["leaving"] == 0
        stored = [c for c in told["classes"] if c["pages"] > 0]
        assert strip["classes"] == [
            {"cell_bytes": c["cell_bytes"], "pages": c["pages"],
             "used_cells": c["used"], "free_cells": c["free"]}
            for c in stored], strip
        for field in ("used", "used_bytes", "entries", "free"):
            assert strip[field] == sum(c[field] for c in strip["cells"])
        assert len(strip["cells"]) == \
            (strip["pages"] - strip["untouched"] + 2) // 3, strip


@case
def map_of_one_object_is_that_alone():
    name = filled()
    expect(0, "push", name, "q", "--create", "64k", "x")
    expect(0, "publish", name, "t", "--create", "64k", "x")
    kinds = {(s["object"], s["part"]) for s in answer("map", name)["strips"]}
    assert kinds == {("", "tables"), ("d", "index"), ("d", "pages"),
                     ("quiet", "index"), ("quiet", "pages"), ("q", "parts"),
                     ("t", "parts")}, kinds
    got = answer("map", name, "q")
    assert [s["kind"] for s in got["strips"]] == ["queue"], got
    assert got["strips"][0]["used"] >= 1, got
    expect(3, "map", name, "none", err=b"no object")
    for words in (["--show", "size"], ["--group", "0"], ["--group", "x"]):
        expect(2, "map", name, *words)


@case
def map_as_text_fits_any_width_and_is_ascii_where_it_must_be():
    name = filled()
    for width in (1, 20, 79, 300):
        drawn = lines_of(name, "-g", "1", env={"COLUMNS": str(width)})
        cells = [line for line in drawn if line and not line.strip(BLOCKS)]
        assert max(map(len, cells)) <= width, drawn
        used = answer("stat", name, "d")
        at = [i for i, x in enumerate(drawn) if x.startswith("d dict: ")][0]
        row = "".join(drawn[at + 1:][:next(
            i for i, x in enumerate(drawn[at + 1:]) if x.strip(BLOCKS))])
        assert len(row.replace("·", "")) == \
            used["pages"] - used["pages_free"], drawn
    assert "\x1b" not in "".join(drawn)
    plain = "\n".join(lines_of(name, env={"LC_ALL": "C"}))
    assert plain.isascii() and re.search(r"^[-+*#.]+$", plain, re.M), plain
    for show, pattern in (("class", r"^[a-u·]+$"), ("age", r"^[0-6·]+$"),
                          ("kind", r"^e[ev·]+$")):
        drawn = "\n".join(lines_of(name, "--show", show))
        assert re.search(pattern, drawn, re.M), drawn


@case
def a_map_of_many_pages_says_how_many_a_cell_is():
    name = filled("d=1m", "large=64m")
    expect(0, "set", name, "large", "k", "--stdin", stdin=b"v" * (48 << 20))
    few = lines_of(name, env={"COLUMNS": "80", "LINES": "24"})
    assert len(few) <= 24, len(few)
    group, = re.findall(r"each cell is (\d+) pages", few[0])
    assert int(group) > 8, few
    document = answer("map", name, "large", "-g", group)
    strip = strip_of(document, "large")
    assert sum(c["used"] for c in strip["cells"]) == strip["used"] > 12000
    assert strip["pieces_bytes"] > 48 << 20, strip
    # Whatever is asked for: a bounded number of cells.
    cells = strip_of(answer("map", name, "large", "-g", "1"),
                     "large")["cells"]
    assert len(cells) == strip["pages"] - strip["untouched"]


@case
def svg_and_png_are_what_they_should_be():
    name = segment("d=1m", 'odd <&>"\' name=1m')
    expect(0, "set", name, 'odd <&>"\' name', "k", "v" * 9000)
    svg, png = (os.path.join(directory, "map." + e) for e in ("svg", "png"))
    for show in ("fill", "class", "age", "kind"):
        expect(0, "map", name, "--svg", svg, "--png", png, "--show", show,
               out=b"")
        root = xml.etree.ElementTree.parse(svg).getroot()
        assert root.tag == SVG + "svg"
        size = int(root.get("width")), int(root.get("height"))
        assert png_size(png) == size
        texts = [t.text for t in root.iter(SVG + "text")]
        assert any(t.startswith('odd <&>"\' name dict: ') for t in texts)
        for box in root.iter(SVG + "rect"):
            assert int(box.get("x")) + int(box.get("width")) <= size[0]
            assert int(box.get("y")) + int(box.get("height")) <= size[1]
    titles = [t.text for t in root.iter(SVG + "title")]
    document = answer("map", name)
    assert len(titles) == sum(len(s["cells"]) for s in document["strips"])
    assert sum("mostly long values" in t for t in titles) >= 2, titles
    assert os.stat(svg).st_mode & 0o777 == os.stat(png).st_mode & 0o777 \
        == 0o644
    for option in ("--svg", "--png"):
        expect(5, "map", name, option, directory + "/none/file",
               err=b"No such")
    assert sorted(f for f in os.listdir(directory)
                  if f.startswith("map.")) == ["map.png", "map.svg"]


@case
def map_draws_in_a_terminal_of_any_size():
    name = filled()
    for width, height in ((100, 40), (30, 12)):
        with Screen("map", name, width=width, height=height) as screen:
            screen.shows(r"^exit 0$")
            text = screen.text("-S", "-")  # with what has gone off the top
            assert re.search("^[%s ]+$" % BLOCKS, text, re.M), text
            assert re.search(r"^(.* )?· free  ~ leaving", text, re.M), text
    for env, colour in (("", True), ("NO_COLOR=1", False)):
        with Screen("map", name, env=env) as screen:
            screen.shows(r"^exit 0$")
            found = re.search(r"\x1b\[[0-9;]*38;5;\d+m", screen.text("-e"))
            assert bool(found) == colour, screen.text("-e")
    with Screen("map", name, env="LC_ALL=C") as screen:
        screen.shows(r"^exit 0$")
        assert screen.text().isascii(), screen.text()


@case
def map_and_layout_work_while_every_worker_is_stopped():
    name = segment("d=1m")
    workers = [subprocess.Popen(WORKER + ["hammer"], stdout=subprocess.PIPE,
                                env=dict(environment, SHDICT_SEGMENT=name))
               for _ in range(3)]
    try:
        for worker in workers:
            assert worker.stdout.readline() == b"ready\n"
        until(lambda: answer("stat", name, "d")["changes"] > 1000,
              "some changes")
        for _ in range(10):
            answer("map", name)  # beside them
        for worker in workers:
            worker.send_signal(signal.SIGSTOP)
        assert strip_of(answer("map", name), "d")["used"] > 0
        assert answer("layout", name)["used_bytes"] > 0
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    # After all have died, and nobody has recovered anything.
    before = pages(name)
    assert strip_of(answer("map", name), "d")["used"] > 0
    answer("layout", name)
    assert pages(name) == before


@case
def layout_explains_each_byte_of_the_file():
    name = filled()
    expect(0, "push", name, "q", "--create", "64k", "x")
    got = answer("layout", name)
    assert got["bytes"] == os.stat(path_of(name)).st_size
    assert got["committed_bytes"] == os.stat(path_of(name)).st_blocks * 512
    at = 0
    for part in got["parts"]:
        assert part["at"] == at and part["bytes"] > 0, part
        at += part["bytes"]
    assert at == got["bytes"]
    for field in ("bytes", "used_bytes", "memory_bytes"):
        assert got[field] == sum(p[field] for p in got["parts"]), field
    assert got["memory_bytes"] <= got["committed_bytes"]
    told = {(p["object"], p["part"]): p for p in got["parts"]}
    stat = answer("stat", name, "d")
    assert told["d", "pages"]["used_bytes"] == \
        4096 * (stat["pages"] - stat["pages_free"])
    assert told["q", "messages"]["used_bytes"] == 256
    whole = answer("stat", name)
    for field in ("layout_version", "size_bytes", "workers_max", "deaths"):
        assert got["header"][field] == whole[field], field
    text = expect(0, "layout", name).out.decode()
    assert re.search(r"^AT +RESERVED +USED +MEMORY +PART +OF$", text, re.M)
    assert re.search(r"^0x[0-9a-f]+ .* pages +dict d$", text, re.M), text
    expect(3, "layout", fresh(), err=b"cannot attach")


@case
def what_is_damaged_is_drawn_as_such():
    name = filled()
    parts = {(p["object"], p["part"]): p
             for p in answer("layout", name)["parts"]}
    catalogue = parts[None, "catalogue"]
    table = parts["d", "page table"]
    with open(path_of(name), "r+b") as f:
        f.seek(table["at"] + 2 * 64 + 40)  # the owner of page 2
        owner = f.read(4)
        f.seek(table["at"] + 2 * 64 + 40)
        f.write(b"\xff\xff\xff\x7f")
    document = answer("map", name, code=4)
    assert strip_of(document, "d")["damaged"] == 1, document
    r = run("map", name)
    assert r.code == 4 and b"!" in r.out and b"1 damaged" in r.out, r
    assert b"shdict check" in r.err, r
    with open(path_of(name), "r+b") as f:
        f.seek(table["at"] + 2 * 64 + 40)
        f.write(owner)
        f.seek(parts["d", "header"]["at"] + 32)  # where its shards are
        where = f.read(8)
        f.seek(parts["d", "header"]["at"] + 32)
        f.write(b"\xff" * 8)
    document = answer("map", name, code=4)
    assert strip_of(document, "d", "damaged")["damaged"] > 0, document
    assert strip_of(document, "quiet")["pages"] > 0, document
    got = answer("layout", name)
    assert ["damaged"] == [p["part"] for p in got["parts"]
                           if p["object"] == "d"], got
    with open(path_of(name), "r+b") as f:
        f.seek(parts["d", "header"]["at"] + 32)
        f.write(where)
        f.seek(catalogue["at"] + 16)  # an object's place
        f.write(b"\xff" * 8)
    answer("map", name, code=4)
    got = answer("layout", name, code=4)
    assert sum(p["bytes"] for p in got["parts"]) == got["bytes"]


@case
def an_empty_segment_is_drawn():
    name = fresh()
    expect(0, "create", name, "--size", "64g")
    document = answer("map", name)
    assert [s["part"] for s in document["strips"]] == ["tables"], document
    assert len(lines_of(name)) >= 4
    got = answer("layout", name)
    assert got["bytes"] == os.stat(path_of(name)).st_size == 64 << 30

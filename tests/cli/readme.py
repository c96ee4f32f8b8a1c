# SPDX-License-Identifier: BSD-2-Clause
"""What README.md and docs/ say is so: the tour is what tools/tour prints, the
verbs are those there are, and what they point to is there."""
import os
import re
import subprocess
import xml.etree.ElementTree

from harness import BUILD, ROOT, case, environment, expect, fresh, path_of

DOCUMENTS = ["README.md"] + sorted(
    "docs/" + f for f in os.listdir(os.path.join(ROOT, "docs"))
    if f.endswith(".md"))


def text_of(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as f:
        return f.read()


def shape(text):
    """The lines without what differs from run to run: numbers and widths, and
    the picture that a map is."""
    lines = []
    for line in text.splitlines():
        if line.strip("░▒▓█· ") == "":
            line = "(a row of pages)"
        line = re.sub(r"\d{4}-\d\d-\d\dT[\d:]*Z", "N", line)
        line = re.sub(r"-?\d+(\.\d+)?[KMG]?\b", "N", line)
        line = re.sub(r"\b(worker|operation)s\b", r"\1", line)
        line = re.sub(r"\w+:N(,\w+:N)+", "jobs:N", line)  # and a lock
        lines.append(" ".join(line.split()))
    return [x for i, x in enumerate(lines) if i == 0 or x != lines[i - 1]]


@case
def the_tour_of_the_readme_is_what_it_prints():
    block, = re.findall(r"^```console\n(.*?)^```$", text_of("README.md"),
                        re.M | re.S)
    name = fresh()
    done = subprocess.run([os.path.join(ROOT, "tools", "tour"), name],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=dict(environment, SHDICT_BUILD=BUILD),
                          timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b""), done
    printed = done.stdout.decode().replace(name, "tour")
    differ = [(a, b) for a, b in zip(shape(printed), shape(block)) if a != b]
    assert shape(printed) == shape(block), (differ, printed)
    served = re.search(r"tour counters hits; echo\n(\d+)\n", printed)
    assert int(served.group(1)) >= 50000 and "jobs:1" in printed, printed
    assert not os.path.exists(path_of(name))
    # The comparison sees a difference.
    assert shape(block) != shape(block.replace("\nclean\n", "\ntorn\n"))


@case
def the_table_of_verbs_has_all_of_them():
    table = text_of("README.md").split("## The command")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.M)
    named = {word for row in rows for word in re.findall(r"`(\w+)", row)}
    help_text = expect(0, "--help").out.decode()
    verbs = set(re.findall(r"^  ([a-z]+) {2,}\S", help_text, re.M))
    assert named == verbs and len(named) > 30, named ^ verbs


@case
def what_the_documents_point_to_is_there():
    count = 0
    for document in DOCUMENTS:
        text = text_of(document)
        at = os.path.dirname(os.path.join(ROOT, document))
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            if "://" not in target:
                assert os.path.exists(os.path.join(at, target)), (document,
                                                                  target)
                count += 1
        for path in re.findall(r"`((?:tests|tools|docs|shm|lua)/[\w./]*)`",
                               text):
            assert os.path.exists(os.path.join(ROOT, path)), (document, path)
            count += 1
    assert count > 30, count


@case
def the_pictures_are_drawings():
    for name in re.findall(r"!\[.*?\]\((.*?)\)", text_of("README.md")):
        root = xml.etree.ElementTree.fromstring(text_of(name))
        assert root.tag.endswith("svg") and len(list(root.iter())) > 15, name

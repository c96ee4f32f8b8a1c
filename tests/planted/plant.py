#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""tests/planted/plant.py NAME DIRECTORY - writes the file that the mistake of
that name changes to DIRECTORY, under its name in the tree, and prints that
name. For CMake: -DSHDICT_PLANT=NAME. The mistakes are in tests/planted/plants.
"""
import os
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))


class Plant:
    def __init__(self, name):
        self.name = name
        self.file = self.source = self.layer = self.where = ""
        self.hunks = []  # [old, new], lists of lines

    def is_header(self):
        return self.file.endswith(".h")

    def text(self):
        """The changed file. ValueError: it has not just one such place."""
        with open(os.path.join(ROOT, self.file)) as f:
            text = f.read()
        for old, new in self.hunks:
            old, new = "\n".join(old), "\n".join(new)
            if text.count(old) != 1:
                raise ValueError("%s has %d places like\n%s" %
                                 (self.file, text.count(old), old))
            text = text.replace(old, new)
        return text

    def write(self, directory):
        path = os.path.join(directory, self.file)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(self.text())
        return path


def parse(lines):
    plants = []
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\n")
        word, _, rest = line.partition(" ")
        if line == "" or line[0] == "#":
            continue
        if word == "plant":
            plants.append(Plant(rest))
        elif word == "file":
            plants[-1].file, _, plants[-1].source = rest.partition(" in ")
        elif word == "caught":
            plants[-1].layer, _, plants[-1].where = rest.partition(" ")
        elif word == "@@":
            plants[-1].hunks.append([[], []])
        elif line[0] in " -+":
            if not plants[-1].hunks:
                plants[-1].hunks.append([[], []])
            for side, signs in enumerate((" -", " +")):
                if line[0] in signs:
                    plants[-1].hunks[-1][side].append(line[1:])
        else:
            sys.exit("tests/planted/plants:%d: what is this?" % number)
    names = [p.name for p in plants]
    if len(set(names)) < len(names):
        sys.exit("tests/planted/plants: two have one name")
    return plants


def read():
    with open(os.path.join(ROOT, "tests/planted/plants")) as f:
        return parse(f)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for plant in read():
        if plant.name == sys.argv[1]:
            plant.write(sys.argv[2])
            print(plant.file)
            return
    sys.exit("there is no mistake of the name '%s'" % sys.argv[1])


if __name__ == "__main__":
    try:
        main()
    except ValueError as e:
        sys.exit(str(e))

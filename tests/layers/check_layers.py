#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""check_layers.py [ROOT] - does the tree keep the rules of the layers?

Prints one line for each violation, `file:line: what`; exit 1 if there was
any. The rules, each with a name by which the self-test knows it:

  floor     a file of shm/ includes only its own floor and floors below
  sibling   dict and ipc do not include each other, nor dict worker; ipc asks
            worker who is dead
  path      quoted includes in shm/ name the file from the root of the tree
  place     every file of shm/ lies on a floor
  public    what stands outside shm/ (tools, hosts) sees only shdict.h
  atomics   atomic_ops.h only in shm/base
  lock      waiting for a mutex or a futex only in shm/guard and shm/ipc/wait*;
            the process-private mutex over the handles is no shared lock
  licence   every file of ours has an SPDX line near its top
"""
import os
import re
import sys

FLOORS = {
    "base": 0,
    "segment": 1,
    "guard": 2,
    "memory": 3,
    "worker": 4,
    "dict": 5,
    "ipc": 5,
    "keep": 6,
    "api": 7,
}
# Has no business with a floor it could see: a dict's owner is a lock's holder.
APART = {("dict", "worker")}
TOP = {"shdict.h"}
CODE = (".c", ".h")
# Files that need the SPDX line: by extension, by name, or by "#!".
LICENSED = (".c", ".h", ".lua", ".py", ".sh", ".cmake", ".map")
LICENSED_NAMES = {"CMakeLists.txt"}
SKIP_DIRS = {".git", "__pycache__"}
# May look into the library: they test what is hidden, or measure it.
INSIDERS = ("shm/", "tests/", "fuzz/", "tools/bench/")

# Where a plain pthread_mutex_lock() is of a mutex in private memory.
PRIVATE_MUTEX = {"shm/api/handle.c", "shm/segment/protect.c"}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')
LOCK = re.compile(r"\bpthread_mutex_(?:lock|timedlock|clocklock)\b"
                  r"|\bSYS_futex\b|\b__NR_futex\b|\bfutex_\w+\s*\("
                  r"|\blinux/futex\.h\b")
ATOMICS = re.compile(r"\batomic_ops(?:_\w+)?\.h\b|\bAO_[a-z]\w*\s*\("
                     r"|\b__atomic_\w+\s*\(|\b__sync_\w+\s*\("
                     r"|\bstdatomic\.h\b")
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)


def without_comments(text):
    """Comments blanked, lines kept."""
    return COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)


def floor_of(path):
    """The floor a file of shm/ lies on, or None."""
    parts = path.split("/")
    if len(parts) == 3 and parts[0] == "shm" and parts[1] in FLOORS:
        return parts[1]
    return None


def check_include(path, quote, name):
    """What is wrong with this include, as (rule, text), or None."""
    floor = floor_of(path)
    inside = name.startswith("shm/") or floor_of("shm/" + name) is not None
    if floor is None:
        if inside and not path.startswith(INSIDERS) and \
                name != "shm/shdict.h":
            return "public", f"includes {name}: only shdict.h is public"
        return None
    if quote == "<" and not inside:
        return None
    if quote == "<" or not name.startswith("shm/"):
        return "path", f'includes {name}: write "shm/FLOOR/FILE"'
    if name[len("shm/"):] in TOP:
        return None
    other = floor_of(name)
    if other is None:
        return "place", f"includes {name}, which lies on no floor"
    if other == floor:
        return None
    if FLOORS[other] > FLOORS[floor]:
        return "floor", f"includes {name}, a floor above {floor}"
    if FLOORS[other] == FLOORS[floor] or (floor, other) in APART:
        return "sibling", f"includes {name}: {floor} and {other} " \
                          "do not know each other"
    return None


def check_code(path, text):
    floor = floor_of(path)
    if path.startswith("shm/") and floor is None and \
            path[len("shm/"):] not in TOP:
        yield 1, "place", "lies on no floor"
    may_lock = floor == "guard" or path.startswith("shm/ipc/wait")
    for number, line in enumerate(without_comments(text).split("\n"), 1):
        m = INCLUDE.match(line)
        if m:
            bad = check_include(path, *m.groups())
            if bad:
                yield number, *bad
        if not path.startswith("shm/"):
            continue
        if floor != "base" and ATOMICS.search(line):
            yield number, "atomics", "only shm/base names atomic primitives"
        if path in PRIVATE_MUTEX:
            line = line.replace("pthread_mutex_lock", "")
        if not may_lock and LOCK.search(line):
            yield number, "lock", "waits for a lock outside the guard"


def needs_licence(path, text):
    name = os.path.basename(path)
    return name.endswith(LICENSED) or name in LICENSED_NAMES or \
        text.startswith("#!")


def check_tree(root):
    for directory, dirs, files in os.walk(root):
        dirs[:] = sorted(d for d in dirs if d not in SKIP_DIRS and
                         not (directory == root and d.startswith("build")))
        for name in sorted(files):
            full = os.path.join(directory, name)
            path = os.path.relpath(full, root)
            if os.path.islink(full) or not os.path.isfile(full):
                continue
            try:
                with open(full, encoding="utf-8") as file:
                    text = file.read()
            except UnicodeDecodeError:
                continue
            if needs_licence(path, text) and not any(
                    "SPDX-License-Identifier: BSD-2-Clause" in line
                    for line in text.split("\n")[:5]):
                yield path, 1, "licence", "has no SPDX line near its top"
            if name.endswith(CODE):
                for found in check_code(path, text):
                    yield path, *found


def main():
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    root = sys.argv[1] if len(sys.argv) == 2 else os.path.dirname(
        os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    bad = False
    for path, line, rule, what in check_tree(root):
        print(f"{path}:{line}: {rule}: {what}")
        bad = True
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

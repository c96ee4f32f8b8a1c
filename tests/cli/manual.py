# SPDX-License-Identifier: BSD-2-Clause
"""Section 3 of the manual is made from shdict.h, all of it, and is sound."""
import os
import re
import subprocess

from harness import BUILD, ROOT, case, directory

MAN3 = os.path.join(BUILD, "man3")
HEADER = os.path.join(ROOT, "shm", "shdict.h")


def text_of(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def pages():
    """{name: its text}, those that are no aliases."""
    found = {f[:-2]: text_of(os.path.join(MAN3, f)) for f in os.listdir(MAN3)}
    return {n: t for n, t in found.items() if not t.startswith(".so")}


def tool(*words):
    done = subprocess.run(words, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60, check=False)
    return done.returncode, done.stdout.decode()


def bare(text):
    """Without what a formatter, or the frame of a comment, may change."""
    return re.sub(r"[\s*]", "", text)


@case
def every_exported_function_has_a_page_that_declares_it():
    exported = re.findall(r"^    (shd_\w+);", text_of(
        os.path.join(ROOT, "shm", "libshdict.map")), re.M)
    assert len(exported) > 100, exported
    known = pages()
    for name in exported:
        text = text_of(os.path.join(MAN3, name + ".3"))
        if text.startswith(".so"):
            page, = re.findall(r"^\.so man3/(shd_\w+)\.3\n$", text)
            text = known[page]
        assert "\n.Fo %s\n" % name in text, name
        assert re.search(r"^\.Nm %s( ,)?$" % name, text, re.M), name
        assert "\n.Ss" not in text or re.search(
            r"^\.Ss .*\b%s\b" % name, text, re.M), name
    declared = re.findall(r"^\.Fo (\w+)$", "".join(known.values()), re.M)
    assert sorted(declared) == sorted(exported), set(declared) ^ set(exported)


@case
def formatters_have_nothing_to_say_about_any_page():
    paths = [os.path.join(MAN3, n + ".3") for n in sorted(pages())]
    code, said = tool("mandoc", "-Tlint", "-Wwarning", *paths)
    assert (code, said) == (0, ""), said
    for page in ("shdict.1", "shdict-supervise.1", "shdict.7"):
        code, said = tool("mandoc", "-Tlint", "-Wwarning",
                          os.path.join(ROOT, "tools", "man", page))
        assert (code, said) == (0, ""), said
    code, said = tool("groff", "-ww", "-mdoc", "-Tutf8", "-z", *paths)
    assert (code, said) == (0, ""), said


@case
def every_comment_of_the_header_is_in_a_page():
    shown = ""
    for name in pages():
        code, said = tool("mandoc", "-Tutf8", "-Owidth=200",
                          os.path.join(MAN3, name + ".3"))
        assert code == 0, said
        shown += bare(re.sub(".\b", "", said))
    header = re.sub(r"/\* ---- .* \*/", "", text_of(HEADER))
    comments = re.findall(r"^/\*(.*?)\*/", header, re.M | re.S)
    checked = 0
    for comment in comments:
        if "SPDX" in comment or "SHDICT_H" in comment:
            continue
        # Paragraphs: parts of the first comment become sections.
        for paragraph in re.split(r"\n \*\n|\n \* (?=[A-Z]{4})", comment):
            part = bare(paragraph.replace("shdict.h -", ""))
            part = re.sub(r"^(MODEL|CRASHES|RESULTS|THREADSANDFORK|READS|"
                          r"LIMITS)", "", part)
            assert part.rstrip(".") in shown, paragraph
            checked += 1
    assert checked > 120, checked
    for struct in re.findall(r"^(?:struct \w+|enum) \{[^\n}]*\n.*?^\};",
                             header, re.M | re.S):
        assert bare(struct) in shown, struct


@case
def the_synopses_are_what_the_header_declares():
    """A declaration that differs from the header's does not compile."""
    source = os.path.join(directory, "synopsis.c")
    lines = ["#include <shdict.h>"]
    for text in pages().values():
        for kind, name, body in re.findall(
                r"^\.Ft (.*)\n\.Fo (\w+)\n((?:\.Fa .*\n)*)\.Fc$", text, re.M):
            given = re.findall(r'^\.Fa "(.*)"$', body, re.M)
            lines.append("%s %s(%s);" % (kind, name,
                                         ", ".join(given) or "void"))
    assert len(lines) > 100, lines
    compiler = ("cc", "-std=c11", "-Wall", "-Wextra", "-Werror",
                "-fsyntax-only", "-I", os.path.join(ROOT, "shm"), source)
    for extra, wanted in (("", True), ("int shd_version(int x);", False)):
        with open(source, "w") as f:
            f.write("\n".join(lines + [extra, ""]))
        code, said = tool(*compiler)
        assert (code == 0) == wanted, said


@case
def man_shows_a_page():
    code, said = tool("man", "-l", os.path.join(MAN3, "shd_dict.3"))
    assert code == 0 and "shd_dict_open" in said, said

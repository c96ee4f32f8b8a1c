# SPDX-License-Identifier: BSD-2-Clause
"""The manual pages and --help tell the same options."""
import os
import re

from harness import ROOT, case, expect, run

COMMON = {"--json", "--help", "-h"}


def page(name):
    with open(os.path.join(ROOT, "tools", "man", name)) as f:
        return f.read()


def options_in_page(text):
    """Each `.It Fl s , Fl Fl long` with its letter."""
    found = set()
    for line in re.findall(r"^\.It (Fl .*)$", text, re.M):
        found |= {"--" + n for n in re.findall(r"Fl Fl ([a-z-]+)", line)}
        found |= {"-" + n for n in re.findall(r"Fl ([a-z])(?= |$)", line)}
    return found


def options_in_help(text):
    found = set()
    for line in text.splitlines():
        m = re.match(r"  (?:(-[a-z]),|   ) (--[a-z-]+)", line)
        if m:
            found |= {o for o in m.groups() if o}
    return found


def sections():
    """verb -> its part of shdict.1"""
    verbs = page("shdict.1").split(".Sh VERBS")[1].split("\n.Sh ")[0]
    return {part.split()[0]: part for part in verbs.split("\n.Ss ")[1:]}


def verbs_in_help():
    out = expect(0, "--help").out.decode()
    return re.findall(r"^  ([a-z]+) {2,}\S", out, re.M)


@case
def the_page_and_the_help_list_the_same_verbs():
    assert len(verbs_in_help()) > 18, verbs_in_help()
    assert sorted(verbs_in_help()) == sorted(sections())


@case
def each_option_of_a_verb_is_in_its_page_and_its_help():
    count = 0
    for verb, text in sections().items():
        wanted = options_in_page(page("shdict-supervise.1")
                                 if verb == "supervise" else text) | COMMON
        got = options_in_help(expect(0, verb, "--help").out.decode())
        assert wanted == got, "%s: page and help differ in %s" % (
            verb, sorted(wanted ^ got))
        count += len(got - COMMON)
    assert count > 40, count


@case
def every_option_in_the_help_is_taken():
    """The parser knows it: what is missing is a word or a value, not it."""
    for verb in verbs_in_help():
        help_text = expect(0, verb, "-h").out.decode()
        for option in options_in_help(help_text) - {"--help", "-h"}:
            r = run(verb, option)
            assert b"no option" not in r.err, "%s %s: %s" % (verb, option, r)
        r = run(verb, "--no-such-option")
        assert r.code == 2 and b"no option" in r.err, r


@case
def the_page_and_the_help_tell_the_same_exit_codes():
    text = page("shdict.1").split(".Sh EXIT STATUS")[1].split(".Sh ")[0]
    in_page = re.findall(r"^\.It ([0-9])$", text, re.M)
    line = re.search(r"^exit: (.*)$", expect(0, "--help").out.decode(), re.M)
    assert in_page == re.findall(r"([0-9]) ", line.group(1)), in_page


@case
def help_of_a_verb_names_its_words_as_the_page_does():
    for verb, text in sections().items():
        if verb == "supervise":
            continue
        head = text.split("\n")[0].replace("Op ", "").split()
        usage = expect(0, verb, "--help").out.decode().split("\n")[0]
        words = re.sub(r"[\[\]]", "", usage.split("[option ...]")[1]).split()
        assert head[1:] == words, "%s: %s, %s" % (verb, head, words)


@case
def version_is_that_of_the_header():
    with open(os.path.join(ROOT, "shm", "shdict.h")) as f:
        text = f.read()
    numbers = [re.search(r"SHD_VERSION_%s (\d+)" % n, text).group(1)
               for n in ("MAJOR", "MINOR", "PATCH")]
    expect(0, "--version", out=("shdict %s\n" % ".".join(numbers)).encode())

/* SPDX-License-Identifier: BSD-2-Clause */
/* Command lines by one table a verb: getopt_long's arrays and the help are
 * both made from it, so they cannot disagree. */
#include "cli.h"

#include <ctype.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_MAX 24

static const struct cli_option option_json = {"json", 0, NULL,
                                              "Write JSON instead of text"};
static const struct cli_option option_help = {"help", 'h', NULL,
                                              "Print this help"};

/* The verb's own options, then the two that all have. */
static unsigned options_of(const struct cli_verb *verb,
                           const struct cli_option *out[OPTIONS_MAX])
{
    unsigned n = 0;

    for (const struct cli_option *o = verb->options; o && o->name; o++) {
        if (n == OPTIONS_MAX - 2)
            abort();
        out[n++] = o;
    }
    out[n++] = &option_json;
    out[n++] = &option_help;
    return n;
}

static void help_option(const struct cli_option *o)
{
    char left[64];

    snprintf(left, sizeof(left), "%c%c%s --%s%s%s", o->letter ? '-' : ' ',
             o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name,
             o->arg ? " " : "", o->arg ? o->arg : "");
    printf("  %-28s %s\n", left, o->help);
}

static void help(const struct cli_verb *verb)
{
    const struct cli_option *options[OPTIONS_MAX];
    unsigned n = options_of(verb, options);

    printf("usage: shdict %s [option ...]%s%s\n\n%s.\n\n", verb->name,
           verb->words[0] ? " " : "", verb->words, verb->summary);
    for (unsigned i = 0; i < n; i++)
        help_option(options[i]);
}

void cli_usage(const struct cli_args *args, const char *format, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    cli_message(args, "%s; see `shdict %s --help`", text, args->verb->name);
    exit(CLI_USAGE);
}

/* Is the word an option? A negative number is a value: no option's letter
 * is a digit. */
static bool looks_like_option(const char *word)
{
    return word[0] == '-' && word[1] != '\0' &&
           !isdigit((unsigned char)word[1]) && word[1] != '.';
}

struct tables {
    const struct cli_option *options[OPTIONS_MAX];
    struct option longs[OPTIONS_MAX + 1];
    char letters[2 * OPTIONS_MAX + 3];
    unsigned count;
};

static void tables_make(struct tables *t, const struct cli_verb *verb)
{
    size_t l = 0;

    memset(t, 0, sizeof(*t));
    t->count = options_of(verb, t->options);
    t->letters[l++] = '+'; /* never reorder: we walk the words ourselves */
    t->letters[l++] = ':'; /* and say what is wrong ourselves */
    for (unsigned i = 0; i < t->count; i++) {
        const struct cli_option *o = t->options[i];
        t->longs[i].name = o->name;
        t->longs[i].has_arg = o->arg ? required_argument : no_argument;
        t->longs[i].val = 256 + (int)i;
        if (o->letter) {
            t->letters[l++] = o->letter;
            if (o->arg)
                t->letters[l++] = ':';
        }
    }
}

static const struct cli_option *option_of(const struct tables *t, int val)
{
    for (unsigned i = 0; i < t->count; i++)
        if (val == 256 + (int)i || val == t->options[i]->letter)
            return t->options[i];
    return NULL;
}

static void take(struct cli_args *args, const struct tables *t, int val,
                 const char *word)
{
    if (val == ':')
        cli_usage(args, "option %s wants a value", word);
    const struct cli_option *o = val == '?' ? NULL : option_of(t, val);
    if (o == NULL)
        cli_usage(args, "no option %s, or not like this", word);
    if (o == &option_help) {
        help(args->verb);
        exit(cli_finish(args, CLI_YES));
    }
    if (o == &option_json)
        args->json = true;
    if (args->given_count == CLI_GIVEN_MAX)
        cli_usage(args, "more than %d options", CLI_GIVEN_MAX);
    args->given[args->given_count].option = o;
    args->given[args->given_count++].value = o->arg ? optarg : "";
}

static void count_words(const struct cli_args *args)
{
    const struct cli_verb *v = args->verb;

    if (args->count < v->words_min)
        cli_usage(args, "%s wanted, %u word%s given", v->words, args->count,
                  args->count == 1 ? "" : "s");
    if (args->count > v->words_max)
        cli_usage(args, "\"%s\" is a word too many",
                  args->words[v->words_max]);
}

void cli_args_parse(struct cli_args *args, const struct cli_verb *verb,
                    int argc, char **argv)
{
    struct tables t;

    args->verb = verb;
    args->words = calloc((size_t)argc + 1, sizeof(char *));
    if (args->words == NULL) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    tables_make(&t, verb);
    opterr = 0;
    optind = 1;
    while (optind < argc) {
        char *word = argv[optind];
        if (strcmp(word, "--") == 0) {
            optind++;
            break;
        }
        if (looks_like_option(word)) {
            take(args, &t, getopt_long(argc, argv, t.letters, t.longs, NULL),
                 word);
            continue;
        }
        if (verb->command)
            break;
        args->words[args->count++] = word;
        optind++;
    }
    while (optind < argc)
        args->words[args->count++] = argv[optind++];
    count_words(args);
}

const char *cli_option_at(const struct cli_args *args, const char *name,
                          unsigned index)
{
    for (unsigned i = 0; i < args->given_count; i++)
        if (strcmp(args->given[i].option->name, name) == 0 && index-- == 0)
            return args->given[i].value;
    return NULL;
}

const char *cli_option(const struct cli_args *args, const char *name)
{
    const char *value = NULL;

    for (unsigned i = 0; i < args->given_count; i++)
        if (strcmp(args->given[i].option->name, name) == 0)
            value = args->given[i].value;
    return value;
}

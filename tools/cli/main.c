/* SPDX-License-Identifier: BSD-2-Clause */
/* The `shdict` command: finds the verb and runs it. */
#include "cli.h"

#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct cli_verb *const verbs[] = {
    &verb_ls,     &verb_stat,      &verb_top,    &verb_map,
    &verb_layout, &verb_export,
    &verb_workers, &verb_get,      &verb_set,    &verb_append,
    &verb_touch,  &verb_pop,       &verb_delete, &verb_incr,
    &verb_keys,   &verb_watch,     &verb_dump,   &verb_load,
    &verb_save,   &verb_restore,
    &verb_flush,  &verb_check,     &verb_create, &verb_resize,
    &verb_rm,     &verb_queues,    &verb_push,   &verb_peek,
    &verb_drain,  &verb_requeue,   &verb_topics, &verb_publish,
    &verb_follow, &verb_locks, &verb_leases, &verb_mailboxes, &verb_send, &verb_request,
        &verb_reap,   &verb_sidecar,
    &verb_supervise, &verb_completion, NULL};

#define VERBS (sizeof(verbs) / sizeof(verbs[0]) - 1)

const struct cli_verb *const *cli_verbs(void)
{
    return verbs;
}

static void help(void)
{
    puts("usage: shdict VERB [option ...] [word ...]\n"
         "       shdict --help | --version\n\n"
         "Looks into, changes and supervises crash-proof dictionaries in "
         "shared memory.\n");
    for (size_t i = 0; i < VERBS; i++)
        printf("  %-11s %s\n", verbs[i]->name, verbs[i]->summary);
    puts("\nA SEGMENT is a name (/dev/shm/shdict-NAME), a path that starts "
         "with / ./ or ../,\nor fd:N for an inherited descriptor. "
         "`shdict VERB --help` tells a verb's options.\n\n"
         "exit: 0 yes, 1 no (absent), 2 usage, 3 cannot attach, 4 corrupt, "
         "5 failed");
}

static const struct cli_verb *find(const char *name)
{
    for (size_t i = 0; i < VERBS; i++)
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
    return NULL;
}

static bool is(const char *word, const char *a, const char *b)
{
    return strcmp(word, a) == 0 || strcmp(word, b) == 0;
}

void (*cli_last_words)(void);

/* Whoever may write a segment's file may cut it off while it is looked at. */
static _Noreturn void file_was_cut(int number)
{
    static const char text[] =
        "shdict: the segment's file was cut off while it was being read\n";

    (void)number;
    if (cli_last_words != NULL)
        cli_last_words();
    ssize_t written = write(STDERR_FILENO, text, sizeof(text) - 1);
    (void)written;
    _exit(CLI_CORRUPT);
}

int main(int argc, char **argv)
{
    struct cli_args args = {0};
    struct sigaction cut = {.sa_handler = file_was_cut,
                            .sa_flags = (int)SA_RESETHAND};

    (void)sigaction(SIGBUS, &cut, NULL);

    /* For the terminal's character set only: numbers stay as C writes
     * them. */
    setlocale(LC_CTYPE, "");
    if (argc < 2) {
        cli_message(&args, "no verb given; `shdict --help` lists them");
        return CLI_USAGE;
    }
    if (is(argv[1], "--version", "-V")) {
        printf("shdict %s\n", shd_version());
        return cli_finish(&args, CLI_YES);
    }
    if (is(argv[1], "--help", "-h") ||
        (argc == 2 && is(argv[1], "help", ""))) {
        help();
        return cli_finish(&args, CLI_YES);
    }
    const struct cli_verb *verb = find(argv[1]);
    if (verb == NULL) {
        cli_message(&args, "no verb \"%s\"; `shdict --help` lists them",
                    argv[1]);
        return CLI_USAGE;
    }
    cli_args_parse(&args, verb, argc - 1, argv + 1);
    int status = args.verb->run(&args);
    free(args.words);
    return cli_finish(&args, status);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict check, reap: is it whole, and clean up after the dead. */
#include "cli.h"

#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REPORT_BYTES 65536u

static json_t *repair_json(int code, const struct shd_repair *d,
                           const char *report)
{
    return json_pack(
        "{s:b, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "clean",
        code == SHD_OK, "report", cli_json_bytes(report, strlen(report)),
        "rolled_back", (json_int_t)d->rolled_back, "rebuilt",
        (json_int_t)d->rebuilt, "reset", (json_int_t)d->reset, "bounds",
        (json_int_t)d->bounds, "remade", (json_int_t)d->remade,
        "pages_returned",
        (json_int_t)d->pages_returned, "pages_freed",
        (json_int_t)d->pages_freed, "entries_kept",
        (json_int_t)d->entries_kept, "entries_lost",
        (json_int_t)d->entries_lost, "elements_lost",
        (json_int_t)d->elements_lost);
}

static void repair_print(const char *report, int code)
{
    for (const char *p = report; *p;) {
        size_t n = strcspn(p, "\n");

        cli_escape(stdout, p, n);
        putchar('\n');
        p += n + (p[n] == '\n');
    }
    if (code == SHD_OK)
        puts(report[0] ? "clean now" : "clean");
}

static int repair_run(struct cli_args *args)
{
    static char report[REPORT_BYTES];
    struct shd_repair done = {.struct_size = sizeof(done)};
    shd_segment *segment;
    int status = cli_attach(args, args->words[0], CLI_WRITE, &segment);

    if (status != CLI_YES)
        return status;
    int code = shd_segment_repair(segment, &done, report, sizeof(report));
    if (code == SHD_OK || report[0]) {
        if (args->json)
            cli_json_print(args, repair_json(code, &done, report));
        else
            repair_print(report, code);
    }
    if (code != SHD_OK)
        status = cli_answer(args, args->words[0], code);
    shd_segment_close(segment);
    return status;
}

/* ---- the bar, drawn by a thread of its own ------------------------------ */

#define BAR_MS 100

struct bar {
    shd_segment *segment;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    bool end;
};

static void *draw(void *context)
{
    struct cli_progress p = {.what = "checking", .alone = true};
    struct bar *b = context;
    struct timespec next;

    pthread_mutex_lock(&b->mutex);
    while (!b->end) {
        uint64_t done = 0;

        if (shd_check_progress(b->segment, &done, &p.total) == SHD_OK)
            cli_progress_step(&p, done / 64 * 64);
        clock_gettime(CLOCK_REALTIME, &next);
        next.tv_nsec += BAR_MS * 1000000l;
        next.tv_sec += next.tv_nsec / 1000000000l;
        next.tv_nsec %= 1000000000l;
        pthread_cond_timedwait(&b->ended, &b->mutex, &next);
    }
    pthread_mutex_unlock(&b->mutex);
    cli_progress_end(&p);
    return NULL;
}

static int check_with_bar(shd_segment *segment, char *report, size_t size)
{
    struct bar b = {segment, PTHREAD_MUTEX_INITIALIZER,
                    PTHREAD_COND_INITIALIZER, false};
    pthread_t thread;
    /* Without a thread there is no bar. */
    bool drawn = isatty(STDERR_FILENO) &&
                 pthread_create(&thread, NULL, draw, &b) == 0;
    int code = shd_segment_check(segment, report, size);

    if (!drawn)
        return code;
    pthread_mutex_lock(&b.mutex);
    b.end = true;
    pthread_cond_signal(&b.ended);
    pthread_mutex_unlock(&b.mutex);
    pthread_join(thread, NULL);
    return code;
}

static int check_run(struct cli_args *args)
{
    bool lock = cli_option(args, "lock");
    char report[1024] = "";
    shd_segment *segment;

    if (cli_option(args, "repair"))
        return repair_run(args);
    int status = cli_attach(args, args->words[0], lock ? CLI_WRITE : CLI_READ,
                            &segment);

    if (status != CLI_YES)
        return status;
    int code = check_with_bar(segment, report, sizeof(report));
    shd_segment_close(segment);
    if (code == SHD_OK || code == SHD_CORRUPT) {
        if (args->json)
            cli_json_print(args,
                           json_pack("{s:b, s:o}", "clean", code == SHD_OK,
                                     "report",
                                     cli_json_bytes(report, strlen(report))));
        else if (code == SHD_OK)
            puts("clean");
        if (code == SHD_CORRUPT)
            cli_message(args, "%s: corrupt: %s", args->words[0], report);
        return cli_exit_code(code);
    }
    if (code == SHD_BUSY && !lock) {
        cli_message(args,
                    "%s: it never stood still: a writer is at work, or died "
                    "at work; try --lock, or `shdict reap`",
                    args->words[0]);
        return CLI_FAILED;
    }
    return cli_answer(args, args->words[0], code);
}

static const struct cli_option check_options[] = {
    {"lock", 'l', NULL, "Attach read-write and lock each shard for a moment"},
    {"repair", 'r', NULL, "Make it sound again, and tell what was lost"},
    {NULL}};

const struct cli_verb verb_check = {
    .name = "check",
    .words = "SEGMENT",
    .summary = "Walk every invariant of every structure; repair what fails",
    .options = check_options,
    .words_min = 1,
    .words_max = 1,
    .run = check_run};

static int reap_run(struct cli_args *args)
{
    struct shd_segment_info before = {.struct_size = sizeof(before)};
    struct shd_segment_info after = {.struct_size = sizeof(after)};
    uint32_t reaped = 0;
    shd_segment *segment;
    int status = cli_attach(args, args->words[0], CLI_WRITE, &segment);

    if (status != CLI_YES)
        return status;
    int code = shd_segment_info(segment, &before);
    if (code == SHD_OK)
        code = shd_reap(segment, &reaped);
    if (code == SHD_OK)
        code = shd_segment_info(segment, &after);
    shd_segment_close(segment);
    if (code != SHD_OK)
        return cli_answer(args, args->words[0], code);
    unsigned long long undone = after.recoveries - before.recoveries;
    if (args->json)
        cli_json_print(args,
                       json_pack("{s:I, s:I}", "reaped", (json_int_t)reaped,
                                 "recovered", (json_int_t)undone));
    else
        printf("%u dead worker%s reaped, %llu operation%s undone\n", reaped,
               reaped == 1 ? "" : "s", undone, undone == 1 ? "" : "s");
    return CLI_YES;
}

const struct cli_verb verb_reap = {
    .name = "reap",
    .words = "SEGMENT",
    .summary = "Undo what dead workers were at, free their slots, wake "
               "waiters",
    .words_min = 1,
    .words_max = 1,
    .run = reap_run};

/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict save, restore: a whole segment into a file while it is in use, and
 * back. The library does it in steps; what is here is their words and bars. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* "-" is the standard stream. */
static const char *file_of(const char *word, const char *stream)
{
    return strcmp(word, "-") == 0 ? stream : word;
}

static int failed(const struct cli_args *args, const char *what, int code)
{
    const char *detail = shd_last_error();

    /* A sentence of the library's names the file. */
    if (detail[0])
        cli_message(args, "%s", detail);
    else
        cli_message(args, "%s: %s", what, shd_strerror(code));
    if (code == SHD_NOTFOUND)
        return CLI_ATTACH;
    return cli_exit_code(code);
}

/* 64: what cli_progress_step looks at. */
static void show(struct cli_progress *p, const struct shd_keep_info *i)
{
    p->total = i->total;
    cli_progress_step(p, i->at / 64 * 64);
}

static json_t *sums_json(const struct shd_keep_info *i)
{
    return json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
                     "segment", cli_json_bytes(i->name, strlen(i->name)),
                     "saved_ms", (json_int_t)i->saved_ms, "objects",
                     (json_int_t)i->objects, "entries",
                     (json_int_t)i->entries, "elements",
                     (json_int_t)i->elements, "messages",
                     (json_int_t)i->messages, "events", (json_int_t)i->events,
                     "expired", (json_int_t)i->expired, "bytes",
                     (json_int_t)i->bytes);
}

static void sums_print(FILE *out, const char *what,
                       const struct shd_keep_info *i)
{
    char size[32];

    fprintf(out, "%s %llu objects, %llu entries", what,
            (unsigned long long)i->objects, (unsigned long long)i->entries);
    if (i->elements > 0)
        fprintf(out, ", %llu elements of lists",
                (unsigned long long)i->elements);
    if (i->messages > 0)
        fprintf(out, ", %llu messages", (unsigned long long)i->messages);
    if (i->events > 0)
        fprintf(out, ", %llu events", (unsigned long long)i->events);
    fprintf(out, ", %s bytes", cli_size_format(i->bytes, size, sizeof(size)));
}

/* ---- save -------------------------------------------------------------- */

static int save_steps(shd_segment *segment, const char *path,
                      const struct shd_save_options *o,
                      struct shd_keep_info *i)
{
    struct cli_progress p = {.what = "saving", .alone = true};
    shd_save *save;
    int code = shd_save_open(segment, path, o, &save);

    if (code != SHD_OK)
        return code;
    if (shd_save_info(save, i) == SHD_OK)
        show(&p, i);
    do {
        code = shd_save_step(save);
        if (shd_save_info(save, i) == SHD_OK)
            show(&p, i);
    } while (code == 1);
    cli_progress_end(&p);
    shd_save_close(save);
    return code;
}

/* The data go to stdout, if there they go. */
static void save_print(const struct cli_args *args, bool to_stdout,
                       const struct shd_keep_info *i)
{
    if (to_stdout)
        return;
    if (args->json) {
        json_t *json = sums_json(i);

        json_object_set_new(json, "one_moment", json_boolean(i->one_moment));
        json_object_set_new(json, "dropped", json_integer(i->dropped));
        json_object_set_new(json, "held_ns",
                            json_integer((json_int_t)i->held_ns));
        cli_json_print(args, json);
        return;
    }
    sums_print(stdout, "saved", i);
    if (i->one_moment)
        fputs("; all as it was at one moment", stdout);
    else
        printf("; each shard, queue, topic as it was at one moment, the "
               "longest lock held %.1f ms",
               (double)i->held_ns / 1e6);
    putchar('\n');
}

static int save_run(struct cli_args *args)
{
    struct shd_save_options o = {.struct_size = sizeof(o)};
    struct shd_keep_info i = {.struct_size = sizeof(i)};
    const char *hold = cli_option(args, "hold");
    const char *path = file_of(args->words[1], "fd:1");
    bool to_stdout = strcmp(path, "fd:1") == 0;
    shd_segment *segment;

    if (hold) {
        int64_t ms = cli_seconds_ms(args, "--hold", hold);

        if (ms < 1 || ms > 3600000)
            cli_usage(args, "--hold: from 0.001 to 3600 seconds");
        o.hold_ms = (uint32_t)ms;
    }
    if (to_stdout && args->json)
        cli_usage(args, "--json: the snapshot goes to standard output");
    int status = cli_attach(args, args->words[0],
                            cli_option(args, "read-only") ? CLI_READ
                                                          : CLI_WRITE,
                            &segment);
    if (status != CLI_YES)
        return status;
    int code = save_steps(segment, path, &o, &i);
    shd_segment_close(segment);
    if (code != SHD_OK)
        return failed(args, args->words[1], code);
    save_print(args, to_stdout, &i);
    return CLI_YES;
}

static const struct cli_option save_options[] = {
    {"hold", 't', "SECONDS",
     "Lock a shard for so long at most while it is copied, 1 by default"},
    {"read-only", 'r', NULL,
     "Take no lock at all; fails where a shard never stands still"},
    {NULL}};

const struct cli_verb verb_save = {
    .name = "save",
    .words = "SEGMENT FILE",
    .summary = "Save a whole segment to a file, while it is in use",
    .options = save_options,
    .words_min = 2,
    .words_max = 2,
    .run = save_run};

/* ---- restore ----------------------------------------------------------- */

static int restore_steps(const char *path, const char *name,
                         const struct shd_restore_options *o,
                         struct shd_keep_info *i)
{
    struct cli_progress p = {.what = "restoring", .alone = true};
    shd_restore *restore;
    int code = shd_restore_open(path, name, o, &restore);

    if (code != SHD_OK)
        return code;
    if (shd_restore_info(restore, i) == SHD_OK)
        show(&p, i);
    do {
        code = shd_restore_step(restore);
        if (shd_restore_info(restore, i) == SHD_OK)
            show(&p, i);
    } while (code == 1);
    cli_progress_end(&p);
    shd_restore_close(restore, NULL);
    return code;
}

static void restore_print(const struct cli_args *args, bool verify,
                          const char *name, const struct shd_keep_info *i)
{
    char time[32];

    if (args->json) {
        json_t *json = sums_json(i);

        json_object_set_new(json, "evicted",
                            json_integer((json_int_t)i->evicted));
        json_object_set_new(json, "verified", json_boolean(verify));
        cli_json_print(args, json);
        return;
    }
    sums_print(stdout, verify ? "sound:" : "restored", i);
    if (i->expired > 0)
        printf("; %llu entries have expired since",
               (unsigned long long)i->expired);
    if (i->evicted > 0)
        printf("; %llu entries found no room", (unsigned long long)i->evicted);
    fputs(verify ? "; segment " : "; into segment ", stdout);
    cli_escape(stdout, name, strlen(name));
    printf(", saved %s\n", cli_time_format(i->saved_ms, time, sizeof(time)));
}

static int restore_run(struct cli_args *args)
{
    const char *path = file_of(args->words[0], "fd:0");
    const char *name = args->count > 1 ? args->words[1] : NULL;
    bool verify = cli_option(args, "verify");
    struct shd_segment_options own = {.struct_size = sizeof(own),
                                      .worker_id = -1,
                                      .worker_name = "shdict"};
    struct shd_restore_options o = {.struct_size = sizeof(o),
                                    .segment = &own};
    struct shd_keep_info i = {.struct_size = sizeof(i)};

    if (verify)
        o.flags |= SHD_RESTORE_VERIFY;
    if (cli_option(args, "replace"))
        o.flags |= SHD_RESTORE_REPLACE;
    if (cli_option(args, "force"))
        o.flags |= SHD_RESTORE_IN_USE;
    if (cli_option(args, "freeze"))
        o.flags |= SHD_RESTORE_FREEZE;
    if (verify && name)
        cli_usage(args, "--verify makes no segment: give no SEGMENT");
    int code = restore_steps(path, name, &o, &i);
    if (code != SHD_OK)
        return failed(args, args->words[0], code);
    restore_print(args, verify, name ? name : i.name, &i);
    return CLI_YES;
}

static const struct cli_option restore_options[] = {
    {"replace", 'r', NULL,
     "Put it in the place of a segment that no worker has"},
    {"force", 'f', NULL,
     "The same, also of one that workers have: they go on with the old one"},
    {"freeze", 'z', NULL,
     "Times to live go on where they were: the time since does not count"},
    {"verify", 'n', NULL,
     "Read the whole file and say what is in it; make no segment"},
    {NULL}};

const struct cli_verb verb_restore = {
    .name = "restore",
    .words = "FILE [SEGMENT]",
    .summary = "Make a segment out of a file that save has written",
    .options = restore_options,
    .words_min = 1,
    .words_max = 2,
    .run = restore_run};

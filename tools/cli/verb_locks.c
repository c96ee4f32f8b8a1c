/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict locks: locks, semaphores and leaders, who holds them, who waits. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

static bool is_lock(uint32_t kind)
{
    return kind == SHD_OBJECT_LOCK || kind == SHD_OBJECT_SEMAPHORE ||
           kind == SHD_OBJECT_LEADER;
}

static json_t *holders_json(shd_lock *lock)
{
    struct shd_holder h = {.struct_size = sizeof(h)};
    json_t *list = json_array();
    int code;

    for (uint32_t i = 0; (code = shd_lock_holder(lock, i, &h)) != SHD_INVAL;
         i++) {
        if (code == SHD_OK)
            json_array_append_new(
                list, json_pack("{s:i, s:I, s:b, s:I, s:I, s:o}", "permit",
                                (int)i, "owner", (json_int_t)h.owner, "dead",
                                (int)h.dead, "token", (json_int_t)h.token,
                                "held_ms", (json_int_t)h.held_ms, "ttl",
                                cli_json_ttl(h.ttl_ms)));
        else if (code != SHD_NOTFOUND)
            break;
    }
    return list;
}

static json_t *lock_json(shd_lock *lock, const struct shd_lock_info *l)
{
    return json_pack("{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "name",
                     cli_json_bytes(l->name, strnlen(l->name,
                                                     sizeof(l->name))),
                     "kind", shd_object_kind_name(l->kind), "permits",
                     (json_int_t)l->permits, "taken", (json_int_t)l->taken,
                     "waiting", (json_int_t)l->waiting, "grants",
                     (json_int_t)l->grants, "deaths", (json_int_t)l->deaths,
                     "expirations", (json_int_t)l->expirations, "holders",
                     holders_json(lock));
}

static void holder_rows(FILE *out, shd_lock *lock)
{
    struct shd_holder h = {.struct_size = sizeof(h)};
    int code;

    for (uint32_t i = 0; (code = shd_lock_holder(lock, i, &h)) != SHD_INVAL;
         i++) {
        if (code == SHD_NOTFOUND)
            continue;
        if (code != SHD_OK)
            break;
        fprintf(out, "  %u\t%s\tworker %llu\ttoken %llu\t%.3f s\t", i,
                h.dead ? "dead" : "held", (unsigned long long)h.owner,
                (unsigned long long)h.token, (double)h.held_ms / 1000);
        if (h.ttl_ms != 0)
            fprintf(out, "ttl %.3f s", (double)h.ttl_ms / 1000);
        putc('\n', out);
    }
}

static void lock_rows(FILE *out, shd_lock *lock,
                      const struct shd_lock_info *l)
{
    cli_escape(out, l->name, strnlen(l->name, sizeof(l->name)));
    fprintf(out, "\t%s\t%u of %u\t%u\t%llu\t%llu died, %llu expired\n",
            shd_object_kind_name(l->kind), l->taken, l->permits, l->waiting,
            (unsigned long long)l->grants, (unsigned long long)l->deaths,
            (unsigned long long)l->expirations);
    holder_rows(out, lock);
}

/* SHD_NOTFOUND: that object is no lock (any more). */
static int show_lock(struct cli_args *args, shd_segment *segment,
                     uint32_t index, json_t *list, FILE *out)
{
    struct shd_object_info o = {.struct_size = sizeof(o)};
    struct shd_lock_info l = {.struct_size = sizeof(l)};
    shd_lock *lock;
    int code = shd_object_info(segment, index, &o);

    if (code == SHD_OK && !is_lock(o.kind))
        return SHD_NOTFOUND;
    if (code == SHD_OK)
        code = shd_lock_open(segment, o.name, o.kind, NULL, &lock);
    if (code != SHD_OK)
        return code;
    code = shd_lock_info(lock, &l);
    if (code == SHD_OK && args->json)
        json_array_append_new(list, lock_json(lock, &l));
    else if (code == SHD_OK)
        lock_rows(out, lock, &l);
    shd_lock_close(lock);
    return code;
}

static int run(struct cli_args *args)
{
    struct cli_table table;
    shd_segment *segment;
    int status = cli_attach(args, args->words[0], CLI_READ, &segment);
    json_t *list;

    if (status != CLI_YES)
        return status;
    list = json_array();
    if (!cli_table_begin(&table)) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    fputs("NAME\tKIND\tTAKEN\tWAITING\tGRANTS\tTAKEN BACK\n", table.out);
    int damaged = CLI_YES;
    for (uint32_t i = 0; status == CLI_YES; i++) {
        int code = show_lock(args, segment, i, list, table.out);

        if (code == SHD_INVAL)
            break;
        if (!cli_left_out(args, code, &damaged) && code != SHD_OK)
            status = cli_answer(args, args->words[0], code);
    }
    status = status == CLI_YES ? damaged : status;
    shd_segment_close(segment);
    if (args->json) {
        cli_json_print(args, list);
        fclose(table.out);
        free(table.text);
        return status;
    }
    json_decref(list);
    return cli_table_end(&table) ? status : CLI_FAILED;
}

const struct cli_verb verb_locks = {
    .name = "locks",
    .words = "SEGMENT",
    .summary = "List a segment's locks, semaphores, leaders, and who holds them",
    .words_min = 1,
    .words_max = 1,
    .run = run};

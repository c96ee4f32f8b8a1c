/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict workers: who is attached read-write, how it is, what it holds, and
 * who has died unreaped. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

static const char *state_name(uint32_t state)
{
    return state == SHD_WORKER_ALIVE  ? "alive"
           : state == SHD_WORKER_DEAD ? "dead"
                                      : "unknown";
}

static const char *phase_name(uint32_t phase)
{
    static const char *const names[] = {"-", "starting", "ready", "draining"};

    return phase < sizeof(names) / sizeof(names[0]) ? names[phase] : "?";
}

/* All that it holds, one object after the other: "pages 2, segment 1". */
static json_t *holds_of(shd_segment *segment, uint64_t incarnation)
{
    struct shd_hold hold = {.struct_size = sizeof(hold)};
    json_t *holds = json_array();
    int code;

    for (uint32_t i = 0;
         (code = shd_worker_hold(segment, incarnation, i, &hold)) !=
         SHD_INVAL;
         i++) {
        if (code != SHD_OK)
            continue;
        json_array_append_new(
            holds,
            json_pack("{s:s, s:o, s:I, s:I}", "kind",
                      hold.kind == 0 ? "segment"
                                     : shd_object_kind_name(hold.kind),
                      "object",
                      cli_json_bytes(hold.object,
                                     strnlen(hold.object,
                                             sizeof(hold.object))),
                      "count", (json_int_t)hold.count, "locks",
                      (json_int_t)hold.locks));
    }
    return holds;
}

static json_t *worker_json(uint32_t slot, const struct shd_worker_info *w,
                           json_t *holds)
{
    return json_pack(
        "{s:i, s:I, s:I, s:o, s:I, s:s, s:o, s:I, s:o, s:b, s:I, s:o, s:I, "
        "s:I, s:I, s:o}",
        "slot",
        (int)slot, "incarnation", (json_int_t)w->incarnation, "pid",
        (json_int_t)w->pid, "worker",
        w->worker_id < 0 ? json_null() : json_integer(w->worker_id),
        "generation", (json_int_t)w->generation, "state", state_name(w->state),
        "phase",
        w->phase == SHD_PHASE_NONE ? json_null()
                                   : json_string(phase_name(w->phase)),
        "restarts", (json_int_t)w->restarts, "silent_ms",
        w->silent_ms < 0 ? json_null() : json_integer(w->silent_ms),
        "supervisor", (int)w->supervisor, "locks_held",
        (json_int_t)w->locks_held, "holds", holds, "joined_ms",
        (json_int_t)w->joined_ms, "start_time", (json_int_t)w->start_time,
        "pid_namespace", (json_int_t)w->pid_namespace, "name",
        cli_json_bytes(w->name, strnlen(w->name, sizeof(w->name))));
}

static void put_holds(FILE *out, const json_t *holds)
{
    const json_t *hold;
    size_t i;

    if (json_array_size(holds) == 0)
        putc('-', out);
    json_array_foreach(holds, i, hold)
    {
        const json_t *object = json_object_get(hold, "object");
        const char *name = json_string_value(object);

        fputs(i > 0 ? "," : "", out);
        if (name != NULL && name[0] != '\0')
            cli_escape(out, name, strlen(name));
        else
            fputs(json_string_value(json_object_get(hold, "kind")), out);
        fprintf(out, ":%lld",
                (long long)json_integer_value(json_object_get(hold,
                                                              "count")));
    }
}

static void worker_row(FILE *out, uint32_t slot,
                       const struct shd_worker_info *w, const json_t *holds)
{
    char joined[32], id[16] = "-", silent[32] = "-";

    if (w->worker_id >= 0)
        snprintf(id, sizeof(id), "%d", w->worker_id);
    if (w->silent_ms >= 0)
        snprintf(silent, sizeof(silent), "%.3f", (double)w->silent_ms / 1e3);
    fprintf(out, "%u\t%u\t%s\t%u\t%s\t%s\t%u\t%s\t", slot, w->pid, id,
            w->generation, state_name(w->state),
            w->supervisor ? "supervisor" : phase_name(w->phase), w->restarts,
            silent);
    put_holds(out, holds);
    fprintf(out, "\t%llu\t%s\t", (unsigned long long)w->incarnation,
            cli_time_format(w->joined_ms, joined, sizeof(joined)));
    cli_escape(out, w->name, strnlen(w->name, sizeof(w->name)));
    putc('\n', out);
}

static int run(struct cli_args *args)
{
    struct shd_worker_info worker = {.struct_size = sizeof(worker)};
    struct cli_table table;
    shd_segment *segment;
    int status = cli_attach(args, args->words[0], CLI_READ, &segment);

    if (status != CLI_YES)
        return status;
    json_t *list = json_array();
    if (!cli_table_begin(&table)) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    fputs("SLOT\tPID\tWORKER\tGENERATION\tSTATE\tPHASE\tRESTARTS\tSILENT\t"
          "HOLDS\tINCARNATION\tJOINED\tNAME\n",
          table.out);
    for (uint32_t i = 0; status == CLI_YES; i++) {
        int code = shd_worker_info(segment, i, &worker);
        if (code == SHD_INVAL)
            break;
        if (code == SHD_NOTFOUND)
            continue;
        if (code != SHD_OK) {
            status = cli_answer(args, args->words[0], code);
            continue;
        }
        json_t *holds = holds_of(segment, worker.incarnation);
        json_array_append_new(list, worker_json(i, &worker, holds));
        if (!args->json)
            worker_row(table.out, i, &worker, holds);
    }
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

const struct cli_verb verb_workers = {
    .name = "workers",
    .words = "SEGMENT",
    .summary = "List a segment's workers, the dead and unreaped too",
    .words_min = 1,
    .words_max = 1,
    .run = run};

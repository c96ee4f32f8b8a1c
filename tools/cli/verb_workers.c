/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict workers: who is attached read-write, and who has died unreaped. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

static const char *state_name(uint32_t state)
{
    return state == SHD_WORKER_ALIVE  ? "alive"
           : state == SHD_WORKER_DEAD ? "dead"
                                      : "unknown";
}

static json_t *worker_json(uint32_t slot, const struct shd_worker_info *w)
{
    return json_pack(
        "{s:i, s:I, s:I, s:o, s:I, s:s, s:I, s:I, s:I, s:I, s:o}", "slot",
        (int)slot, "incarnation", (json_int_t)w->incarnation, "pid",
        (json_int_t)w->pid, "worker",
        w->worker_id < 0 ? json_null() : json_integer(w->worker_id),
        "generation", (json_int_t)w->generation, "state", state_name(w->state),
        "locks_held", (json_int_t)w->locks_held, "joined_ms",
        (json_int_t)w->joined_ms, "start_time", (json_int_t)w->start_time,
        "pid_namespace", (json_int_t)w->pid_namespace, "name",
        cli_json_bytes(w->name, strnlen(w->name, sizeof(w->name))));
}

static void worker_row(FILE *out, uint32_t slot,
                       const struct shd_worker_info *w)
{
    char joined[32], id[16] = "-";

    if (w->worker_id >= 0)
        snprintf(id, sizeof(id), "%d", w->worker_id);
    fprintf(out, "%u\t%u\t%s\t%u\t%s\t%u\t%llu\t%s\t", slot, w->pid, id,
            w->generation, state_name(w->state), w->locks_held,
            (unsigned long long)w->incarnation,
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
    fputs("SLOT\tPID\tWORKER\tGENERATION\tSTATE\tLOCKS\tINCARNATION\tJOINED\t"
          "NAME\n",
          table.out);
    for (uint32_t i = 0; status == CLI_YES; i++) {
        int code = shd_worker_info(segment, i, &worker);
        if (code == SHD_INVAL)
            break;
        if (code == SHD_NOTFOUND)
            continue;
        if (code != SHD_OK)
            status = cli_answer(args, args->words[0], code);
        else if (args->json)
            json_array_append_new(list, worker_json(i, &worker));
        else
            worker_row(table.out, i, &worker);
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

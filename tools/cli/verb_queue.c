/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict queues, push, pop (of a queue), peek, drain, requeue. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHOWN_BYTES 65536u
#define PEEK_DEFAULT 100u

/* ---- opening ----------------------------------------------------------- */

static int open_queue(const struct cli_args *args, enum cli_mode mode,
                      const struct shd_queue_options *o, shd_segment **segment,
                      shd_queue **queue)
{
    int status = cli_attach(args, args->words[0], mode, segment);
    int code;

    if (status != CLI_YES)
        return status;
    code = shd_queue_open(*segment, args->words[1], o, queue);
    if (code == SHD_OK)
        return CLI_YES;
    status = cli_no_object(args, args->words[0], args->words[1],
                             "queue", code);
    shd_segment_close(*segment);
    return status;
}

static void close_queue(shd_segment *segment, shd_queue *queue)
{
    shd_queue_close(queue);
    shd_segment_close(segment);
}

/* ---- queues ------------------------------------------------------------ */

static json_t *queue_json(const struct shd_queue_info *i)
{
    return json_pack(
        "{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
        "s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
        "name", cli_json_bytes(i->name, strnlen(i->name, sizeof(i->name))),
        "ready", (json_int_t)i->ready, "delayed", (json_int_t)i->delayed,
        "leased", (json_int_t)i->leased, "reservations",
        (json_int_t)i->reservations,
        "dead", (json_int_t)i->dead, "bytes", (json_int_t)i->bytes, "cells",
        (json_int_t)i->cells, "cells_used", (json_int_t)i->cells_used,
        "cell_bytes", (json_int_t)i->cell_bytes, "capacity_bytes",
        (json_int_t)i->capacity_bytes, "messages_max",
        (json_int_t)i->messages_max, "deliveries_max",
        (json_int_t)i->deliveries_max, "lease_ms", (json_int_t)i->lease_ms,
        "pushed", (json_int_t)i->pushed, "popped", (json_int_t)i->popped,
        "acked", (json_int_t)i->acked, "drained", (json_int_t)i->drained,
        "buried", (json_int_t)i->buried, "redelivered",
        (json_int_t)i->redelivered, "expired", (json_int_t)i->expired,
        "orphaned", (json_int_t)i->orphaned, "forwarded",
        (json_int_t)i->forwarded, "dead_to",
        cli_json_bytes(i->dead_to, strnlen(i->dead_to, sizeof(i->dead_to))));
}

static void queue_row(FILE *out, const struct shd_queue_info *i)
{
    cli_escape(out, i->name, strnlen(i->name, sizeof(i->name)));
    fprintf(out, "\t%u\t%u\t%u\t%u\t%llu%%\t%llu\t%llu\t%llu\n", i->ready,
            i->delayed, i->leased, i->dead,
            (unsigned long long)(i->cells_used * 100 / i->cells),
            (unsigned long long)i->pushed,
            (unsigned long long)(i->popped + i->acked),
            (unsigned long long)i->redelivered);
}

/* SHD_NOTFOUND, SHD_GONE: it went away meanwhile. */
static int each_queue(const struct cli_args *args, shd_segment *segment,
                      const char *name, json_t *list, FILE *out)
{
    struct shd_queue_info info = {.struct_size = sizeof(info)};
    shd_queue *queue;
    int code = shd_queue_open(segment, name, NULL, &queue);

    if (code == SHD_OK) {
        code = shd_queue_info(queue, &info);
        shd_queue_close(queue);
    }
    if (code == SHD_MISMATCH)
        return SHD_NOTFOUND;
    if (code == SHD_OK && args->json)
        json_array_append_new(list, queue_json(&info));
    else if (code == SHD_OK)
        queue_row(out, &info);
    return code;
}

static int queues_run(struct cli_args *args)
{
    struct shd_object_info object = {.struct_size = sizeof(object)};
    struct cli_table table;
    shd_segment *segment;
    int status = cli_attach(args, args->words[0], CLI_READ, &segment), code;
    json_t *list;

    if (status != CLI_YES)
        return status;
    list = json_array();
    if (list == NULL || !cli_table_begin(&table)) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    fputs("NAME\tREADY\tDELAYED\tLEASED\tDEAD\tFULL\tPUSHED\tTAKEN\t"
          "REDELIVERED\n",
          table.out);
    int damaged = CLI_YES;
    for (uint32_t i = 0; status == CLI_YES; i++) {
        code = shd_object_info(segment, i, &object);
        if (code == SHD_INVAL)
            break;
        if (code == SHD_OK && object.kind == SHD_OBJECT_QUEUE)
            code = each_queue(args, segment, object.name, list, table.out);
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

const struct cli_verb verb_queues = {.name = "queues",
                                     .words = "SEGMENT",
                                     .summary = "List a segment's queues",
                                     .words_min = 1,
                                     .words_max = 1,
                                     .run = queues_run};

/* ---- push -------------------------------------------------------------- */

int cli_read_input(char **buf, size_t *len)
{
    size_t held = 0;

    *len = 0;
    for (;;) {
        if (held - *len < SHOWN_BYTES) {
            char *more = realloc(*buf, held = held * 2 + SHOWN_BYTES);

            if (more == NULL)
                return -1;
            *buf = more;
        }
        size_t n = fread(*buf + *len, 1, held - *len, stdin);
        *len += n;
        if (n == 0)
            return ferror(stdin) ? -1 : 0;
    }
}

static int64_t wait_of(const struct cli_args *args)
{
    const char *text = cli_option(args, "wait");

    return text ? cli_seconds_ms(args, "--wait", text) : 0;
}

static int push_run(struct cli_args *args)
{
    struct shd_queue_options o = {.struct_size = sizeof(o)};
    const char *create = cli_option(args, "create");
    const char *deliveries = cli_option(args, "deliveries");
    const char *delay = cli_option(args, "delay");
    int64_t wait_ms = wait_of(args);
    int64_t delay_ms = delay ? cli_seconds_ms(args, "--delay", delay) : 0;
    char *input = NULL;
    const char *message = args->words[2];
    uint64_t id = 0;
    shd_segment *segment;
    shd_queue *queue;
    size_t len;

    if (create)
        o.capacity_bytes = cli_size(args, "--create", create);
    o.dead_to = cli_option(args, "dead-to");
    if (deliveries)
        o.deliveries_max = (uint32_t)cli_count(args, "--deliveries",
                                               deliveries, UINT32_MAX);
    if (!create && (o.dead_to || deliveries))
        cli_usage(args, "--dead-to and --deliveries are for --create");
    if (args->count == 3) {
        len = cli_bytes(args, "MESSAGE", args->words[2]);
    } else {
        if (cli_read_input(&input, &len) != 0) {
            cli_message(args, "standard input: %m");
            free(input);
            return CLI_FAILED;
        }
        message = input;
    }
    int status = open_queue(args, CLI_WRITE, create ? &o : NULL, &segment,
                            &queue);
    if (status == CLI_YES) {
        int code = shd_queue_push(queue, message, len, delay_ms, wait_ms, &id);

        close_queue(segment, queue);
        if (code == SHD_FULL) {
            cli_message(args, "%s: the queue is full", args->words[1]);
            status = CLI_NO;
        } else if (code != SHD_OK) {
            status = cli_answer(args, args->words[1], code);
        } else if (args->json) {
            cli_json_print(args, json_pack("{s:I}", "id", (json_int_t)id));
        }
    }
    free(input);
    return status;
}

static const struct cli_option push_options[] = {
    {"delay", 0, "SECONDS", "It can be taken only then"},
    {"wait", 'w', "SECONDS", "Wait so long for room if the queue is full"},
    {"create", 0, "SIZE", "Make the queue if there is none, for SIZE bytes"},
    {"deliveries", 0, "N", "With --create: messages that came back so many "
                           "times are dead letters"},
    {"dead-to", 0, "QUEUE", "With --create: dead letters go to that queue"},
    {"escaped", 'e', NULL, "MESSAGE is in the form peek prints"},
    {NULL}};

const struct cli_verb verb_push = {
    .name = "push",
    .words = "SEGMENT QUEUE [MESSAGE]",
    .summary = "Push a message, or standard input, to a queue",
    .options = push_options,
    .words_min = 2,
    .words_max = 3,
    .run = push_run};

/* ---- pop, peek --------------------------------------------------------- */

static const char *state_name(uint32_t state)
{
    static const char *const names[] = {"?",      "ready",    "delayed",
                                        "leased", "reserved", "dead"};

    return state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

static json_t *message_json(const struct shd_message *m, const char *bytes)
{
    return json_pack(
        "{s:I, s:s, s:I, s:I, s:o, s:I, s:I, s:o}", "id", (json_int_t)m->id,
        "state", state_name(m->state), "attempts", (json_int_t)m->attempts,
        "pushed_ms", (json_int_t)m->pushed_ms, "when_ms",
        m->when_ms < 0 ? json_null() : json_integer((json_int_t)m->when_ms),
        "from", (json_int_t)m->from, "len", (json_int_t)m->len, "message",
        cli_json_bytes(bytes, (size_t)m->len));
}

int cli_queue_pop(struct cli_args *args)
{
    struct shd_message m;
    int64_t wait_ms = wait_of(args);
    size_t size = 0;
    char *buf = NULL;
    shd_segment *segment;
    shd_queue *queue;
    int status = open_queue(args, CLI_WRITE, NULL, &segment, &queue);

    if (status != CLI_YES)
        return status;
    int code = cli_grow(&buf, &size, SHOWN_BYTES) ? SHD_NOMEM : SHD_OK;
    if (code == SHD_OK)
        code = shd_queue_pop(queue, buf, size, wait_ms, &m);
    while (code == SHD_SPACE) {
        code = cli_grow(&buf, &size, (size_t)m.len) ? SHD_NOMEM : SHD_OK;
        if (code == SHD_OK)
            code = shd_queue_pop(queue, buf, size, wait_ms, &m);
    }
    close_queue(segment, queue);
    if (code == SHD_NOTFOUND) {
        cli_message(args, "%s: the queue is empty", args->words[1]);
        status = CLI_NO;
    } else if (code != SHD_OK) {
        status = cli_answer(args, args->words[1], code);
    } else if (args->json) {
        cli_json_print(args, message_json(&m, buf));
    } else if (cli_option(args, "raw") || !isatty(STDOUT_FILENO)) {
        fwrite(buf, 1, (size_t)m.len, stdout);
    } else {
        cli_escape(stdout, buf, (size_t)m.len);
        putchar('\n');
    }
    free(buf);
    return status;
}

static void message_row(const struct shd_message *m, const char *bytes)
{
    char made[32];

    printf("%llu\t%s\t%u\t%s\t", (unsigned long long)m->id,
           state_name(m->state), m->attempts,
           cli_time_format(m->pushed_ms, made, sizeof(made)));
    cli_escape(stdout, bytes, (size_t)m->len);
    putchar('\n');
}

static uint32_t which_of(const struct cli_args *args, uint32_t none)
{
    if (cli_option(args, "dead"))
        return SHD_MESSAGE_DEAD;
    if (cli_option(args, "delayed"))
        return SHD_MESSAGE_DELAYED;
    return args->verb == &verb_peek && cli_option(args, "leased")
               ? SHD_MESSAGE_LEASED
               : none;
}

static uint64_t max_of(const struct cli_args *args, uint64_t none)
{
    const char *text = cli_option(args, "max");

    return text ? cli_count(args, "--max", text, UINT64_MAX) : none;
}

static int peek_run(struct cli_args *args)
{
    uint32_t which = which_of(args, SHD_MESSAGE_READY);
    uint64_t max = max_of(args, PEEK_DEFAULT);
    struct shd_message m;
    size_t size = 0;
    char *buf = NULL;
    shd_segment *segment;
    shd_queue *queue;

    if (args->count > 2 || cli_is_mailbox(args)) {
        if (which != SHD_MESSAGE_READY)
            cli_usage(args, "--dead, --delayed and --leased are for a queue, "
                            "which has no WORKER");
        return cli_mailbox_peek(args, max);
    }
    int status = open_queue(args, CLI_READ, NULL, &segment, &queue);

    if (status != CLI_YES)
        return status;
    int code = cli_grow(&buf, &size, SHOWN_BYTES) ? SHD_NOMEM : SHD_OK;
    if (args->json)
        cli_json_list_begin();
    for (uint64_t i = 0; code == SHD_OK && (max == 0 || i < max); i++) {
        code = shd_queue_peek(queue, which, i, buf, size, &m);
        /* Another may be there by the next look: that one is shown. */
        while (code == SHD_OK && m.len > size) {
            code = cli_grow(&buf, &size, (size_t)m.len) ? SHD_NOMEM : SHD_OK;
            if (code == SHD_OK)
                code = shd_queue_peek(queue, which, i, buf, size, &m);
        }
        if (code == SHD_OK && args->json) {
            cli_json_list_next();
            cli_json_write(args, message_json(&m, buf));
        } else if (code == SHD_OK) {
            message_row(&m, buf);
        }
    }
    if (args->json)
        cli_json_list_end();
    close_queue(segment, queue);
    free(buf);
    if (code != SHD_OK && code != SHD_NOTFOUND)
        status = cli_answer(args, args->words[1], code);
    return status;
}

static const struct cli_option peek_options[] = {
    {"dead", 0, NULL, "Show dead letters"},
    {"delayed", 0, NULL, "Show those whose time has not come"},
    {"leased", 0, NULL, "Show those that a consumer has"},
    {"max", 'm', "N", "No more than so many, 100 by default; 0: all"},
    {NULL}};

const struct cli_verb verb_peek = {
    .name = "peek",
    .words = "SEGMENT QUEUE|MAILBOX [WORKER]",
    .summary = "Show messages of a queue or mailbox, and leave them",
    .options = peek_options,
    .words_min = 2,
    .words_max = 3,
    .run = peek_run};

/* ---- drain, requeue ---------------------------------------------------- */

static int many_run(struct cli_args *args)
{
    bool drain = args->verb == &verb_drain;
    uint32_t which = drain ? which_of(args, 0) : 0;
    uint64_t max = max_of(args, 0), n = 0;
    shd_segment *segment;
    shd_queue *queue;
    int status = open_queue(args, CLI_WRITE, NULL, &segment, &queue);

    if (status != CLI_YES)
        return status;
    int code = drain ? shd_queue_drain(queue, which, max, &n)
                     : shd_queue_requeue(queue, max, &n);
    close_queue(segment, queue);
    if (code != SHD_OK)
        return cli_answer(args, args->words[1], code);
    if (args->json)
        cli_json_print(args, json_pack("{s:I}", "messages", (json_int_t)n));
    else
        printf("%llu\n", (unsigned long long)n);
    return CLI_YES;
}

static const struct cli_option drain_options[] = {
    {"dead", 0, NULL, "Dead letters only"},
    {"delayed", 0, NULL, "Those whose time has not come only"},
    {"max", 'm', "N", "No more than so many"},
    {NULL}};

const struct cli_verb verb_drain = {
    .name = "drain",
    .words = "SEGMENT QUEUE",
    .summary = "Throw a queue's messages away",
    .options = drain_options,
    .words_min = 2,
    .words_max = 2,
    .run = many_run};

static const struct cli_option requeue_options[] = {
    {"max", 'm', "N", "No more than so many"}, {NULL}};

const struct cli_verb verb_requeue = {
    .name = "requeue",
    .words = "SEGMENT QUEUE",
    .summary = "Put a queue's dead letters back into it",
    .options = requeue_options,
    .words_min = 2,
    .words_max = 2,
    .run = many_run};

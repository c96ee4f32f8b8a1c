/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict mailboxes, peek (of a mailbox), send, request. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHOWN_BYTES 65536u

/* ---- opening ----------------------------------------------------------- */

static int open_mailbox(const struct cli_args *args, enum cli_mode mode,
                        shd_segment **segment, shd_mailbox **mailbox)
{
    int status = cli_attach(args, args->words[0], mode, segment), code;

    if (status != CLI_YES)
        return status;
    code = shd_mailbox_open(*segment, args->words[1], NULL, mailbox);
    if (code == SHD_OK)
        return CLI_YES;
    if (code == SHD_NOTFOUND) {
        cli_message(args,
                    "no mailbox \"%s\" in segment \"%s\"; `shdict ls %s` "
                    "lists what there is",
                    args->words[1], args->words[0], args->words[0]);
        status = CLI_ATTACH;
    } else {
        status = cli_answer(args, args->words[1], code);
    }
    shd_segment_close(*segment);
    return status;
}

static void close_mailbox(shd_segment *segment, shd_mailbox *mailbox)
{
    shd_mailbox_close(mailbox);
    shd_segment_close(segment);
}

/* "4": the worker with that logical id; "@262146": that incarnation. */
static int worker_of(const struct cli_args *args, shd_mailbox *mailbox,
                     const char *word, uint64_t *incarnation)
{
    int code;

    if (word[0] == '@') {
        *incarnation = cli_count(args, "WORKER", word + 1, UINT64_MAX);
        return CLI_YES;
    }
    code = shd_mailbox_find(
        mailbox, (int32_t)cli_count(args, "WORKER", word, INT32_MAX),
        incarnation);
    if (code == SHD_NOTFOUND) {
        cli_message(args, "%s: no worker %s listens", args->words[1], word);
        return CLI_NO;
    }
    return code == SHD_OK ? CLI_YES : cli_answer(args, args->words[1], code);
}

/* ---- mailboxes --------------------------------------------------------- */

static json_t *mailbox_json(const struct shd_mailbox_info *i)
{
    return json_pack(
        "{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
        "s:I, s:I, s:I, s:I, s:I, s:I}",
        "name", cli_json_bytes(i->name, strnlen(i->name, sizeof(i->name))),
        "boxes", (json_int_t)i->boxes, "listening", (json_int_t)i->listening,
        "waiting", (json_int_t)i->waiting, "working", (json_int_t)i->working,
        "answers", (json_int_t)i->answers, "bytes", (json_int_t)i->bytes,
        "cells", (json_int_t)i->cells, "cells_used",
        (json_int_t)i->cells_used, "capacity_bytes",
        (json_int_t)i->capacity_bytes, "box_bytes", (json_int_t)i->box_bytes,
        "sent", (json_int_t)i->sent, "received", (json_int_t)i->received,
        "unread", (json_int_t)i->unread, "requests", (json_int_t)i->requests,
        "answered", (json_int_t)i->answered, "declined",
        (json_int_t)i->declined, "failed", (json_int_t)i->failed, "withdrawn",
        (json_int_t)i->withdrawn);
}

static void mailbox_row(FILE *out, const struct shd_mailbox_info *i)
{
    cli_escape(out, i->name, strnlen(i->name, sizeof(i->name)));
    fprintf(out, "\t%u\t%u\t%u\t%u\t%llu%%\t%llu\t%llu\t%llu\t%llu\n",
            i->listening, i->waiting, i->working, i->answers,
            (unsigned long long)(i->cells_used * 100 / i->cells),
            (unsigned long long)i->sent, (unsigned long long)i->requests,
            (unsigned long long)i->answered, (unsigned long long)i->failed);
}

/* One that goes away meanwhile is left out. */
static int each_mailbox(const struct cli_args *args, shd_segment *segment,
                        const char *name, json_t *list, FILE *out)
{
    struct shd_mailbox_info info = {.struct_size = sizeof(info)};
    shd_mailbox *mailbox;
    int code = shd_mailbox_open(segment, name, NULL, &mailbox);

    if (code == SHD_OK) {
        code = shd_mailbox_info(mailbox, &info);
        shd_mailbox_close(mailbox);
    }
    if (code == SHD_NOTFOUND || code == SHD_GONE || code == SHD_MISMATCH)
        return CLI_YES;
    if (code != SHD_OK)
        return cli_answer(args, name, code);
    if (args->json)
        json_array_append_new(list, mailbox_json(&info));
    else
        mailbox_row(out, &info);
    return CLI_YES;
}

static int all_mailboxes(const struct cli_args *args, json_t *list, FILE *out)
{
    struct shd_object_info object = {.struct_size = sizeof(object)};
    shd_segment *segment;
    int status = cli_attach(args, args->words[0], CLI_READ, &segment);

    if (status != CLI_YES)
        return status;
    fputs("NAME\tLISTENING\tWAITING\tWORKING\tANSWERS\tFULL\tSENT\tREQUESTS\t"
          "ANSWERED\tFAILED\n",
          out);
    for (uint32_t i = 0; status == CLI_YES; i++) {
        int code = shd_object_info(segment, i, &object);

        if (code == SHD_INVAL)
            break;
        if (code == SHD_OK && object.kind == SHD_OBJECT_MAILBOX)
            status = each_mailbox(args, segment, object.name, list, out);
        else if (code != SHD_OK && code != SHD_NOTFOUND)
            status = cli_answer(args, args->words[0], code);
    }
    shd_segment_close(segment);
    return status;
}

/* The boxes of one mailbox. */
static int all_boxes(const struct cli_args *args, json_t *list, FILE *out)
{
    struct shd_box_info box = {.struct_size = sizeof(box)};
    struct shd_worker_info worker = {.struct_size = sizeof(worker)};
    shd_segment *segment;
    shd_mailbox *mailbox;
    int status = open_mailbox(args, CLI_READ, &segment, &mailbox);

    if (status != CLI_YES)
        return status;
    fputs("WORKER\tINCARNATION\tSTATE\tWAITING\tWORKING\tANSWERS\n", out);
    for (uint32_t i = 0; status == CLI_YES; i++) {
        int code = shd_mailbox_box(mailbox, i, &box);
        int32_t id = -1;

        if (code == SHD_INVAL)
            break;
        if (code == SHD_NOTFOUND)
            continue;
        if (code != SHD_OK) {
            status = cli_answer(args, args->words[1], code);
            break;
        }
        if (shd_worker_info(segment, i, &worker) == SHD_OK &&
            worker.incarnation == box.owner)
            id = worker.worker_id;
        json_array_append_new(
            list,
            json_pack("{s:o, s:I, s:b, s:b, s:I, s:I, s:I}", "worker_id",
                      id < 0 ? json_null() : json_integer(id), "incarnation",
                      (json_int_t)box.owner, "dead", (int)box.dead,
                      "listening", (int)box.listening, "waiting",
                      (json_int_t)box.waiting, "working",
                      (json_int_t)box.working, "answers",
                      (json_int_t)box.answers));
        if (id >= 0)
            fprintf(out, "%d", id);
        else
            putc('-', out);
        fprintf(out, "\t%llu\t%s\t%u\t%u\t%u\n",
                (unsigned long long)box.owner,
                box.dead        ? "dead"
                : box.listening ? "listening"
                                : "asking",
                box.waiting, box.working, box.answers);
    }
    close_mailbox(segment, mailbox);
    return status;
}

static int mailboxes_run(struct cli_args *args)
{
    struct cli_table table;
    json_t *list = json_array();
    int status;

    if (list == NULL || !cli_table_begin(&table)) {
        cli_message(args, "out of memory");
        exit(CLI_FAILED);
    }
    status = args->count > 1 ? all_boxes(args, list, table.out)
                             : all_mailboxes(args, list, table.out);
    if (args->json && status == CLI_YES)
        cli_json_print(args, list);
    else
        json_decref(list);
    if (args->json || status != CLI_YES) {
        fclose(table.out);
        free(table.text);
        return status;
    }
    return cli_table_end(&table) ? status : CLI_FAILED;
}

const struct cli_verb verb_mailboxes = {
    .name = "mailboxes",
    .words = "SEGMENT [MAILBOX]",
    .summary = "List a segment's mailboxes, or the boxes of one",
    .words_min = 1,
    .words_max = 2,
    .run = mailboxes_run};

/* ---- peek -------------------------------------------------------------- */

bool cli_is_mailbox(const struct cli_args *args)
{
    shd_segment *segment;
    shd_mailbox *mailbox;
    bool is;

    if (shd_segment_attach(args->words[0],
                           &(struct shd_segment_options){
                               .struct_size =
                                   sizeof(struct shd_segment_options),
                               .flags = SHD_ATTACH_READONLY},
                           &segment) != SHD_OK)
        return false;
    is = shd_mailbox_open(segment, args->words[1], NULL, &mailbox) == SHD_OK;
    if (is)
        shd_mailbox_close(mailbox);
    shd_segment_close(segment);
    return is;
}

static void mail_shown(const struct cli_args *args, const struct shd_mail *m,
                       const char *bytes)
{
    char made[32];

    if (args->json) {
        cli_json_list_next();
        cli_json_write(
            args, json_pack("{s:I, s:I, s:I, s:b, s:I, s:I, s:o}", "id",
                            (json_int_t)m->id, "to", (json_int_t)m->to,
                            "from", (json_int_t)m->from, "request",
                            m->request != 0, "sent_ms", (json_int_t)m->sent_ms,
                            "len", (json_int_t)m->len, "message",
                            cli_json_bytes(bytes, (size_t)m->len)));
        return;
    }
    printf("%llu\t%s\t@%llu\t@%llu\t%s\t", (unsigned long long)m->id,
           m->request != 0 ? "request" : "post", (unsigned long long)m->to,
           (unsigned long long)m->from,
           cli_time_format(m->sent_ms, made, sizeof(made)));
    cli_escape(stdout, bytes, (size_t)m->len);
    putchar('\n');
}

/* What waits in a box; *max counts down. SHD_NOTFOUND: that was all. */
static int peek_box(const struct cli_args *args, shd_mailbox *mailbox,
                    uint32_t index, uint64_t *max, char **buf, size_t *size)
{
    struct shd_mail m;
    int code = SHD_OK;

    for (uint64_t i = 0; code == SHD_OK && *max > 0; i++) {
        code = shd_mailbox_peek(mailbox, index, i, *buf, *size, &m);
        /* Another may be there by the next look: that one is shown. */
        while (code == SHD_OK && m.len > *size) {
            code = cli_grow(buf, size, (size_t)m.len) ? SHD_NOMEM : SHD_OK;
            if (code == SHD_OK)
                code = shd_mailbox_peek(mailbox, index, i, *buf, *size, &m);
        }
        if (code == SHD_OK) {
            mail_shown(args, &m, *buf);
            --*max;
        }
    }
    return code;
}

/* The box of that worker; 0: of anybody. SHD_NOTFOUND: it has none. */
static int peek_boxes(const struct cli_args *args, shd_mailbox *mailbox,
                      uint64_t owner, uint64_t max)
{
    struct shd_box_info box = {.struct_size = sizeof(box)};
    size_t size = 0;
    char *buf = NULL;
    bool found = owner == 0;
    int code = cli_grow(&buf, &size, SHOWN_BYTES) ? SHD_NOMEM : SHD_OK;

    for (uint32_t i = 0; code == SHD_OK || code == SHD_NOTFOUND; i++) {
        code = shd_mailbox_box(mailbox, i, &box);
        if (code == SHD_OK && (owner == 0 || box.owner == owner)) {
            found = true;
            code = peek_box(args, mailbox, i, &max, &buf, &size);
        }
    }
    free(buf);
    return code != SHD_INVAL ? code : found ? SHD_OK : SHD_NOTFOUND;
}

int cli_mailbox_peek(const struct cli_args *args, uint64_t max)
{
    shd_segment *segment;
    shd_mailbox *mailbox;
    uint64_t owner = 0;
    int status = open_mailbox(args, CLI_READ, &segment, &mailbox), code;

    if (status != CLI_YES)
        return status;
    if (args->count > 2)
        status = worker_of(args, mailbox, args->words[2], &owner);
    if (status == CLI_YES) {
        if (args->json)
            cli_json_list_begin();
        code = peek_boxes(args, mailbox, owner, max == 0 ? UINT64_MAX : max);
        if (args->json)
            cli_json_list_end();
        if (code == SHD_NOTFOUND) {
            cli_message(args, "%s: worker %s has no box", args->words[1],
                        args->words[2]);
            status = CLI_NO;
        } else if (code != SHD_OK) {
            status = cli_answer(args, args->words[1], code);
        }
    }
    close_mailbox(segment, mailbox);
    return status;
}

/* ---- send -------------------------------------------------------------- */

static int64_t wait_of(const struct cli_args *args, int64_t none)
{
    const char *text = cli_option(args, "wait");

    return text ? cli_seconds_ms(args, "--wait", text) : none;
}

/* The last word, or standard input. */
static int message_of(const struct cli_args *args, char **input,
                      const char **message, size_t *len)
{
    if (args->count == 4) {
        *len = cli_bytes(args, "MESSAGE", args->words[3]);
        *message = args->words[3];
        return CLI_YES;
    }
    if (cli_read_input(input, len) != 0) {
        cli_message(args, "standard input: %m");
        return CLI_FAILED;
    }
    *message = *input;
    return CLI_YES;
}

/* What sending answered. */
static int sent(const struct cli_args *args, int code)
{
    if (code == SHD_FULL)
        cli_message(args, "%s: its box is full", args->words[2]);
    else if (code == SHD_DEAD || code == SHD_LOST || code == SHD_BUSY ||
             code == SHD_NOTFOUND)
        cli_message(args, "%s", shd_last_error());
    else
        return cli_answer(args, args->words[1], code);
    return CLI_NO;
}

static int send_run(struct cli_args *args)
{
    bool all = strcmp(args->words[2], "all") == 0;
    int64_t wait_ms = wait_of(args, 0);
    shd_segment *segment;
    shd_mailbox *mailbox;
    const char *message;
    char *input = NULL;
    uint64_t to = 0, id = 0;
    uint32_t reached = 0;
    size_t len;
    int status = message_of(args, &input, &message, &len);

    if (status == CLI_YES)
        status = open_mailbox(args, CLI_WRITE, &segment, &mailbox);
    if (status != CLI_YES) {
        free(input);
        return status;
    }
    if (!all)
        status = worker_of(args, mailbox, args->words[2], &to);
    if (status == CLI_YES) {
        int code = all ? shd_mailbox_post_all(mailbox, message, len, wait_ms,
                                              &reached)
                       : shd_mailbox_post(mailbox, to, message, len, wait_ms,
                                          &id);

        if (code != SHD_OK)
            status = sent(args, code);
        if (args->json && all && (code == SHD_OK || code == SHD_FULL))
            cli_json_print(args, json_pack("{s:I}", "reached",
                                           (json_int_t)reached));
        else if (args->json && code == SHD_OK)
            cli_json_print(args, json_pack("{s:I}", "id", (json_int_t)id));
        else if (all && (code == SHD_OK || code == SHD_FULL))
            printf("%u\n", reached);
    }
    close_mailbox(segment, mailbox);
    free(input);
    return status;
}

static const struct cli_option send_options[] = {
    {"wait", 'w', "SECONDS", "Wait so long for room in a box that is full"},
    {"escaped", 'e', NULL, "MESSAGE is in the form get and peek print"},
    {NULL}};

const struct cli_verb verb_send = {
    .name = "send",
    .words = "SEGMENT MAILBOX WORKER|all [MESSAGE]",
    .summary = "Send a message, or standard input, to a worker, or to all",
    .options = send_options,
    .words_min = 3,
    .words_max = 4,
    .run = send_run};

/* ---- request ----------------------------------------------------------- */

#define REQUEST_WAIT_MS 10000

static int request_run(struct cli_args *args)
{
    int64_t wait_ms = wait_of(args, REQUEST_WAIT_MS);
    struct shd_mail m;
    shd_segment *segment;
    shd_mailbox *mailbox;
    const char *message;
    char *input = NULL, *buf = NULL;
    size_t len, size = 0;
    uint64_t to = 0;
    int status = message_of(args, &input, &message, &len), code;

    if (status == CLI_YES)
        status = open_mailbox(args, CLI_WRITE, &segment, &mailbox);
    if (status != CLI_YES) {
        free(input);
        return status;
    }
    status = worker_of(args, mailbox, args->words[2], &to);
    if (status == CLI_YES) {
        code = cli_grow(&buf, &size, SHOWN_BYTES) ? SHD_NOMEM : SHD_OK;
        if (code == SHD_OK)
            code = shd_mailbox_call(mailbox, to, message, len, buf, size,
                                    wait_ms, &m);
        while (code == SHD_SPACE) {
            code = cli_grow(&buf, &size, (size_t)m.len) ? SHD_NOMEM : SHD_OK;
            if (code == SHD_OK)
                code = shd_mailbox_await(mailbox, m.request, buf, size, 0,
                                         &m);
        }
        if (code != SHD_OK)
            status = sent(args, code);
        else if (args->json)
            cli_json_print(args,
                           json_pack("{s:I, s:I, s:o}", "from",
                                     (json_int_t)m.to, "len",
                                     (json_int_t)m.len, "answer",
                                     cli_json_bytes(buf, (size_t)m.len)));
        else if (cli_option(args, "raw") || !isatty(STDOUT_FILENO))
            fwrite(buf, 1, (size_t)m.len, stdout);
        else {
            cli_escape(stdout, buf, (size_t)m.len);
            putchar('\n');
        }
    }
    close_mailbox(segment, mailbox);
    free(input);
    free(buf);
    return status;
}

static const struct cli_option request_options[] = {
    {"wait", 'w', "SECONDS", "Wait so long for the answer, 10 by default"},
    {"raw", 'r', NULL, "Write the answer as it is, to a terminal too"},
    {"escaped", 'e', NULL, "MESSAGE is in the form get and peek print"},
    {NULL}};

const struct cli_verb verb_request = {
    .name = "request",
    .words = "SEGMENT MAILBOX WORKER [MESSAGE]",
    .summary = "Ask a worker, and print its answer",
    .options = request_options,
    .words_min = 3,
    .words_max = 4,
    .run = request_run};

/* SPDX-License-Identifier: BSD-2-Clause */
/* shdict topics, publish, follow: events that all subscribers get. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

#define BATCH 256u

static json_t *name_json(const char *name, size_t size)
{
    return cli_json_bytes(name, strnlen(name, size));
}

/* Opens the topic word 1 names, as it is. */
static int open_topic(struct cli_args *args, enum cli_mode mode,
                      const struct shd_topic_options *o, shd_segment **segment,
                      shd_topic **topic)
{
    int status = cli_attach(args, args->words[0], mode, segment);
    int code;

    if (status != CLI_YES)
        return status;
    code = shd_topic_open(*segment, args->words[1], o, topic);
    if (code == SHD_OK)
        return CLI_YES;
    status =
        cli_no_object(args, args->words[0], args->words[1], "topic", code);
    shd_segment_close(*segment);
    return status;
}

/* ---- topics ------------------------------------------------------------- */

static json_t *cursors_json(shd_topic *topic)
{
    struct shd_cursor_info c = {.struct_size = sizeof(c)};
    json_t *list = json_array();
    int code;

    for (uint32_t i = 0; (code = shd_topic_cursor(topic, i, &c)) != SHD_INVAL;
         i++) {
        if (code == SHD_OK)
            json_array_append_new(
                list,
                json_pack("{s:o, s:I, s:b, s:I, s:I}", "name",
                          name_json(c.name, sizeof(c.name)), "owner",
                          (json_int_t)c.owner, "dead", (int)c.dead, "next",
                          (json_int_t)c.next, "behind",
                          (json_int_t)c.behind));
        else if (code != SHD_NOTFOUND)
            break;
    }
    return list;
}

static json_t *topic_json(shd_topic *topic, const struct shd_topic_info *t)
{
    return json_pack("{s:o, s:b, s:I, s:I, s:I, s:I, s:o}", "name",
                     name_json(t->name, sizeof(t->name)), "lossless",
                     (int)t->lossless, "capacity_bytes",
                     (json_int_t)t->capacity_bytes, "kept_bytes",
                     (json_int_t)t->kept_bytes, "published",
                     (json_int_t)t->published, "oldest",
                     (json_int_t)t->oldest, "cursors", cursors_json(topic));
}

static void cursor_rows(FILE *out, shd_topic *topic)
{
    struct shd_cursor_info c = {.struct_size = sizeof(c)};
    int code;

    for (uint32_t i = 0; (code = shd_topic_cursor(topic, i, &c)) != SHD_INVAL;
         i++) {
        if (code == SHD_NOTFOUND)
            continue;
        if (code != SHD_OK)
            break;
        fputs("  ", out);
        cli_escape(out, c.name[0] ? c.name : "-",
                   strnlen(c.name[0] ? c.name : "-", sizeof(c.name)));
        fprintf(out, "\t%s\t\t\t%llu\t%llu behind\n",
                c.owner == 0 ? "nobody"
                : c.dead     ? "dead"
                             : "subscribed",
                (unsigned long long)c.next, (unsigned long long)c.behind);
    }
}

static void topic_rows(FILE *out, shd_topic *topic,
                       const struct shd_topic_info *t)
{
    char size[16], kept[16];

    cli_escape(out, t->name, strnlen(t->name, sizeof(t->name)));
    fprintf(out, "\t%s\t%s\t%s\t%llu\t%llu\n",
            t->lossless ? "lossless" : "lossy",
            cli_size_format(t->capacity_bytes, size, sizeof(size)),
            cli_size_format(t->kept_bytes, kept, sizeof(kept)),
            (unsigned long long)t->published, (unsigned long long)t->oldest);
    cursor_rows(out, topic);
}

/* One object of the segment; SHD_NOTFOUND: it is no topic (any more). */
static int show_topic(struct cli_args *args, shd_segment *segment,
                      uint32_t index, json_t *list, FILE *out)
{
    struct shd_object_info o = {.struct_size = sizeof(o)};
    struct shd_topic_info t = {.struct_size = sizeof(t)};
    shd_topic *topic;
    int code = shd_object_info(segment, index, &o);

    if (code == SHD_OK && o.kind != SHD_OBJECT_TOPIC)
        return SHD_NOTFOUND;
    if (code == SHD_OK)
        code = shd_topic_open(segment, o.name, NULL, &topic);
    if (code != SHD_OK)
        return code;
    code = shd_topic_info(topic, &t);
    if (code == SHD_OK && args->json)
        json_array_append_new(list, topic_json(topic, &t));
    else if (code == SHD_OK)
        topic_rows(out, topic, &t);
    shd_topic_close(topic);
    return code;
}

static int run_topics(struct cli_args *args)
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
    fputs("NAME\tMODE\tCAPACITY\tKEPT\tNEWEST\tOLDEST\n", table.out);
    int damaged = CLI_YES;
    for (uint32_t i = 0; status == CLI_YES; i++) {
        int code = show_topic(args, segment, i, list, table.out);

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

const struct cli_verb verb_topics = {
    .name = "topics",
    .words = "SEGMENT",
    .summary = "List a segment's topics, and who is how far behind",
    .words_min = 1,
    .words_max = 1,
    .run = run_topics};

/* ---- publish ------------------------------------------------------------ */

static const struct cli_option publish_options[] = {
    {"create", 'c', "SIZE", "Make the topic, of SIZE bytes, if it is absent"},
    {"wait", 'w', "SECONDS",
     "Of a lossless topic that is full: wait that long (default 0)"},
    {"escaped", 'e', NULL, "DATA is escaped text"},
    {NULL, 0, NULL, NULL}};

static int run_publish(struct cli_args *args)
{
    const char *size = cli_option(args, "create");
    const char *wait = cli_option(args, "wait");
    struct shd_topic_options o = {.struct_size = sizeof(o)};
    int64_t wait_ms = wait ? cli_seconds_ms(args, "--wait", wait) : 0;
    size_t len = cli_bytes(args, "DATA", args->words[2]);
    shd_segment *segment;
    shd_topic *topic;
    uint64_t seq;
    int status, code;

    if (size != NULL) {
        o.flags = SHD_TOPIC_CREATE;
        o.capacity_bytes = cli_size(args, "--create", size);
    }
    status = open_topic(args, CLI_WRITE, size ? &o : NULL, &segment, &topic);
    if (status != CLI_YES)
        return status;
    code = shd_topic_publish(topic, args->words[2], len, wait_ms, &seq);
    if (code == SHD_FULL || code == SHD_TOOBIG) {
        cli_message(args, "%s", shd_last_error());
        status = CLI_NO;
    } else if (code != SHD_OK) {
        status = cli_answer(args, args->words[1], code);
    } else if (args->json) {
        cli_json_print(args,
                       json_pack("{s:I}", "published", (json_int_t)seq));
    } else {
        printf("%llu\n", (unsigned long long)seq);
    }
    shd_topic_close(topic);
    shd_segment_close(segment);
    return status;
}

const struct cli_verb verb_publish = {
    .name = "publish",
    .words = "SEGMENT TOPIC DATA",
    .summary = "Publish an event to all subscribers",
    .options = publish_options,
    .words_min = 3,
    .words_max = 3,
    .run = run_publish};

/* ---- follow ------------------------------------------------------------- */

static const struct cli_option follow_options[] = {
    {"oldest", 'o', NULL, "Begin with what is kept, not with what comes"},
    {"name", 'n', "NAME",
     "Go on where who used that name before was; attaches read-write"},
    {"count", 'c', "N", "End after N events"},
    {"timeout", 't', "SECONDS", "End when nothing has come for that long"},
    {NULL, 0, NULL, NULL}};

struct following {
    shd_subscription *subscription;
    char *buf;
    size_t size;
    uint64_t left; /* events to go; 0: no end */
    int64_t wait_ms;
};

static void write_event(struct cli_args *args, const struct following *f,
                        const struct shd_event *e)
{
    if (args->json) {
        cli_json_print(args,
                       json_pack("{s:I, s:o}", "seq", (json_int_t)e->seq,
                                 "data",
                                 cli_json_bytes(f->buf + e->at, e->len)));
        return;
    }
    printf("%llu\t", (unsigned long long)e->seq);
    cli_escape(stdout, f->buf + e->at, e->len);
    putchar('\n');
}

static void write_missed(struct cli_args *args, uint64_t missed)
{
    if (args->json)
        cli_json_print(args,
                       json_pack("{s:I}", "missed", (json_int_t)missed));
    else
        printf("-\t%llu missed\n", (unsigned long long)missed);
}

/* A batch. SHD_NOTFOUND: nothing came in time. */
static int follow_once(struct cli_args *args, struct following *f)
{
    static struct shd_event events[BATCH];
    uint32_t max = f->left != 0 && f->left < BATCH ? (uint32_t)f->left : BATCH;
    uint64_t missed;
    uint32_t count;
    int code = shd_subscription_next(f->subscription, f->buf, f->size,
                                     f->wait_ms, events, max, &count, &missed);

    if (code == SHD_SPACE)
        code = cli_grow(&f->buf, &f->size, events[0].len);
    if (code != SHD_OK)
        return code;
    if (missed > 0)
        write_missed(args, missed);
    for (uint32_t i = 0; i < count; i++)
        write_event(args, f, &events[i]);
    if (fflush(stdout) != 0)
        exit(cli_finish(args, CLI_FAILED));
    if (f->left != 0) {
        f->left -= count;
        if (f->left == 0)
            return SHD_NOTFOUND;
    }
    return SHD_OK;
}

static int run_follow(struct cli_args *args)
{
    const char *name = cli_option(args, "name");
    const char *count = cli_option(args, "count");
    const char *timeout = cli_option(args, "timeout");
    struct following f = {
        .left = count ? cli_count(args, "--count", count, UINT64_MAX) : 0,
        .wait_ms = timeout ? cli_seconds_ms(args, "--timeout", timeout)
                           : SHD_FOREVER};
    shd_segment *segment;
    shd_topic *topic;
    int status = open_topic(args, name ? CLI_WRITE : CLI_READ, NULL, &segment,
                            &topic);
    int code;

    if (status != CLI_YES)
        return status;
    code = cli_grow(&f.buf, &f.size, 65536);
    if (code == SHD_OK)
        code = shd_topic_subscribe(
            topic, name,
            cli_option(args, "oldest") ? SHD_FROM_OLDEST : SHD_FROM_NOW,
            &f.subscription);
    while (code == SHD_OK)
        code = follow_once(args, &f);
    if (f.subscription != NULL)
        shd_subscription_close(f.subscription);
    if (code != SHD_NOTFOUND)
        status = cli_answer(args, args->words[1], code);
    free(f.buf);
    shd_topic_close(topic);
    shd_segment_close(segment);
    return status;
}

const struct cli_verb verb_follow = {
    .name = "follow",
    .words = "SEGMENT TOPIC",
    .summary = "Print the events of a topic as they come",
    .options = follow_options,
    .words_min = 2,
    .words_max = 2,
    .run = run_follow};

/* SPDX-License-Identifier: BSD-2-Clause */
/* What can be shown of an object, whatever its kind: a line of the last table
 * for each kind, and figures that stat, its rates and export all print. */
#include "cli.h"

#include <string.h>

struct from {
    const char *name, *help;
    enum cli_unit unit;
    size_t at, size; /* of an uint64_t or an uint32_t */
};

#define NAMED(name, type, member, unit, help)                                 \
    {name, help, unit, offsetof(struct type, member),                         \
     sizeof(((struct type *)0)->member)}
#define FROM(type, member, unit, help) NAMED(#member, type, member, unit, help)
#define DICT(member, unit, help) FROM(shd_dict_info, member, unit, help)
#define QUEUE(member, unit, help) FROM(shd_queue_info, member, unit, help)
#define TOPIC(member, unit, help) FROM(shd_topic_info, member, unit, help)
#define MAILBOX(member, unit, help)                                           \
    FROM(shd_mailbox_info, member, unit, help)
#define LOCK(member, unit, help) FROM(shd_lock_info, member, unit, help)

static const struct from dict_figures[] = {
    DICT(entries, CLI_GAUGE, "Entries stored, expired ones included"),
    DICT(capacity_bytes, CLI_BYTES, "Capacity, all overhead included"),
    DICT(free_bytes, CLI_BYTES, "Free pages and free cells"),
    DICT(cells_bytes, CLI_BYTES, "In cells that are in use"),
    DICT(pages, CLI_GAUGE, "Pages of 4096 bytes"),
    DICT(pages_free, CLI_GAUGE, "Pages that are free"),
    DICT(leases, CLI_GAUGE, "Elements of lists that workers have on a lease"),
    DICT(hits, CLI_COUNTER, "Reads that found a live value"),
    DICT(misses, CLI_COUNTER, "Reads that found none"),
    DICT(changes, CLI_COUNTER, "Transactions"),
    DICT(evictions, CLI_COUNTER, "Live entries removed by force"),
    DICT(expirations, CLI_COUNTER, "Expired entries removed"),
    DICT(moves, CLI_COUNTER, "Cells moved to free a page"),
    DICT(lock_waits, CLI_COUNTER, "Lock acquisitions that had to wait"),
    DICT(recoveries, CLI_COUNTER, "Operations of dead workers undone"),
    DICT(resizes, CLI_COUNTER, "Changes of the capacity")};

static const struct from queue_figures[] = {
    QUEUE(capacity_bytes, CLI_BYTES, "Capacity, all overhead included"),
    QUEUE(bytes, CLI_BYTES, "Of all messages in it"),
    QUEUE(ready, CLI_GAUGE, "Messages that can be taken"),
    QUEUE(delayed, CLI_GAUGE, "Messages whose time has not come"),
    QUEUE(leased, CLI_GAUGE, "Messages that a consumer is at"),
    QUEUE(dead, CLI_GAUGE, "Dead letters"),
    QUEUE(pushed, CLI_COUNTER, "Messages pushed"),
    QUEUE(popped, CLI_COUNTER, "Messages taken out"),
    QUEUE(acked, CLI_COUNTER, "Messages acknowledged"),
    QUEUE(redelivered, CLI_COUNTER, "Messages handed out again"),
    QUEUE(buried, CLI_COUNTER, "Messages that became dead letters"),
    QUEUE(forwarded, CLI_COUNTER, "Dead letters that went to another queue"),
    QUEUE(reservations, CLI_GAUGE, "Messages that a producer is at"),
    QUEUE(cells, CLI_GAUGE, "Cells for messages"),
    QUEUE(cells_used, CLI_GAUGE, "Cells that are in use"),
    QUEUE(drained, CLI_COUNTER, "Messages thrown away"),
    NAMED("leases_expired", shd_queue_info, expired, CLI_COUNTER,
          "Messages that came back by the end of their lease"),
    QUEUE(orphaned, CLI_COUNTER,
          "Messages that came back by the death of their consumer")};

static const struct from topic_figures[] = {
    TOPIC(capacity_bytes, CLI_BYTES, "Capacity, all overhead included"),
    TOPIC(kept_bytes, CLI_BYTES, "Of the ring, in use"),
    TOPIC(published, CLI_COUNTER, "Events published"),
    NAMED("oldest_event", shd_topic_info, oldest, CLI_GAUGE,
          "Number of the oldest event that is kept"),
    TOPIC(cursors, CLI_GAUGE, "Subscribers whose place is in the segment"),
    TOPIC(cursors_max, CLI_GAUGE, "How many of them there can be")};

static const struct from mailbox_figures[] = {
    MAILBOX(capacity_bytes, CLI_BYTES, "Capacity, all overhead included"),
    MAILBOX(bytes, CLI_BYTES, "Of all messages in it"),
    MAILBOX(cells, CLI_GAUGE, "Cells for messages"),
    MAILBOX(cells_used, CLI_GAUGE, "Cells that are in use"),
    MAILBOX(listening, CLI_GAUGE, "Workers that can be sent to"),
    NAMED("mail_waiting", shd_mailbox_info, waiting, CLI_GAUGE,
          "Messages to be received"),
    MAILBOX(working, CLI_GAUGE, "Requests to be answered"),
    MAILBOX(answers, CLI_GAUGE, "Answers that nobody has looked at"),
    MAILBOX(sent, CLI_COUNTER, "Messages sent"),
    MAILBOX(received, CLI_COUNTER, "Messages received"),
    MAILBOX(unread, CLI_COUNTER, "Messages that went without being received"),
    MAILBOX(requests, CLI_COUNTER, "Messages that were requests"),
    MAILBOX(answered, CLI_COUNTER, "Requests answered"),
    MAILBOX(declined, CLI_COUNTER, "Requests declined"),
    MAILBOX(failed, CLI_COUNTER, "Requests whose receiver died or left"),
    MAILBOX(withdrawn, CLI_COUNTER, "Requests whose sender gave up or died")};

static const struct from lock_figures[] = {
    LOCK(permits, CLI_GAUGE, "Permits"),
    LOCK(taken, CLI_GAUGE, "Permits that somebody has"),
    LOCK(waiting, CLI_GAUGE, "In line for a permit"),
    LOCK(grants, CLI_COUNTER, "Permits given out"),
    NAMED("permits_orphaned", shd_lock_info, deaths, CLI_COUNTER,
          "Permits taken back from the dead"),
    NAMED("permits_expired", shd_lock_info, expirations, CLI_COUNTER,
          "Permits taken away because their time was up")};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
_Static_assert(COUNT(dict_figures) <= CLI_FIGURES_MAX, "room");
_Static_assert(COUNT(queue_figures) <= CLI_FIGURES_MAX, "room");
_Static_assert(COUNT(topic_figures) <= CLI_FIGURES_MAX, "room");
_Static_assert(COUNT(mailbox_figures) <= CLI_FIGURES_MAX, "room");
_Static_assert(COUNT(lock_figures) <= CLI_FIGURES_MAX, "room");

static void fill(struct cli_object *object, const struct from *from, size_t n,
                 const void *info)
{
    for (size_t i = 0; i < n; i++) {
        struct cli_figure *f = &object->figure[i];
        uint32_t half;

        f->name = from[i].name;
        f->help = from[i].help;
        f->unit = from[i].unit;
        if (from[i].size == sizeof(half)) {
            memcpy(&half, (const char *)info + from[i].at, sizeof(half));
            f->value = half;
        } else {
            memcpy(&f->value, (const char *)info + from[i].at,
                   sizeof(f->value));
        }
    }
    object->figures = (unsigned)n;
}

static int figures_of_dict(shd_segment *segment, const char *name,
                           struct cli_object *object)
{
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    shd_dict *dict;
    int code = shd_dict_open(segment, name, NULL, &dict);

    if (code != SHD_OK)
        return code;
    code = shd_dict_info(dict, &info);
    shd_dict_close(dict);
    fill(object, dict_figures, COUNT(dict_figures), &info);
    return code;
}

static int figures_of_queue(shd_segment *segment, const char *name,
                            struct cli_object *object)
{
    struct shd_queue_info info = {.struct_size = sizeof(info)};
    shd_queue *queue;
    int code = shd_queue_open(segment, name, NULL, &queue);

    if (code != SHD_OK)
        return code;
    code = shd_queue_info(queue, &info);
    shd_queue_close(queue);
    fill(object, queue_figures, COUNT(queue_figures), &info);
    return code;
}

static int figures_of_topic(shd_segment *segment, const char *name,
                            struct cli_object *object)
{
    struct shd_topic_info info = {.struct_size = sizeof(info)};
    shd_topic *topic;
    int code = shd_topic_open(segment, name, NULL, &topic);

    if (code != SHD_OK)
        return code;
    code = shd_topic_info(topic, &info);
    shd_topic_close(topic);
    fill(object, topic_figures, COUNT(topic_figures), &info);
    return code;
}

static int figures_of_mailbox(shd_segment *segment, const char *name,
                              struct cli_object *object)
{
    struct shd_mailbox_info info = {.struct_size = sizeof(info)};
    shd_mailbox *mailbox;
    int code = shd_mailbox_open(segment, name, NULL, &mailbox);

    if (code != SHD_OK)
        return code;
    code = shd_mailbox_info(mailbox, &info);
    shd_mailbox_close(mailbox);
    fill(object, mailbox_figures, COUNT(mailbox_figures), &info);
    return code;
}

/* And of semaphores: object->kind says which. */
static int figures_of_lock(shd_segment *segment, const char *name,
                           struct cli_object *object)
{
    struct shd_lock_info info = {.struct_size = sizeof(info)};
    shd_lock *lock;
    int code = shd_lock_open(segment, name, object->kind, NULL, &lock);

    if (code != SHD_OK)
        return code;
    code = shd_lock_info(lock, &info);
    shd_lock_close(lock);
    fill(object, lock_figures, COUNT(lock_figures), &info);
    return code;
}

static const struct {
    uint32_t kind;
    int (*figures)(shd_segment *segment, const char *name,
                   struct cli_object *object);
} kinds[] = {{SHD_OBJECT_DICT, figures_of_dict},
             {SHD_OBJECT_QUEUE, figures_of_queue},
             {SHD_OBJECT_TOPIC, figures_of_topic},
             {SHD_OBJECT_LOCK, figures_of_lock},
             {SHD_OBJECT_SEMAPHORE, figures_of_lock},
             {SHD_OBJECT_LEADER, figures_of_lock},
             {SHD_OBJECT_MAILBOX, figures_of_mailbox}};


int cli_object_at(shd_segment *segment, uint32_t index,
                  struct cli_object *object)
{
    struct shd_object_info info = {.struct_size = sizeof(info)};
    int code = shd_object_info(segment, index, &info);

    object->name[0] = '\0';
    if (code != SHD_OK)
        return code;
    memcpy(object->name, info.name, sizeof(object->name));
    object->name[sizeof(object->name) - 1] = '\0';
    object->kind = info.kind;
    object->generation = info.generation;
    object->figures = 0;
    for (size_t i = 0; i < COUNT(kinds); i++)
        if (kinds[i].kind == info.kind)
            code = kinds[i].figures(segment, info.name, object);
    /* Destroyed since. */
    return code == SHD_GONE ? SHD_NOTFOUND : code;
}

uint64_t cli_figure(const struct cli_object *object, const char *name)
{
    for (unsigned i = 0; i < object->figures; i++)
        if (strcmp(object->figure[i].name, name) == 0)
            return object->figure[i].value;
    return 0;
}

bool cli_has_figure(const struct cli_object *object, const char *name)
{
    for (unsigned i = 0; i < object->figures; i++)
        if (strcmp(object->figure[i].name, name) == 0)
            return true;
    return false;
}

/* Figures no two kinds share, so a sum has what the object's own kind has. */
uint64_t cli_entries(const struct cli_object *object)
{
    uint64_t kept = cli_has_figure(object, "oldest_event")
                        ? cli_figure(object, "published") + 1 -
                              cli_figure(object, "oldest_event")
                        : 0;

    return cli_figure(object, "entries") + cli_figure(object, "ready") +
           cli_figure(object, "delayed") + cli_figure(object, "leased") +
           cli_figure(object, "dead") + kept + cli_figure(object, "taken");
}

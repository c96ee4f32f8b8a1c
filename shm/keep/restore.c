/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The segment has the seed, the shards and roots of the one that was saved, so
 * every entry comes into the shard that it was in, in its order, and into no
 * more pages than it needed there.
 */
#include "shm/keep/restore.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/dict/forest.h"
#include "shm/dict/store.h"
#include "shm/ipc/mailbox.h"
#include "shm/ipc/permits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP_RECORDS 4096u
#define STEP_BYTES (1u << 20)

/* ---- times ------------------------------------------------------------- */

/* From wall clock to clock_now_ms(), on this boot, maybe of another machine; 0
 * stays 0. What is over is 1. */
static uint64_t local_ms(const struct restore *r, uint64_t wall)
{
    if (wall == 0)
        return 0;
    if (wall <= r->wall_ms)
        return 1;
    wall = wall - r->wall_ms + r->now_ms;
    return wall <= ENTRY_EXPIRES_MASK ? wall : 0;
}

/* ---- dicts ------------------------------------------------------------- */

static int make_dict(struct restore *r, const struct record *x)
{
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = x->word[0],
                                 .capacity_max_bytes = x->word[1],
                                 .shards = (uint32_t)x->word[2],
                                 .entries_hint = x->word[3]};
    int rc = dict_open(r->env, r->name, &o, &r->dict);

    r->dict_evicted = 0;
    if (rc == SHD_OK && r->dict.shards != o.shards)
        rc = error_set(SHD_EXISTS, "the snapshot has two objects '%s'",
                       r->name);
    return rc;
}

/* It was in use: it is given its second chance again. */
static int mark(const struct dict *d, const void *key, size_t len)
{
    struct place at = dict_place(d, key, len);
    uint32_t ref;
    int rc = dict_lock(d, at.shard);

    if (rc != SHD_OK)
        return rc;
    if (forest_find(d, &at, key, len, &ref) == 1)
        dict_set_mark(d, ref, true);
    dict_unlock(d, at.shard);
    return SHD_OK;
}

static double number_of(const struct record *x)
{
    uint64_t word = file_get(x->value, 8);
    double number;

    memcpy(&number, &word, sizeof(number));
    return number;
}

/* No room for one is no reason to lose the others: the least recently used
 * came first, and go first. */
static int no_room(struct restore *r, int rc)
{
    if (rc != SHD_TOOBIG && rc != SHD_NOMEM)
        return rc;
    if (rc == SHD_NOMEM && pages_free(&r->dict.pages) > 0)
        return error_set(SHD_NOMEM,
                         "the system has no memory for what the snapshot "
                         "holds: free some (df /dev/shm), and restore again");
    r->evicted++;
    return SHD_OK;
}

/* Those that had to go again for one that came later: pages that are cut up in
 * another way may hold one less. */
static void count_evicted(struct restore *r)
{
    uint64_t evicted = 0;

    for (uint32_t i = 0; i < r->dict.shards; i++)
        evicted += atomic_load64(&r->dict.shard[i].evictions);
    r->evicted += evicted - r->dict_evicted;
    r->dict_evicted = evicted;
}

static int put_entry(struct restore *r, const struct record *x)
{
    uint32_t type = x->word[0] & 0xff;
    struct item item = {.key = x->key,
                        .key_len = x->key_len,
                        .type = type,
                        .flags = (int32_t)(uint32_t)(x->word[0] >> 32),
                        .expires = local_ms(r, x->word[1])};
    uint32_t forcible = 0;
    int rc;

    if (item.expires != 0 && item.expires <= r->now_ms) {
        r->expired++;
        return SHD_OK;
    }
    if (type == SHD_STRING) {
        item.value = x->value;
        item.len = x->value_len;
    } else {
        item.number = number_of(x);
    }
    rc = store_item(&r->dict, SHD_SET, &item, &forcible);
    if (forcible != 0)
        count_evicted(r);
    if (rc == SHD_OK && (x->word[0] & 256) != 0)
        rc = mark(&r->dict, x->key, x->key_len);
    return no_room(r, rc);
}

static int begin_list(struct restore *r, const struct record *x)
{
    memcpy(r->key, x->key, x->key_len);
    r->key_len = x->key_len;
    r->expires = local_ms(r, x->word[1]);
    r->list_expired = r->expires != 0 && r->expires <= r->now_ms;
    r->expired += r->list_expired;
    return SHD_OK;
}

static int put_element(struct restore *r, const struct record *x)
{
    struct item item = {.type = (uint32_t)x->word[0]};
    uint64_t length;
    int rc;

    if (r->list_expired)
        return SHD_OK;
    if (item.type == SHD_STRING) {
        item.value = x->value;
        item.len = x->value_len;
    } else {
        item.number = number_of(x);
    }
    rc = store_push(&r->dict, false, &item, r->key, r->key_len, r->expires,
                    &length);
    /* A part of a list would be a lie. */
    if (rc == SHD_NOMEM || rc == SHD_TOOBIG) {
        (void)store_delete(&r->dict, r->key, r->key_len);
        r->list_expired = true;
    }
    return no_room(r, rc);
}

/* ---- queues ------------------------------------------------------------ */

static int make_queue(struct restore *r, const struct record *x)
{
    char dead_to[sizeof(r->name)] = "";
    struct shd_queue_options o = {.struct_size = sizeof(o),
                                  .capacity_bytes = x->word[0],
                                  .message_bytes = x->word[1],
                                  .messages_max = x->word[2],
                                  .lease_ms = x->word[3],
                                  .deliveries_max = (uint32_t)x->word[4]};

    r->deliveries_max = o.deliveries_max;
    memcpy(dead_to, x->value, x->value_len); /* a name, by its length too */
    if (x->value_len > 0)
        o.dead_to = dead_to;
    return queue_make(r->env, r->name, &o, x->word[5], &r->queue);
}

static int put_message(struct restore *r, const struct record *x)
{
    uint32_t state = (uint32_t)x->word[0], attempts = (uint32_t)x->word[1];
    uint64_t when = local_ms(r, x->word[4]);
    int rc;

    /* Its consumer is not there: it comes back, as after a death. */
    if (state == QUEUE_LEASED)
        state = r->deliveries_max != 0 && attempts >= r->deliveries_max
                    ? QUEUE_DEAD
                    : QUEUE_READY;
    if (state == QUEUE_DELAYED && when == 0)
        state = QUEUE_READY;
    rc = queue_put(&r->queue, x->value, x->value_len, state, attempts,
                   x->word[2], x->word[3], when);
    return rc == SHD_FULL || rc == SHD_TOOBIG
               ? file_damaged(&r->file, "queue '%s' has more messages than "
                                        "fit into it",
                              r->name)
               : rc;
}

/* ---- topics ------------------------------------------------------------ */

static int make_topic(struct restore *r, const struct record *x)
{
    struct shd_topic_options o = {.struct_size = sizeof(o),
                                  .capacity_bytes = x->word[0],
                                  .flags = (uint32_t)x->word[1],
                                  .subscribers_max = (uint32_t)x->word[2]};

    r->ring_left = x->word[0] + topic_spare(x->word[0]);
    return topic_make(r->env, r->name, &o, x->word[3], x->word[4], &r->topic);
}

static int put_event(struct restore *r, const struct record *x)
{
    uint64_t bytes = topic_event_bytes(x->value_len), seq;
    int rc;

    if (bytes > r->ring_left)
        return file_damaged(&r->file, "topic '%s' has more events than fit "
                                      "into it",
                            r->name);
    r->ring_left -= bytes;
    rc = topic_publish(&r->topic, x->value, x->value_len, &seq);
    if (rc == SHD_OK && seq != x->word[0])
        rc = file_damaged(&r->file, "an event of topic '%s' has the wrong "
                                    "number",
                          r->name);
    return rc;
}

static int put_cursor(struct restore *r, const struct record *x)
{
    int rc = topic_put_cursor(&r->topic, (const char *)x->key, x->word[0],
                              x->word[1]);

    return rc == SHD_INVAL || rc == SHD_EXISTS
               ? file_damaged(&r->file, "topic '%s' has a cursor that cannot "
                                        "be",
                              r->name)
               : rc;
}

/* ---- locks ------------------------------------------------------------- */

static int make_lock(struct restore *r, const struct record *x)
{
    return permits_make(r->env, r->name, (uint32_t)x->word[0],
                        (uint32_t)x->word[1], (uint32_t)x->word[2],
                        x->word[3]);
}

/* ---- mailboxes --------------------------------------------------------- */

static int make_mailbox(struct restore *r, const struct record *x)
{
    struct shd_mailbox_options o = {.struct_size = sizeof(o),
                                    .capacity_bytes = x->word[0],
                                    .message_bytes = x->word[1],
                                    .box_bytes = x->word[2]};
    struct mailbox b;

    return mailbox_open(r->env, r->name, &o, true, &b);
}

/* ---- records ----------------------------------------------------------- */

static int drop(struct restore *r, const struct record *x)
{
    (void)x;
    return catalogue_destroy(r->env, r->name);
}

static int (*const handlers[])(struct restore *r, const struct record *x) = {
    [RECORD_DICT] = make_dict,     [RECORD_ENTRY] = put_entry,
    [RECORD_LIST] = begin_list,    [RECORD_ELEMENT] = put_element,
    [RECORD_QUEUE] = make_queue,   [RECORD_MESSAGE] = put_message,
    [RECORD_TOPIC] = make_topic,   [RECORD_EVENT] = put_event,
    [RECORD_CURSOR] = put_cursor,  [RECORD_LOCK] = make_lock,
    [RECORD_DROP] = drop,          [RECORD_MAILBOX] = make_mailbox,
};

/* Numbers that are sound by themselves may contradict each other. */
static int check_last_object(struct restore *r)
{
    struct catalogue_object o;
    char report[256] = "";
    int rc;

    if (r->env == NULL || (r->kind != RECORD_QUEUE && r->kind != RECORD_TOPIC))
        return SHD_OK;
    rc = catalogue_find(r->env, r->name, &o);
    if (rc == SHD_OK)
        rc = object_check(r->env, &o, report, sizeof(report));
    return rc == SHD_CORRUPT
               ? file_damaged(&r->file, "what it says of '%s' contradicts "
                                        "itself",
                              r->name)
               : rc;
}

/* The name of what begins: none must be there already. */
static int begin_object(struct restore *r, const struct record *x)
{
    struct catalogue_object o;
    int rc = check_last_object(r);

    if (rc != SHD_OK)
        return rc;
    r->kind = x->kind;
    memcpy(r->name, x->key, x->key_len + 1);
    if (r->env != NULL && catalogue_find(r->env, r->name, &o) == SHD_OK)
        return file_damaged(&r->file, "two objects are called '%s'", r->name);
    return SHD_OK;
}

static int take_record(struct restore *r, const struct record *x)
{
    bool object = x->kind == RECORD_DICT || x->kind == RECORD_QUEUE ||
                  x->kind == RECORD_TOPIC || x->kind == RECORD_LOCK ||
                  x->kind == RECORD_MAILBOX;
    int rc = object ? begin_object(r, x) : SHD_OK;
    char why[256];

    if (rc == SHD_OK && x->kind == RECORD_DROP)
        r->kind = 0;
    if (rc != SHD_OK || r->env == NULL)
        return rc;
    rc = handlers[x->kind](r, x);
    /* A file that passes its checksums and was made with care may still ask
     * for what cannot be made. */
    if (rc != SHD_INVAL && rc != SHD_MISMATCH)
        return rc;
    snprintf(why, sizeof(why), "%s", shd_last_error());
    return error_set(SHD_CORRUPT, "%.200s cannot be restored: %s",
                     r->file.label, why);
}

/* ---- steps ------------------------------------------------------------- */

int restore_begin(struct restore *r, const char *path, bool frozen)
{
    int rc = file_reader_begin(&r->file, path);

    record_reader_begin(&r->reader, &r->file);
    r->env = NULL;
    r->kind = 0;
    r->expired = r->evicted = 0;
    r->done = false;
    r->list_expired = false;
    r->frozen = frozen;
    if (rc == SHD_OK)
        rc = record_next(&r->reader, &r->segment);
    if (rc == 0)
        rc = file_damaged(&r->file, "there is nothing in it");
    if (rc < 0)
        return rc;
    snprintf(r->segment_name, sizeof(r->segment_name), "%s",
             (const char *)r->segment.key);
    r->now_ms = clock_now_ms();
    r->wall_ms = frozen ? r->file.saved_ms : clock_wall_ms();
    /* A clock that was set back does not make entries older. */
    if (r->wall_ms < r->file.saved_ms)
        r->wall_ms = r->file.saved_ms;
    return SHD_OK;
}

struct shd_segment_options restore_options(const struct restore *r,
                                           uint64_t *hash_seed)
{
    const uint64_t *word = r->segment.word;
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .size_bytes = word[1],
                                    .workers_max = (uint32_t)word[2],
                                    .objects_max = (uint32_t)word[3],
                                    .locks_max = (uint32_t)word[4],
                                    .mode = (uint32_t)word[5],
                                    .worker_id = -1};

    *hash_seed = word[0];
    return o;
}

void restore_into(struct restore *r, const struct guard_env *env)
{
    r->env = env;
}

int restore_step(struct restore *r)
{
    uint64_t begin = r->file.at;
    struct record x;
    int rc = r->done ? 0 : 1;

    for (uint32_t i = 0;
         rc == 1 && i < STEP_RECORDS && r->file.at - begin < STEP_BYTES; i++) {
        rc = record_next(&r->reader, &x);
        if (rc == 1) {
            rc = take_record(r, &x);
            rc = rc == SHD_OK ? 1 : rc;
        }
    }
    if (rc == 0 && !r->done) {
        rc = check_last_object(r);
        r->done = rc == SHD_OK;
    }
    return rc;
}

void restore_end(struct restore *r)
{
    record_reader_end(&r->reader);
    file_reader_end(&r->file);
}

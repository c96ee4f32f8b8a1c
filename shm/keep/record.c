/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/keep/record.h"
#include "shm/base/error.h"
#include "shm/dict/dict.h"
#include "shm/dict/entry.h"
#include "shm/ipc/permits.h"
#include "shm/ipc/queue.h"
#include "shm/ipc/topic.h"
#include "shm/segment/header.h"

#include <stdlib.h>
#include <string.h>

#define BUFFER_MIN 65536u
#define NAME_MAX_BYTES 63u
#define SEGMENT_NAME_MAX 255u

/* ---- making them ------------------------------------------------------- */

void record_buffer_free(struct record_buffer *b)
{
    free(b->bytes);
    memset(b, 0, sizeof(*b));
}

unsigned char *record_room(struct record_buffer *b, size_t len)
{
    size_t size = b->size > 0 ? b->size : BUFFER_MIN;
    unsigned char *bytes;

    if (len > SIZE_MAX / 4 || b->used > SIZE_MAX / 4)
        return NULL;
    while (size - b->used < len)
        size *= 2;
    if (size != b->size) {
        bytes = realloc(b->bytes, size);
        if (bytes == NULL)
            return NULL;
        b->bytes = bytes;
        b->size = size;
    }
    bytes = b->bytes + b->used;
    b->used += len;
    return bytes;
}

int record_begin(struct record_buffer *b, uint32_t kind, const uint64_t *word,
                 uint32_t words, size_t key_len, uint64_t value_len,
                 unsigned char **key, unsigned char **value)
{
    size_t head = RECORD_HEAD_BYTES + (size_t)words * 8;
    unsigned char *p = record_room(b, head + key_len + value_len);

    if (p == NULL)
        return error_set(SHD_NOMEM, "this process has no memory for a part of "
                                    "the snapshot");
    file_put(p, kind, 1);
    file_put(p + 1, words, 1);
    file_put(p + 2, key_len, 2);
    file_put(p + 4, value_len, 8);
    for (uint32_t i = 0; i < words; i++)
        file_put(p + RECORD_HEAD_BYTES + 8 * i, word[i], 8);
    if (key != NULL)
        *key = p + head;
    if (value != NULL)
        *value = p + head + key_len;
    return SHD_OK;
}

int record_add(struct record_buffer *b, uint32_t kind, const uint64_t *word,
               uint32_t words, const char *name)
{
    size_t len = name == NULL ? 0 : strlen(name);
    unsigned char *key;
    int rc = record_begin(b, kind, word, words, len, 0, &key, NULL);

    if (rc == SHD_OK && len > 0)
        memcpy(key, name, len);
    return rc;
}

/* An object's own record. */
static bool is_object(uint32_t kind)
{
    return kind == RECORD_DICT || kind == RECORD_QUEUE ||
           kind == RECORD_TOPIC || kind == RECORD_LOCK ||
           kind == RECORD_MAILBOX;
}

void record_count(struct record_sums *sums, uint32_t kind)
{
    sums->objects += is_object(kind);
    sums->entries += kind == RECORD_ENTRY || kind == RECORD_LIST;
    sums->elements += kind == RECORD_ELEMENT;
    sums->messages += kind == RECORD_MESSAGE;
    sums->events += kind == RECORD_EVENT;
}

/* ---- what a record may be ---------------------------------------------- */

static bool is_value(uint32_t type, uint64_t len)
{
    return type == SHD_STRING ? len <= UINT32_MAX
                              : (type == SHD_NUMBER || type == SHD_BOOLEAN) &&
                                    len == 8;
}

static bool is_name(const struct record *r)
{
    return r->key_len <= NAME_MAX_BYTES &&
           strlen((const char *)r->key) == r->key_len &&
           catalogue_name_check((const char *)r->key) == SHD_OK;
}

static bool is_segment(const struct record *r)
{
    return r->key_len <= SEGMENT_NAME_MAX &&
           strlen((const char *)r->key) == r->key_len &&
           r->word[1] <= SEGMENT_SIZE_MAX && r->word[1] > 0 &&
           r->word[2] > 0 && r->word[2] <= SEGMENT_COUNT_MAX &&
           r->word[3] > 0 && r->word[3] <= SEGMENT_COUNT_MAX &&
           r->word[4] >= SEGMENT_LOCKS_MIN &&
           r->word[4] <= SEGMENT_COUNT_MAX && (r->word[5] & ~0777ull) == 0;
}

static bool is_dict(const struct record *r)
{
    uint64_t shards = r->word[2];

    return is_name(r) && r->word[0] >= DICT_CAPACITY_MIN &&
           r->word[0] <= r->word[1] && r->word[1] <= SEGMENT_SIZE_MAX &&
           shards > 0 && shards <= DICT_SHARDS_MAX &&
           (shards & (shards - 1)) == 0 && r->word[3] <= UINT32_MAX;
}

static bool is_entry(const struct record *r)
{
    return r->key_len > 0 && is_value(r->word[0] & 0xff, r->value_len);
}

static bool is_list(const struct record *r)
{
    return r->key_len > 0 && (r->word[0] & 0xff) == SHD_LIST &&
           r->value_len == 0 && r->word[2] > 0;
}

static bool is_element(const struct record *r)
{
    return r->word[0] != SHD_BOOLEAN && r->word[0] <= SHD_BOOLEAN &&
           is_value((uint32_t)r->word[0], r->value_len);
}

/* Where a queue's dead letters go. */
static bool is_dead_to(const struct record *r)
{
    char name[NAME_MAX_BYTES + 1] = "";

    if (r->value_len == 0)
        return true;
    if (r->value_len > NAME_MAX_BYTES)
        return false;
    memcpy(name, r->value, r->value_len);
    return strlen(name) == r->value_len &&
           catalogue_name_check(name) == SHD_OK &&
           strcmp(name, (const char *)r->key) != 0;
}

static bool is_queue(const struct record *r)
{
    return is_name(r) && is_dead_to(r) && r->word[0] <= SEGMENT_SIZE_MAX &&
           r->word[1] <= r->word[0] && r->word[4] <= UINT32_MAX;
}

static bool is_message(const struct record *r)
{
    return r->word[0] >= QUEUE_READY && r->word[0] <= QUEUE_DEAD &&
           r->word[0] != QUEUE_RESERVED && r->word[1] <= UINT32_MAX &&
           r->value_len <= UINT32_MAX;
}

static bool is_topic(const struct record *r)
{
    return is_name(r) && r->word[0] >= TOPIC_BYTES_MIN &&
           r->word[0] <= TOPIC_BYTES_MAX && r->word[0] % 64 == 0 &&
           (r->word[1] & ~(uint64_t)SHD_TOPIC_LOSSLESS) == 0 &&
           r->word[2] <= TOPIC_CURSORS_MAX && r->word[3] % TOPIC_UNIT == 0 &&
           r->word[3] < 1ull << 62 && r->word[4] > 0 &&
           r->word[4] < 1ull << 62;
}

static bool is_event(const struct record *r)
{
    return r->value_len <= TOPIC_BYTES_MAX;
}

static bool is_cursor(const struct record *r)
{
    return r->key_len > 0 && r->key_len <= NAME_MAX_BYTES &&
           strlen((const char *)r->key) == r->key_len &&
           r->word[0] % TOPIC_UNIT == 0;
}

static bool is_lock(const struct record *r)
{
    return is_name(r) &&
           (r->word[0] == SHD_OBJECT_LOCK ||
            r->word[0] == SHD_OBJECT_SEMAPHORE ||
            (r->word[0] == SHD_OBJECT_LEADER && r->word[1] == 1)) &&
           r->word[1] > 0 && r->word[1] <= PERMITS_MAX &&
           r->word[2] <= PERMITS_WAITERS_MAX && r->word[3] < 1ull << 56;
}

static bool is_mailbox(const struct record *r)
{
    return is_name(r) && r->word[0] <= SEGMENT_SIZE_MAX &&
           r->word[1] <= r->word[0] && r->word[2] <= r->word[0];
}

static bool is_any(const struct record *r)
{
    return r->value_len == 0 && r->key_len == 0;
}

/* Words, after which object it may come (0: SEGMENT or any), and its form. */
static const struct {
    const char *name;
    uint32_t words;
    uint32_t within;
    bool (*sound)(const struct record *r);
} kinds[] = {
    [RECORD_SEGMENT] = {"a segment", 6, 0, is_segment},
    [RECORD_DICT] = {"a dict", 4, 0, is_dict},
    [RECORD_ENTRY] = {"an entry", 2, RECORD_DICT, is_entry},
    [RECORD_LIST] = {"a list", 3, RECORD_DICT, is_list},
    [RECORD_ELEMENT] = {"an element", 1, RECORD_DICT, is_element},
    [RECORD_QUEUE] = {"a queue", 6, 0, is_queue},
    [RECORD_MESSAGE] = {"a message", 5, RECORD_QUEUE, is_message},
    [RECORD_TOPIC] = {"a topic", 5, 0, is_topic},
    [RECORD_EVENT] = {"an event", 1, RECORD_TOPIC, is_event},
    [RECORD_CURSOR] = {"a cursor", 2, RECORD_TOPIC, is_cursor},
    [RECORD_LOCK] = {"a lock", 4, 0, is_lock},
    [RECORD_DROP] = {"a mark", 0, 0, is_any},
    [RECORD_END] = {"the end", 5, 0, is_any},
    [RECORD_MAILBOX] = {"a mailbox", 3, 0, is_mailbox},
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static int wrong(const struct record_reader *r, const char *what,
                 const char *name)
{
    return file_damaged(r->file, "record %llu %s%s",
                        (unsigned long long)r->records, what, name);
}

/* May it come here? */
static int place_check(struct record_reader *r, uint32_t kind)
{
    const char *name = kinds[kind].name;

    if ((r->records == 0) != (kind == RECORD_SEGMENT))
        return wrong(r, "is out of place: ", name);
    if ((r->elements > 0) != (kind == RECORD_ELEMENT))
        return wrong(r, "does not fit the length of a list: ", name);
    if (kinds[kind].within != 0 && r->object != kinds[kind].within)
        return wrong(r, "is in no object that has such: ", name);
    if (kind == RECORD_DROP && r->object == 0)
        return wrong(r, "is out of place: ", name);
    if (is_object(kind) || kind == RECORD_DROP)
        r->object = kind == RECORD_DROP ? 0 : kind;
    return SHD_OK;
}

/* ---- reading them ------------------------------------------------------ */

void record_reader_begin(struct record_reader *r, struct file_reader *file)
{
    memset(r, 0, sizeof(*r));
    r->file = file;
}

void record_reader_end(struct record_reader *r)
{
    record_buffer_free(&r->body);
}

/* Memory is taken as the bytes come: a length may be a lie. */
static int read_body(struct record_reader *r, uint64_t len)
{
    while (len > 0) {
        size_t n = len < FILE_BLOCK_MAX ? (size_t)len : FILE_BLOCK_MAX;
        unsigned char *p = record_room(&r->body, n);
        int rc = p == NULL ? error_set(SHD_NOMEM,
                                       "this process has no memory for a "
                                       "record of the snapshot")
                           : file_read(r->file, p, n);

        if (rc != SHD_OK)
            return rc;
        len -= n;
    }
    return SHD_OK;
}

/* Words, then the key and a NUL, then the value, from the body. */
static int decode(struct record_reader *r, const unsigned char *head,
                  struct record *record)
{
    uint32_t words = head[1];
    uint64_t value_len = file_get(head + 4, 8);
    size_t key_len = (size_t)file_get(head + 2, 2);
    int rc;

    r->body.used = 0;
    rc = read_body(r, words * 8 + key_len);
    if (rc == SHD_OK && record_room(&r->body, 1) == NULL)
        rc = error_set(SHD_NOMEM, "this process has no memory");
    if (rc != SHD_OK)
        return rc;
    r->body.bytes[r->body.used - 1] = '\0';
    rc = value_len > 1ull << 33
             ? wrong(r, "is longer than any value can be", "")
             : read_body(r, value_len);
    if (rc != SHD_OK)
        return rc;
    for (uint32_t i = 0; i < RECORD_WORDS_MAX; i++)
        record->word[i] =
            i < words ? file_get(r->body.bytes + 8 * i, 8) : 0;
    record->key = r->body.bytes + words * 8;
    record->key_len = key_len;
    record->value = record->key + key_len + 1;
    record->value_len = value_len;
    return SHD_OK;
}

static int end_check(struct record_reader *r, const struct record *record)
{
    const struct record_sums *s = &r->sums;
    int rc;

    if (record->word[0] != s->objects || record->word[1] != s->entries ||
        record->word[2] != s->elements || record->word[3] != s->messages ||
        record->word[4] != s->events)
        return wrong(r, "counts more, or less, than there is", "");
    rc = file_reader_finish(r->file);
    r->ended = rc == SHD_OK;
    return rc;
}

int record_next(struct record_reader *r, struct record *record)
{
    unsigned char head[RECORD_HEAD_BYTES];
    uint32_t kind;
    int rc;

    if (r->ended)
        return 0;
    rc = file_read(r->file, head, sizeof(head));
    if (rc != SHD_OK)
        return rc;
    kind = head[0];
    if (kind == 0 || kind >= KINDS)
        return wrong(r, "is of a kind that this shdict does not know", "");
    if (head[1] < kinds[kind].words)
        return wrong(r, "is too short: ", kinds[kind].name);
    record->kind = kind;
    rc = place_check(r, kind);
    if (rc == SHD_OK)
        rc = decode(r, head, record);
    if (rc == SHD_OK && !kinds[kind].sound(record))
        rc = wrong(r, "has numbers that cannot be: ", kinds[kind].name);
    if (rc == SHD_OK && kind == RECORD_END) {
        rc = end_check(r, record);
        return rc;
    }
    if (rc != SHD_OK)
        return rc;
    if (kind == RECORD_LIST)
        r->elements = record->word[2];
    else if (kind == RECORD_ELEMENT)
        r->elements--;
    r->records++;
    record_count(&r->sums, kind);
    return 1;
}

int record_scan(const void *bytes, size_t size, struct record_sums *sums)
{
    struct file_reader file;
    struct record_reader reader;
    struct record record;
    int rc = file_reader_begin_memory(&file, bytes, size);

    record_reader_begin(&reader, &file);
    if (rc == SHD_OK)
        do {
            rc = record_next(&reader, &record);
        } while (rc == 1);
    if (sums != NULL)
        *sums = reader.sums;
    record_reader_end(&reader);
    file_reader_end(&file);
    return rc;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* keep/record.h - what is in a snapshot: the stream of keep/file.h as records.
 *
 * OWNS   the form of the records, and which may follow which.
 * HOLDS  what record_next gives is well formed by itself and at that place:
 *        numbers are in their limits, what an object has comes after it. A
 *        record takes no more memory than twice what there is of it.
 * LOCK   none.
 *
 *   record   u8 kind, u8 words, u16 bytes of the key, u64 bytes of the value,
 *            then the words (u64), the key, the value; all little-endian.
 *            Words that this version does not know are passed over.
 *   stream   SEGMENT, then objects, each followed by what is in it, then END
 *
 *   kind      key       words                                    value
 *   SEGMENT   name      hash seed, room for objects, workers_max,
 *                       objects_max, locks_max, mode
 *   DICT      name      capacity, capacity_max, shards, entries_hint
 *   ENTRY     key       type | used << 8 | flags << 32, expires  string/double
 *   LIST      key       as ENTRY, elements
 *   ELEMENT             type                                     string/double
 *   QUEUE     name      capacity, message_bytes, messages_max, lease_ms,
 *                       deliveries_max, the last message's     dead_to
 *                       number
 *   MESSAGE             state, deliveries, number, pushed, ready at   bytes
 *   TOPIC     name      ring's bytes, flags, cursors_max, place and number of
 *                       the oldest event
 *   EVENT               number                                   bytes
 *   CURSOR    name      place, number
 *   LOCK      name      kind, permits, waiters_max, tokens given
 *   MAILBOX   name      capacity, message_bytes, box_bytes: its messages are
 *                       to and from workers who will be gone
 *   DROP                the object before was destroyed while it was saved
 *   END                 objects, entries, elements, messages, events
 * Times are wall clock, ms since 1970, 0: none. Entries of a shard come the
 * least recently used first; messages in the order in which they are to be
 * taken.
 *
 * For fuzzing: record_scan takes any bytes.
 */
#ifndef SHD_KEEP_RECORD_H
#define SHD_KEEP_RECORD_H

#include "shm/keep/file.h"

enum {
    RECORD_SEGMENT = 1,
    RECORD_DICT = 2,
    RECORD_ENTRY = 3,
    RECORD_LIST = 4,
    RECORD_ELEMENT = 5,
    RECORD_QUEUE = 6,
    RECORD_MESSAGE = 7,
    RECORD_TOPIC = 8,
    RECORD_EVENT = 9,
    RECORD_CURSOR = 10,
    RECORD_LOCK = 11,
    RECORD_DROP = 12,
    RECORD_END = 13,
    RECORD_MAILBOX = 14
};

#define RECORD_HEAD_BYTES 12u
#define RECORD_WORDS_MAX 6u

struct record {
    uint32_t kind;
    uint64_t word[RECORD_WORDS_MAX];
    const unsigned char *key; /* NUL-terminated, after which comes nothing */
    size_t key_len;
    const unsigned char *value;
    uint64_t value_len;
};

/* What has gone through. */
struct record_sums {
    uint64_t objects, entries, elements, messages, events;
};

/* ---- making them ------------------------------------------------------- */

/* Bytes in private memory. Doubled as needed, never given back before it is
 * freed. */
struct record_buffer {
    unsigned char *bytes;
    size_t used, size;
};

void record_buffer_free(struct record_buffer *b);

/* Room for `len` bytes behind what is used, which counts as used; NULL: no
 * memory. */
unsigned char *record_room(struct record_buffer *b, size_t len);

/* Appends a record but for its key and its value, for which there is room:
 * *key and *value (NULL: none) are where they belong. SHD_NOMEM. */
int record_begin(struct record_buffer *b, uint32_t kind, const uint64_t *word,
                 uint32_t words, size_t key_len, uint64_t value_len,
                 unsigned char **key, unsigned char **value);

/* A whole one without a value. */
int record_add(struct record_buffer *b, uint32_t kind, const uint64_t *word,
               uint32_t words, const char *name);

static inline uint64_t record_type(uint32_t type, bool used, int32_t flags)
{
    return type | (used ? 256u : 0u) | (uint64_t)(uint32_t)flags << 32;
}

/* Counts it, as both ends do. */
void record_count(struct record_sums *sums, uint32_t kind);

/* ---- reading them ------------------------------------------------------ */

struct record_reader {
    struct file_reader *file;
    struct record_buffer body;
    struct record_sums sums;
    uint64_t records;
    uint32_t object;   /* RECORD_ of the last object; 0: none */
    uint64_t elements; /* that must follow */
    bool ended;
};

void record_reader_begin(struct record_reader *r, struct file_reader *file);

/* The next one: 1, or 0 after the end. SHD_CORRUPT, SHD_NOMEM, SHD_SYS. It is
 * there until the next call. */
int record_next(struct record_reader *r, struct record *record);
void record_reader_end(struct record_reader *r);

/* Reads a whole snapshot that lies in memory, whatever the bytes are: SHD_OK,
 * or an error as of file_reader_begin and record_next. */
int record_scan(const void *bytes, size_t size, struct record_sums *sums);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * snapshot: a file that is restored. The first byte chooses what the others
 * are: the file as it is; the stream in it, to which the checksums are made;
 * or draws of records, most of which are well formed and some not. It is read,
 * and restored into a segment. What can be restored is sound, and saved,
 * restored and saved again it is the same stream. Whatever the bytes: an
 * answer or a code, and nothing outside of what was given.
 */
#include "fuzz/file.h"
#include "fuzz/workers.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/ipc/queue.h"
#include "shm/ipc/topic.h"
#include "shm/keep/record.h"
#include "shm/keep/restore.h"

#define RECORDS_MAX 300u
#define STREAM_MAX (1u << 20)
/* Of what is made as the file says, by the public call. */
#define SIZE_MAX_MADE (8ull << 20)
#define COUNT_MAX_MADE 200u

static const uint8_t *data;
static size_t left;
static shd_segment *segments[2];
static int file = -1, file_again = -1;
static struct record_buffer stream, bytes, again[2];

static uint64_t draw(uint64_t below)
{
    uint64_t z = 0;

    for (uint64_t n = below - 1; n > 0 && left > 0; n >>= 8) {
        z = z << 8 | *data++;
        left--;
    }
    return z % below;
}

static _Noreturn void fail(const char *what, const char *more)
{
    fprintf(stderr, "snapshot: %s: %s (%s)\n", what, more, shd_last_error());
    abort();
}

static void must(int rc, const char *what)
{
    if (rc != SHD_OK)
        fail(what, shd_strerror_name(rc));
}

static void build(void)
{
    const struct shd_segment_options o = {.struct_size = sizeof(o),
                                          .size_bytes = 600 << 10,
                                          .workers_max = 4,
                                          .objects_max = 10,
                                          .locks_max = 20,
                                          .wait_ms = 10};

    for (int i = 0; i < 2; i++) {
        workers_build();
        must(shd_segment_create(NULL, &o, &segments[i]), "create");
        segments[i]->segment.hash_seed = 7;
        segment_header(&segments[i]->segment)->hash_seed = 7;
        must(shd_worker_join(segments[i], NULL), "join");
        workers_keep(segments[i]);
    }
    file = memfd_create("snapshot", MFD_CLOEXEC);
    file_again = memfd_create("saved", MFD_CLOEXEC);
    if (file < 0 || file_again < 0)
        abort();
}

/* ---- records ----------------------------------------------------------------- */

static uint64_t wild(uint64_t plausible)
{
    static const uint64_t WORDS[] = {
        0,          1,           2,           63,          64,
        4095,       8192,        65535,       65536,       UINT32_MAX,
        1ull << 32, 1ull << 33,  1ull << 36,  1ull << 37,  1ull << 56,
        1ull << 62, 1ull << 63,  INT64_MAX,   UINT64_MAX,  UINT64_MAX - 15};
    const uint64_t count = sizeof(WORDS) / sizeof(WORDS[0]);
    uint64_t how = draw(48);

    if (how < 46)
        return plausible;
    return how == 46 ? WORDS[draw(count)] : draw(UINT64_MAX);
}

static const char *some_name(void)
{
    static const char *const NAMES[] = {"a", "b", "c", "d", "e", "f", "",
                                        "a name that is longer than the rest",
                                        "no/name"};
    uint64_t n = draw(32);

    return NAMES[n < 28 ? n % 6 : 6 + n % 3];
}

static uint64_t some_time(void)
{
    /* The clocks stand still at 1000000.5 s. */
    return draw(2) == 0 ? 0 : wild(1000000500 + draw(100000) - 3000);
}

static void add(uint32_t kind, uint64_t *word, uint32_t words, const void *key,
                size_t key_len, uint64_t value_len)
{
    unsigned char *k, *v;
    uint64_t n;

    if (draw(40) == 39) /* a word less; or one that nobody knows */
        words = draw(2) != 0 && words > 0 ? words - 1 : words + 1;
    word[words < RECORD_WORDS_MAX ? words : RECORD_WORDS_MAX] = 0;
    must(record_begin(&stream, kind, word, words, key_len, value_len, &k, &v),
         "record_begin");
    if (key_len > 0)
        memcpy(k, key, key_len);
    n = draw(256);
    for (uint64_t i = 0; i < value_len; i++)
        v[i] = (unsigned char)(n + i * 7);
    if (draw(100) == 99) /* it has not so many */
        file_put(v - key_len - words * 8 - 8, wild(value_len + 1), 8);
}

static void add_named(uint32_t kind, uint64_t *word, uint32_t words)
{
    const char *name = some_name();

    add(kind, word, words, name, strlen(name), 0);
}

static uint64_t some_len(void)
{
    switch (draw(5)) {
    case 0: return 0;
    case 1: return draw(40);
    case 2: return draw(400);
    case 3: return draw(5000);
    default: return draw(8) == 0 ? draw(70000) : 8;
    }
}

static uint64_t value_of(uint64_t *type)
{
    *type = draw(8) < 5 ? SHD_STRING : 1 + draw(5);
    return *type == SHD_STRING || draw(32) == 31 ? some_len() : 8;
}

static size_t some_key(unsigned char *key)
{
    uint64_t n = draw(64);
    size_t len = n == 63 ? draw(66000) % 65536 : n == 62 ? 0 : 1 + n % 9;

    memset(key, (int)('a' + n % 26), len);
    return len;
}

static void add_list(void)
{
    static unsigned char key[65536];
    uint64_t n = 1 + draw(12), word[RECORD_WORDS_MAX + 2] = {0}, type;
    uint64_t flags = draw(4) == 0 ? 256 : 0;
    size_t len = some_key(key);

    word[0] = wild(SHD_LIST | flags);
    word[1] = some_time();
    word[2] = wild(n);
    add(RECORD_LIST, word, 3, key, len, 0);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t value = value_of(&type);

        word[0] = wild(type);
        add(RECORD_ELEMENT, word, 1, NULL, 0, value);
    }
}

static void add_entry(void)
{
    static unsigned char key[65536];
    uint64_t word[RECORD_WORDS_MAX + 2] = {0}, type;
    size_t len = some_key(key);
    uint64_t value = value_of(&type);

    word[0] = wild(type | (draw(2) << 8) | draw(256) << 32);
    word[1] = some_time();
    add(RECORD_ENTRY, word, 2, key, len, value);
}

static void add_dict(void)
{
    uint64_t word[RECORD_WORDS_MAX + 2] = {0};

    word[0] = wild(8192 + draw(100) * 1000);
    word[1] = wild(word[0] + draw(60) * 1000);
    word[2] = wild(1ull << draw(4));
    word[3] = wild(draw(200));
    add_named(RECORD_DICT, word, 4);
}

static void add_queue(void)
{
    uint64_t word[RECORD_WORDS_MAX + 2] = {0};

    word[0] = wild(draw(100) * 1000);
    word[1] = wild(draw(6) == 0 ? draw(70000) : 0);
    word[2] = wild(draw(300));
    word[3] = wild(draw(3000));
    word[4] = wild(draw(4));
    word[5] = wild(100 + draw(1000));
    add_named(RECORD_QUEUE, word, 6);
}

static void add_message(void)
{
    uint64_t word[RECORD_WORDS_MAX + 2] = {0};

    word[0] = wild(QUEUE_READY + draw(5));
    word[1] = wild(draw(5));
    word[2] = wild(draw(1200));
    word[3] = some_time();
    word[4] = some_time();
    add(RECORD_MESSAGE, word, 5, NULL, 0, some_len());
}

static uint64_t event; /* the number that comes next */

static void add_topic(void)
{
    uint64_t word[RECORD_WORDS_MAX + 2] = {0};

    word[0] = wild(64 * (16 + draw(400)));
    word[1] = wild(draw(2));
    word[2] = wild(draw(9));
    word[3] = wild(TOPIC_UNIT * draw(1000));
    word[4] = event = wild(1 + draw(1000));
    add_named(RECORD_TOPIC, word, 5);
}

static void add_event(void)
{
    uint64_t word[RECORD_WORDS_MAX + 2] = {0};

    word[0] = wild(event++);
    add(RECORD_EVENT, word, 1, NULL, 0, some_len());
}

static void add_cursor(void)
{
    uint64_t word[RECORD_WORDS_MAX + 2] = {0};

    word[0] = wild(TOPIC_UNIT * draw(1200));
    word[1] = wild(draw(1200));
    add_named(RECORD_CURSOR, word, 2);
}

static void add_lock(void)
{
    uint64_t word[RECORD_WORDS_MAX + 2] = {0};

    word[0] = wild(draw(8) == 7 ? draw(16) : SHD_OBJECT_LOCK + draw(3));
    word[1] = wild(draw(2) == 0 ? 1 : 1 + draw(9));
    word[2] = wild(draw(9));
    word[3] = wild(draw(5000));
    add_named(RECORD_LOCK, word, 4);
}

static void add_mailbox(void)
{
    uint64_t word[RECORD_WORDS_MAX + 2] = {0};

    word[0] = wild(draw(100) * 1000);
    word[1] = wild(draw(6) == 0 ? draw(70000) : 0);
    word[2] = wild(draw(6) == 0 ? draw(70000) : 0);
    add_named(RECORD_MAILBOX, word, 3);
}

static void add_odd(void)
{
    uint64_t word[RECORD_WORDS_MAX + 2] = {0};
    uint32_t kind = (uint32_t)draw(20);

    for (uint32_t i = 0; i < RECORD_WORDS_MAX; i++)
        word[i] = wild(draw(300));
    add(kind, word, (uint32_t)draw(RECORD_WORDS_MAX + 1), "odd", draw(4),
        draw(20));
}

static void add_segment(void)
{
    uint64_t word[RECORD_WORDS_MAX + 2] = {
        7, wild(300 << 10), wild(4), wild(4 + draw(20)), wild(8 + draw(60)),
        wild(0600)};

    add(RECORD_SEGMENT, word, 6, "", 0, 0);
}

static void (*const ADD[16])(void) = {
    add_dict,    add_entry, add_entry,  add_list,   add_entry, add_queue,
    add_message, add_topic, add_event,  add_cursor, add_lock,  add_mailbox,
    add_message, add_event, add_odd,    NULL};

/* What there is of each kind, as both ends count it. */
static void add_end(void)
{
    uint64_t word[RECORD_WORDS_MAX + 2];
    struct record_sums sums = {0};
    size_t at = 0;

    while (at + RECORD_HEAD_BYTES <= stream.used) {
        const unsigned char *head = stream.bytes + at;

        record_count(&sums, head[0]);
        at += RECORD_HEAD_BYTES + head[1] * 8 + file_get(head + 2, 2);
        if (file_get(head + 4, 8) > stream.used)
            break;
        at += file_get(head + 4, 8);
    }
    word[0] = wild(sums.objects);
    word[1] = sums.entries;
    word[2] = sums.elements;
    word[3] = sums.messages;
    word[4] = sums.events;
    add(RECORD_END, word, 5, NULL, 0, 0);
}

static void draw_stream(void)
{
    uint64_t word[RECORD_WORDS_MAX + 2] = {0};

    event = 1;
    add_segment();
    for (uint32_t i = 0; i < RECORDS_MAX && left > 0 &&
                         stream.used < STREAM_MAX;
         i++) {
        void (*one)(void) = ADD[draw(16)];

        if (one != NULL)
            one();
        else if (draw(2) == 0)
            add(RECORD_DROP, word, 0, NULL, 0, 0);
        else
            add_segment();
    }
    add_end();
}

/* ---- a file ------------------------------------------------------------------ */

static void put_file(int fd, const void *from, size_t len)
{
    if (ftruncate(fd, 0) != 0 ||
        pwrite(fd, from, len, 0) != (ssize_t)len || lseek(fd, 0, SEEK_SET) != 0)
        abort();
}

/* ---- restoring it ------------------------------------------------------------ */

static int check_code(int rc, const char *what)
{
    if (rc > 0 || rc < SHD_ERROR_LAST_)
        fail(what, "no code");
    return rc;
}

/* Into a segment that is there already. */
static int restore_into_one(int fd, int n, bool frozen, struct restore *r)
{
    char path[24];
    int rc;

    workers_begin(segments[n]);
    if (lseek(fd, 0, SEEK_SET) != 0)
        abort();
    snprintf(path, sizeof(path), "fd:%d", fd);
    rc = restore_begin(r, path, frozen);
    if (rc == SHD_OK) {
        restore_into(r, &segments[n]->env);
        do {
            rc = restore_step(r);
        } while (rc == 1);
    }
    restore_end(r);
    return check_code(rc, "restore");
}

/* The stream of the segment as it is now. */
static void save(int n, int fd, struct record_buffer *to)
{
    char path[24];
    off_t size;

    snprintf(path, sizeof(path), "fd:%d", fd);
    if (ftruncate(fd, 0) != 0 || lseek(fd, 0, SEEK_SET) != 0)
        abort();
    must(shd_segment_save(segments[n], path, NULL, NULL), "save");
    size = lseek(fd, 0, SEEK_END);
    to->used = 0;
    if (size < (off_t)FILE_HEADER_BYTES ||
        record_room(to, (size_t)size) == NULL ||
        pread(fd, to->bytes, (size_t)size, 0) != (ssize_t)size)
        abort();
    /* What is another in each file. */
    memset(to->bytes, 0, FILE_HEADER_BYTES);
    for (size_t at = FILE_HEADER_BYTES; at < to->used;
         at += FILE_BLOCK_HEAD_BYTES + FILE_BLOCK_MAX)
        memset(to->bytes + at, 0, 8);
}

/* How many entries a dict was made for comes from its index, rounded, and may
 * be less each time. Of a stream in one block. Returns whether a dict has few
 * pages: cut up in another way they may hold an entry less. */
static bool forget_hints(struct record_buffer *b)
{
    size_t at = FILE_HEADER_BYTES + FILE_BLOCK_HEAD_BYTES;
    bool tight = false;

    while (b->used <= at + FILE_BLOCK_MAX &&
           at + RECORD_HEAD_BYTES + 32 <= b->used) {
        unsigned char *head = b->bytes + at;

        if (head[0] == RECORD_DICT) {
            memset(head + RECORD_HEAD_BYTES + 24, 0, 8);
            tight = tight || file_get(head + RECORD_HEAD_BYTES, 8) <= 64 << 10;
        }
        at += RECORD_HEAD_BYTES + head[1] * 8 + file_get(head + 2, 2) +
              file_get(head + 4, 8);
    }
    return tight;
}

static void same_again(struct restore *r)
{
    char report[300] = "";
    bool tight;

    if (shd_segment_check(segments[0], report, sizeof(report)) != SHD_OK)
        fail("what was restored", report);
    save(0, file_again, &again[0]);
    must(restore_into_one(file_again, 1, true, r), "what was saved");
    tight = forget_hints(&again[0]);
    if ((r->evicted != 0 && !tight) || r->expired != 0)
        fail("what was saved", "has no room, or time, a second time");
    if (shd_segment_check(segments[1], report, sizeof(report)) != SHD_OK)
        fail("what was restored twice", report);
    save(1, file_again, &again[1]);
    (void)forget_hints(&again[1]);
    if (r->evicted != 0)
        return;
    if (again[0].used != again[1].used ||
        memcmp(again[0].bytes, again[1].bytes, again[0].used) != 0)
        fail("restored and saved", "is another");
}

/* By the public call, which makes the segment that the file speaks of. */
static void restore_whole(uint32_t flags)
{
    struct shd_restore_options o = {.struct_size = sizeof(o), .flags = flags};
    struct shd_keep_info info = {.struct_size = sizeof(info)};
    char path[24], name[60];
    shd_segment *s = NULL;
    struct record_sums sums;
    int rc;

    snprintf(path, sizeof(path), "fd:%d", file);
    snprintf(name, sizeof(name), "fuzz-%d", (int)getpid());
    if (lseek(file, 0, SEEK_SET) != 0)
        abort();
    rc = shd_segment_restore(path, name, &o, &info, &s);
    (void)check_code(rc, "shd_segment_restore");
    if ((s != NULL) != (rc == SHD_OK && (flags & SHD_RESTORE_VERIFY) == 0))
        fail("shd_segment_restore", "a segment");
    if (rc == SHD_OK && (record_scan(bytes.bytes, bytes.used, &sums) != SHD_OK ||
                         sums.entries != info.entries))
        fail("shd_segment_restore", "counts other entries");
    if (s == NULL)
        return;
    (void)shd_segment_close(s);
    must(shd_segment_destroy(name), "destroy");
}

/* It makes what can be made in a moment. */
static bool is_small(void)
{
    const unsigned char *w =
        bytes.bytes + FILE_HEADER_BYTES + FILE_BLOCK_HEAD_BYTES +
        RECORD_HEAD_BYTES;

    return bytes.used > (size_t)(w + 48 - bytes.bytes) &&
           file_get(w + 8, 8) <= SIZE_MAX_MADE &&
           file_get(w + 16, 8) <= COUNT_MAX_MADE &&
           file_get(w + 24, 8) <= COUNT_MAX_MADE &&
           file_get(w + 32, 8) <= COUNT_MAX_MADE;
}

/* The planted mistake: where the last value ends is where the file says. */
static void believe(const struct record_sums *sums)
{
    unsigned char *copy = malloc(bytes.used);

    if (copy == NULL)
        abort();
    memcpy(copy, bytes.bytes, bytes.used);
    if (sums->entries > 2)
        copy[bytes.used + sums->entries] = 1;
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static struct restore r;
    struct record_sums sums;
    uint8_t how;
    int rc, scanned;

    if (size < 1)
        return 0;
    if (segments[0] == NULL)
        build();
    how = input[0];
    data = input + 1;
    left = size - 1;
    stream.used = bytes.used = 0;
    workers_begin(segments[0]);
    if ((how & 3) == 0) {
        file_append(&bytes, data, left);
    } else if ((how & 3) == 1) {
        file_around(&bytes, data, left,
                    (how & 8) != 0 ? 100 : FILE_BLOCK_MAX);
    } else {
        draw_stream();
        file_around(&bytes, stream.bytes, stream.used,
                    (how & 8) != 0 ? 1000 : FILE_BLOCK_MAX);
    }
    scanned = check_code(record_scan(bytes.bytes, bytes.used, &sums), "scan");
    put_file(file, bytes.bytes, bytes.used);
    rc = restore_into_one(file, 0, (how & 4) != 0, &r);
    if (rc == SHD_OK && scanned != SHD_OK)
        fail("restored", "cannot be read");
    if (fuzz_planted() && scanned == SHD_OK)
        believe(&sums);
    if (rc == SHD_OK)
        same_again(&r);
    workers_end();
    if ((how & 0xf8) == 0xf8)
        restore_whole(SHD_RESTORE_VERIFY);
    else if ((how & 0xf8) == 0 && is_small())
        restore_whole((how & 4) != 0 ? SHD_RESTORE_FREEZE : 0);
    return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * command: a command line of `shdict`, run as it is by users on a segment with
 * an object of each kind. A line of the input is a word; bytes below ' ' stand
 * for what is known of the table of verbs:
 *   \1 N  the verb number N        \2 N  one of its options, with "--"
 *   \3 N  its letter, with "-"     \4 N  a word that means something here
 * and what follows an empty line is the standard input. It may end with any of
 * the exit codes of the manual page; the segment is sound afterwards.
 */
#include "fuzz/cli.h"
#include "fuzz/workers.h"
#include "tools/cli/cli.h"

#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 16
#define WORD_MAX 300

static shd_segment *segment;
static char name[24];

static const char *const KNOWN[] = {
    name,   "d",    "q",    "t",     "lock", "sem",  "key",   "list",
    "n",    "0",    "1",    "-1",    "1e309", "64k",  "0.001", "nan",
    "8192", "4294967296", "18446744073709551616", "./s",  "*", "--",
    "9999999999999999999g", "\xff\xfe\\x", "[", "k=1,2", "127.0.0.1:0", "=",
};

static void must(int rc)
{
    if (rc != SHD_OK)
        abort();
}

static void build(void)
{
    const struct shd_segment_options o = {.struct_size = sizeof(o),
                                          .size_bytes = 1200 << 10,
                                          .workers_max = 8,
                                          .objects_max = 12,
                                          .locks_max = 16};
    const struct shd_dict_options d = {.struct_size = sizeof(d),
                                       .capacity_bytes = 64 << 10,
                                       .capacity_max_bytes = 128 << 10};
    const struct shd_queue_options q = {.struct_size = sizeof(q),
                                        .capacity_bytes = 16 << 10,
                                        .deliveries_max = 1};
    const struct shd_topic_options t = {.struct_size = sizeof(t),
                                        .flags = SHD_TOPIC_CREATE,
                                        .capacity_bytes = 8 << 10,
                                        .subscribers_max = 4};
    const struct shd_lock_options l = {.struct_size = sizeof(l),
                                       .flags = SHD_LOCK_CREATE,
                                       .waiters_max = 4};
    struct shd_lock_options s = l;
    shd_dict *dict;
    shd_queue *queue;
    shd_topic *topic;
    shd_lock *lock;
    struct shd_message m;
    struct shd_grant g;
    char buffer[64];
    uint64_t n;

    workers_build();
    must(shd_segment_create(NULL, &o, &segment));
    segment->segment.hash_seed = 7;
    segment_header(&segment->segment)->hash_seed = 7;
    snprintf(name, sizeof(name), "fd:%d", segment->segment.fd);
    must(shd_dict_open(segment, "d", &d, &dict));
    must(shd_set(dict, "key", 3, "value\n\x1b[2J", 10, 0));
    must(shd_set(dict, "soon", 4, "gone", 4, 5000));
    must(shd_store(dict, SHD_SET, "n", 1, SHD_NUMBER, NULL, 0, 1.5, 0, 7,
                   NULL));
    must(shd_push(dict, 0, "list", 4, SHD_STRING, "a", 1, 0, &n));
    must(shd_push(dict, 0, "list", 4, SHD_NUMBER, NULL, 0, 2, &n));
    must(shd_queue_open(segment, "q", &q, &queue));
    must(shd_queue_push(queue, "dead", 4, 0, 0, &n));
    must(shd_queue_take(queue, buffer, sizeof(buffer), 0, &m));
    must(shd_queue_nack(queue, m.lease, 0));
    must(shd_queue_push(queue, "job", 3, 0, 0, &n));
    must(shd_queue_push(queue, "later", 5, 9000, 0, &n));
    must(shd_topic_open(segment, "t", &t, &topic));
    must(shd_topic_publish(topic, "news", 4, 0, &n));
    must(shd_lock_open(segment, "lock", SHD_OBJECT_LOCK, &l, &lock));
    must(shd_lock_acquire(lock, 0, 0, &g));
    s.permits = 3;
    must(shd_lock_open(segment, "sem", SHD_OBJECT_SEMAPHORE, &s, &lock));
    workers_keep(segment);
    cli_holds(segment);
}

/* ---- words ------------------------------------------------------------------- */

static const struct cli_verb *verb;

static size_t known(uint8_t kind, uint8_t n, char *to)
{
    const struct cli_verb *const *verbs = cli_verbs();
    const struct cli_option *o;
    unsigned count = 0;

    switch (kind) {
    case 1:
        while (verbs[count] != NULL)
            count++;
        verb = verbs[n % count];
        return (size_t)snprintf(to, WORD_MAX, "%s", verb->name);
    case 2:
    case 3:
        if (verb == NULL || verb->options == NULL)
            return 0;
        while (verb->options[count].name != NULL)
            count++;
        if (n % (count + 1) == count)
            return (size_t)snprintf(to, WORD_MAX, "--json");
        o = &verb->options[n % (count + 1)];
        return kind == 2 || o->letter == 0
                   ? (size_t)snprintf(to, WORD_MAX, "--%s", o->name)
                   : (size_t)snprintf(to, WORD_MAX, "-%c", o->letter);
    default:
        return (size_t)snprintf(to, WORD_MAX, "%s",
                                KNOWN[n % (sizeof(KNOWN) / sizeof(KNOWN[0]))]);
    }
}

/* The next word; false: there is none. */
static bool next_word(const uint8_t **data, size_t *left, char *to)
{
    size_t len = 0;

    while (*left > 0 && **data != '\n') {
        uint8_t c = *(*data)++;

        (*left)--;
        if (c >= 1 && c <= 4 && *left > 0) {
            if (len < WORD_MAX / 2)
                len += known(c, **data, to + len);
            (*data)++;
            (*left)--;
        } else if (c != 0 && len < WORD_MAX - 1) {
            to[len++] = (char)c;
        }
    }
    if (*left > 0) {
        (*data)++;
        (*left)--;
    }
    to[len] = '\0';
    return len > 0;
}

/* Those stay, or want threads and a terminal; what they read of their command
 * line before is tested in tests/cli. */
static bool is_left_out(const char *word)
{
    static const char *const NAMES[] = {"supervise", "sidecar", "top"};

    for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++) {
        if (strcmp(word, NAMES[i]) == 0)
            return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char words[WORDS_MAX][WORD_MAX];
    char program[] = "shdict", *argv[WORDS_MAX + 2] = {program};
    char *out = NULL, report[300] = "";
    size_t out_len = 0;
    int argc = 1, rc;

    if (segment == NULL)
        build();
    verb = NULL;
    while (argc <= WORDS_MAX && next_word(&data, &size, words[argc - 1])) {
        argv[argc] = words[argc - 1];
        argc++;
    }
    if (argc > 1 && is_left_out(argv[1]))
        return 0;
    workers_begin(segment);
    /* The command is another process than the one that filled it. */
    workers_become(1);
    rc = cli_run(argc, argv, data, size, &out, &out_len);
    if (rc < CLI_YES || rc > CLI_FAILED) {
        fprintf(stderr, "command: exit %d\n", rc);
        abort();
    }
    if (fuzz_planted() && argc > 3 && rc == CLI_YES)
        argv[3][WORD_MAX * WORDS_MAX] = '\0';
    free(out);
    if (workers_changed() &&
        shd_segment_check(segment, report, sizeof(report)) != SHD_OK) {
        fprintf(stderr, "command: check: %s\n", report);
        abort();
    }
    workers_end();
    return 0;
}

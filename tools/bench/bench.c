/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * shdict-bench - what an operation costs, beside what the machine's floor
 * costs, in one run.
 *
 * The floor is an uncontended lock + unlock of a robust process-shared mutex:
 * what any design with a lock pays before it does anything. Everything is
 * given as ns and as a multiple of it. Rounds are interleaved, and the
 * median round counts, so that a noisy moment does not decide.
 */
#include <getopt.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/shdict.h"
#include "tools/bench/collide.h"

#define ROUNDS_MAX 99
#define BATCH 20000
#define VALUE_BYTES 32
/* Keys of one shd_get_multi or shd_set_multi. */
#define MULTI 32

struct bench {
    shd_dict *dict;
    uint32_t keys;
    uint64_t random;
    pthread_mutex_t *mutex;
    char value[VALUE_BYTES];
};

static void die(const char *what, int rc)
{
    fprintf(stderr, "shdict-bench: %s: %s (%s)\n", what, shd_strerror(rc),
            shd_last_error());
    exit(1);
}

static double clock_ns(clockid_t clock)
{
    struct timespec t;

    if (clock_gettime(clock, &t) != 0) {
        perror("clock_gettime");
        exit(1);
    }
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* xorshift64*: any key as likely as any other. */
static uint32_t pick(struct bench *b)
{
    b->random ^= b->random >> 12;
    b->random ^= b->random << 25;
    b->random ^= b->random >> 27;
    return (uint32_t)((b->random * 0x2545f4914f6cdd1dull >> 32) * b->keys >>
                      32);
}

/* "key:N" without printf, which would cost more than what is measured. */
static size_t make_key(char *to, uint32_t n)
{
    char digits[10];
    size_t d = 0, len = 4;

    memcpy(to, "key:", 4);
    do {
        digits[d++] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    while (d > 0)
        to[len++] = digits[--d];
    return len;
}

static void run_nothing(struct bench *b)
{
    char key[16];
    volatile size_t sink = 0;

    for (int i = 0; i < BATCH; i++)
        sink += make_key(key, pick(b));
}

static void run_lock(struct bench *b)
{
    for (int i = 0; i < BATCH; i++) {
        if (pthread_mutex_lock(b->mutex) != 0 ||
            pthread_mutex_unlock(b->mutex) != 0)
            exit(1);
    }
}

static void one_get(struct bench *b)
{
    char key[16], buf[VALUE_BYTES];
    struct shd_value v;
    size_t len = make_key(key, pick(b));
    int rc = shd_get(b->dict, key, len, buf, sizeof(buf), &v);

    if (rc != SHD_OK)
        die("get", rc);
}

static void one_set(struct bench *b)
{
    char key[16];
    size_t len = make_key(key, pick(b));
    int rc = shd_set(b->dict, key, len, b->value, VALUE_BYTES, 0);

    if (rc != SHD_OK)
        die("set", rc);
}

static void run_get(struct bench *b)
{
    for (int i = 0; i < BATCH; i++)
        one_get(b);
}

static void run_set(struct bench *b)
{
    for (int i = 0; i < BATCH; i++)
        one_set(b);
}

struct multi {
    char text[MULTI][16], bytes[MULTI * VALUE_BYTES];
    const void *keys[MULTI], *from[MULTI];
    size_t lens[MULTI], at[MULTI];
    struct shd_value values[MULTI];
    int32_t codes[MULTI];
};

static void pick_many(struct bench *b, struct multi *m)
{
    for (int i = 0; i < MULTI; i++) {
        m->lens[i] = make_key(m->text[i], pick(b));
        m->keys[i] = m->text[i];
    }
}

static void run_get_multi(struct bench *b)
{
    struct multi m;

    for (int i = 0; i < BATCH / MULTI; i++) {
        pick_many(b, &m);
        int rc = shd_get_multi(b->dict, MULTI, m.keys, m.lens, m.bytes,
                               sizeof(m.bytes), m.values, m.at, m.codes);

        if (rc != SHD_OK || m.codes[MULTI - 1] != SHD_OK)
            die("get_multi", rc);
    }
}

static void run_set_multi(struct bench *b)
{
    struct multi m;

    for (int i = 0; i < MULTI; i++) {
        m.values[i] =
            (struct shd_value){.type = SHD_STRING, .len = VALUE_BYTES};
        m.from[i] = b->value;
    }
    for (int i = 0; i < BATCH / MULTI; i++) {
        pick_many(b, &m);
        int rc = shd_set_multi(b->dict, SHD_SET, MULTI, m.keys, m.lens,
                               m.values, m.from, m.codes, NULL);

        if (rc != SHD_OK)
            die("set_multi", rc);
    }
}

static void run_cas(struct bench *b)
{
    double sum;
    int rc = shd_incr(b->dict, "cas", 3, 0, 1, 0, 0, &sum, NULL);

    for (int i = 0; rc == SHD_OK && i < BATCH; i++, sum++)
        rc = shd_cas(b->dict, "cas", 3, SHD_NUMBER, NULL, 0, sum, SHD_NUMBER,
                     NULL, 0, sum + 1, 0, 0, NULL);
    if (rc != SHD_OK)
        die("cas", rc);
}

static void run_mixed(struct bench *b)
{
    for (int i = 0; i < BATCH; i++) {
        if (i % 20 == 0)
            one_set(b);
        else
            one_get(b);
    }
}

static void run_incr(struct bench *b)
{
    double sum;

    for (int i = 0; i < BATCH; i++) {
        int rc = shd_incr(b->dict, "counter", 7, 1, 1, 0, 0, &sum, NULL);

        if (rc != SHD_OK)
            die("incr", rc);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

struct line {
    const char *name;
    void (*run)(struct bench *b);
    uint32_t keys;
    int key_cost; /* subtract what making a key costs */
    double ns[ROUNDS_MAX];
};

static double median(struct line *l, int rounds)
{
    qsort(l->ns, (size_t)rounds, sizeof(double), by_value);
    return l->ns[rounds / 2];
}

static pthread_mutex_t *make_mutex(void)
{
    pthread_mutexattr_t a;
    pthread_mutex_t *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (m == MAP_FAILED || pthread_mutexattr_init(&a) != 0 ||
        pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED) != 0 ||
        pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST) != 0 ||
        pthread_mutex_init(m, &a) != 0) {
        fprintf(stderr, "shdict-bench: no robust mutex\n");
        exit(1);
    }
    return m;
}

static void fill(shd_dict *dict, uint32_t from, uint32_t to)
{
    static const char value[VALUE_BYTES];

    for (uint32_t i = from; i < to; i++) {
        char key[16];
        size_t len = make_key(key, i);
        int rc = shd_set(dict, key, len, value, VALUE_BYTES, 0);

        if (rc != SHD_OK)
            die("set", rc);
    }
}

static shd_dict *open_dict(shd_segment *s, const char *name, uint64_t bytes,
                           uint64_t most)
{
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = bytes,
                                 .capacity_max_bytes = most};
    shd_dict *dict;
    int rc = shd_dict_open(s, name, &o, &dict);

    if (rc != SHD_OK)
        die(name, rc);
    return dict;
}

static shd_dict *make_dict(shd_segment *s, const char *name, uint32_t keys)
{
    shd_dict *dict =
        open_dict(s, name, 4096ull * 1024 + (uint64_t)keys * 256, 0);

    fill(dict, 0, keys);
    return dict;
}

/* ---- a dict that has grown ---------------------------------------------- */

#define GROWN_KEY_BYTES 160ull

static double resize_ms(shd_dict *dict, uint64_t bytes)
{
    double from = now_ns();
    int rc = shd_dict_resize(dict, bytes);

    if (rc != SHD_OK)
        die("resize", rc);
    return (now_ns() - from) / 1e6;
}

/* ns of a get from the grown dict, and from one that was made as large. */
static void compare_gets(struct bench *grown, struct bench *made, int rounds,
                         double ns[2])
{
    struct line lines[] = {{"", run_nothing, 0, 0, {0}},
                           {"", run_get, 0, 0, {0}},
                           {"", run_get, 0, 0, {0}}};

    for (int r = 0; r < rounds; r++) {
        for (int i = 0; i < 3; i++) {
            double from = now_ns();

            lines[i].run(i == 2 ? made : grown);
            lines[i].ns[r] = (now_ns() - from) / BATCH;
        }
    }
    ns[0] = median(&lines[1], rounds) - median(&lines[0], rounds);
    ns[1] = median(&lines[2], rounds) - median(&lines[0], rounds);
}

/* The index follows the capacity: a get is to be no slower than if the dict had
 * been made so. */
static void print_growth(shd_segment *s, uint32_t keys, int rounds)
{
    uint64_t first = keys / 16 * GROWN_KEY_BYTES;
    struct shd_dict_info before = {.struct_size = sizeof(before)};
    struct shd_dict_info after = before;
    struct bench grown = {.random = 88172645463325252ull};
    double ms = 0;

    grown.dict = open_dict(s, "grown", first, 16 * first);
    printf("%-8s %10s %10s %11s %17s %6s\n", "grown", "keys", "get, ns",
           "resize, ms", "made so: get, ns", "ratio");
    for (uint32_t times = 1; times <= 16; times *= 4) {
        struct bench made = grown;
        char name[16];
        double ns[2];

        if (times > 1)
            ms = resize_ms(grown.dict, first * times);
        fill(grown.dict, grown.keys, keys / 16 * times);
        grown.keys = keys / 16 * times;
        snprintf(name, sizeof(name), "made-%u", times);
        made.dict = open_dict(s, name, first * times, 0);
        made.keys = grown.keys;
        fill(made.dict, 0, made.keys);
        compare_gets(&grown, &made, rounds, ns);
        printf("%2u times %10u %10.1f %11.2f %17.1f %6.2f\n", times,
               grown.keys, ns[0], ms, ns[1], ns[0] / ns[1]);
        if (shd_dict_destroy(s, name) != SHD_OK)
            exit(1);
    }
    if (shd_dict_info(grown.dict, &before) != SHD_OK)
        return;
    ms = resize_ms(grown.dict, first);
    if (shd_dict_info(grown.dict, &after) == SHD_OK)
        printf("\nshrunk to 1x again in %.1f ms: %llu entries evicted, %llu "
               "cells moved, %llu KiB given back\n",
               ms, (unsigned long long)(after.evictions - before.evictions),
               (unsigned long long)(after.moves - before.moves),
               (unsigned long long)(before.pages_committed -
                                    after.pages_committed) *
                   4);
}

/* ns per operation of each of two processes that run at the same time. */
static double two_processes(struct bench *b, int rounds)
{
    struct bench other = *b;
    double from;
    int status;
    pid_t child = fork();

    if (child < 0) {
        perror("fork");
        exit(1);
    }
    other.random += 7777;
    for (int i = 0; child == 0 && i < rounds; i++)
        run_mixed(&other);
    if (child == 0)
        _exit(0);
    from = now_ns();
    for (int i = 0; i < rounds; i++)
        run_mixed(b);
    from = (now_ns() - from) / ((double)rounds * BATCH);
    if (waitpid(child, &status, 0) != child || status != 0)
        exit(1);
    return from;
}

/* ---- where memory comes from ------------------------------------------ */

struct placing {
    const char *name;
    uint32_t flags;
};

static void place_one(const struct placing *p, uint32_t keys, int rounds)
{
    struct shd_segment_options so = {.struct_size = sizeof(so),
                                     .flags = p->flags};
    struct shd_segment_info i = {.struct_size = sizeof(i)};
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = (uint64_t)keys * 128};
    struct bench b = {.keys = keys, .random = 88172645463325252ull};
    double from = now_ns(), opened, filled;
    shd_segment *s;
    int rc = shd_segment_create(NULL, &so, &s);

    if (rc == SHD_OK)
        rc = shd_dict_open(s, "placed", &o, &b.dict);
    opened = now_ns();
    for (uint32_t k = 0; rc == SHD_OK && k < keys; k++) {
        char key[16];
        size_t len = make_key(key, k);

        rc = shd_set(b.dict, key, len, b.value, VALUE_BYTES, 0);
    }
    filled = now_ns();
    if (rc == SHD_OK)
        rc = shd_segment_info(s, &i);
    if (rc != SHD_OK) {
        printf("%-24s %s\n", p->name, shd_last_error());
        return;
    }
    run_get(&b); /* warm */
    double reading = now_ns();
    for (int r = 0; r < rounds; r++)
        run_get(&b);
    reading = (now_ns() - reading) / ((double)rounds * BATCH);
    printf("%-24s %8.2f %14.1f %13.1f %12llu\n", p->name,
           (opened - from) / 1e6, (filled - opened) / keys, reading,
           (unsigned long long)i.huge_bytes >> 20);
    rc = shd_segment_close(s);
    if (rc != SHD_OK)
        die("close", rc);
}

static int place(uint32_t keys, int rounds)
{
    static const struct placing all[] = {
        {"nothing asked for", 0},
        {"prefault", SHD_PREFAULT},
        {"huge pages", SHD_HUGE_PAGES},
        {"huge pages, prefault", SHD_HUGE_PAGES | SHD_PREFAULT},
        {"interleave", SHD_INTERLEAVE}};

    printf("%u keys, values of %d bytes\n\n%-24s %8s %14s %13s %12s\n", keys,
           VALUE_BYTES, "", "open, ms", "first set, ns", "get, ns",
           "huge, MiB");
    for (int twice = 0; twice < 2; twice++)
        for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
            place_one(&all[i], keys, rounds);
    return 0;
}

/* ---- keys of one hash --------------------------------------------------- */

/* ns of a set, or of a get, of each of so many keys. */
static double each_key(shd_dict *dict, uint64_t seed, uint32_t keys, bool evil,
                       bool store)
{
    static char value[VALUE_BYTES];
    unsigned char key[COLLIDE_BYTES];
    struct shd_value v;
    double from = now_ns();

    for (uint32_t i = 0; i < keys; i++) {
        uint64_t n = i * 0x9e3779b97f4a7c15ull;
        int rc;

        collide_key(key, seed, n);
        /* The same bytes but one, which no longer make a factor 0. */
        key[0] ^= evil ? 0 : 1;
        rc = store ? shd_set(dict, key, sizeof(key), value, VALUE_BYTES, 0)
                   : shd_get(dict, key, sizeof(key), value, VALUE_BYTES, &v);
        if (rc != SHD_OK)
            die("a key of the attack", rc);
    }
    return (now_ns() - from) / keys;
}

/* ---- what finds a host that scribbles ----------------------------------- */

struct watched {
    const char *name;
    uint32_t flags;
    const char *way; /* SHDICT_WRITE_PROTECT */
    uint32_t got;    /* SHD_PROTECT_ */
    int ask, told;   /* pipes to its process */
    struct line lines[4];
};

/* A process of its own, for what is asked for is so for all of it: runs the
 * line that it is told to, and says how long that took. */
static void be_watched(struct watched *w, int ask, int tell)
{
    static void (*const runs[])(struct bench *) = {run_nothing, run_get,
                                                   run_set, run_incr};
    struct shd_segment_options so = {.struct_size = sizeof(so),
                                     .flags = w->flags};
    struct shd_segment_info i = {.struct_size = sizeof(i)};
    struct bench b = {.keys = 1000, .random = 88172645463325252ull};
    unsigned char line;
    shd_segment *s;
    int rc;

    if (setenv("SHDICT_WRITE_PROTECT", w->way, 1) != 0)
        exit(1);
    rc = shd_segment_create(NULL, &so, &s);
    if (rc == SHD_OK)
        rc = shd_segment_info(s, &i);
    if (rc != SHD_OK)
        die(w->name, rc);
    b.dict = make_dict(s, "watched", b.keys);
    for (line = 0; line < 4; line++)
        runs[line](&b); /* warm */
    if (write(tell, &i.write_protect, sizeof(i.write_protect)) < 0)
        exit(1);
    while (read(ask, &line, 1) == 1) {
        /* Of the processor: a batch with system calls takes so long that
         * others run in between. */
        double from = clock_ns(CLOCK_PROCESS_CPUTIME_ID);

        runs[line](&b);
        from = (clock_ns(CLOCK_PROCESS_CPUTIME_ID) - from) / BATCH;
        if (write(tell, &from, sizeof(from)) < 0)
            exit(1);
    }
    exit(0);
}

static void start_watched(struct watched *w)
{
    int ask[2], tell[2];

    if (pipe(ask) != 0 || pipe(tell) != 0) {
        perror("pipe");
        exit(1);
    }
    pid_t child = fork();

    if (child < 0) {
        perror("fork");
        exit(1);
    }
    if (child == 0) {
        (void)close(ask[1]);
        be_watched(w, ask[0], tell[1]);
    }
    (void)close(ask[0]);
    (void)close(tell[1]);
    w->ask = ask[1];
    w->told = tell[0];
    if (read(w->told, &w->got, sizeof(w->got)) != sizeof(w->got))
        exit(1);
}

static const char *what_got(const struct watched *w)
{
    return w->got == SHD_PROTECT_KEYS    ? "keys"
           : w->got == SHD_PROTECT_PAGES ? "mprotect"
                                         : "-";
}

/* One after the other in each round, each in its process. */
static int print_watched(int rounds)
{
    static struct watched all[] = {
        {.name = "nothing asked for", .way = "0"},
        {.name = "guard pages", .flags = SHD_GUARD_PAGES, .way = "0"},
        {.name = "write protection", .way = "1"},
        {.name = "the same, by mprotect", .way = "mprotect"}};
    enum { ALL = sizeof(all) / sizeof(all[0]) };

    for (int i = 0; i < ALL; i++)
        start_watched(&all[i]);
    for (int r = 0; r < rounds; r++) {
        for (int n = 0; n < ALL * 4; n++) {
            struct watched *w = &all[n % ALL];
            unsigned char line = (unsigned char)(n / ALL);

            if (write(w->ask, &line, 1) != 1 ||
                read(w->told, &w->lines[line].ns[r], sizeof(double)) !=
                    sizeof(double))
                exit(1);
        }
    }
    printf("ns of processor time an operation, 1000 keys, one thread\n%-24s %-9s %9s %9s %9s\n",
           "", "got", "get", "set", "incr");
    for (int i = 0; i < ALL; i++) {
        double nothing = median(&all[i].lines[0], rounds);

        printf("%-24s %-9s %9.1f %9.1f %9.1f\n", all[i].name,
               what_got(&all[i]), median(&all[i].lines[1], rounds) - nothing,
               median(&all[i].lines[2], rounds) - nothing,
               median(&all[i].lines[3], rounds));
        (void)close(all[i].ask);
    }
    return 0;
}

/* What somebody who knows the seed can do. */
static void print_collisions(shd_segment *s, uint32_t most)
{
    struct shd_segment_info info = {.struct_size = sizeof(info)};
    int rc = shd_segment_info(s, &info);

    if (rc != SHD_OK)
        die("segment", rc);
    printf("ns an operation; keys of one hash, made by somebody who knows the "
           "seed\n%-10s %12s %12s %12s %12s %9s\n",
           "keys", "set, usual", "set, attack", "get, usual", "get, attack",
           "log2 keys");
    for (uint32_t keys = 1000; keys <= most; keys *= 10) {
        double ns[4];
        int log = 0;

        for (int evil = 0; evil < 2; evil++) {
            shd_dict *dict =
                open_dict(s, "attacked", (4ull << 20) + keys * 256ull, 0);

            for (int get = 0; get < 2; get++)
                ns[2 * get + evil] =
                    each_key(dict, info.hash_seed, keys, evil, get == 0);
            if (shd_dict_destroy(s, "attacked") != SHD_OK)
                exit(1);
        }
        while (1u << log < keys)
            log++;
        printf("%-10u %12.0f %12.0f %12.0f %12.0f %9d\n", keys, ns[0], ns[1],
               ns[2], ns[3], log);
    }
}

static void usage(FILE *to)
{
    fputs("usage: shdict-bench [--quick] [--grow] [--placing] [--collisions] "
          "[--protect] [--keys N] [--rounds N]\n"
          "Prints ns per operation, and how many uncontended lock + unlock "
          "pairs that is.\n"
          "  --quick     fewer rounds, and 100k keys instead of 1M\n"
          "  --grow      what a get costs after a dict was resized, beside "
          "one made so\n"
          "  --keys N    that many keys for \"many\" (1000000)\n"
          "  --rounds N  rounds of 20000 operations each (odd, up to 99)\n"
          "  --placing   instead: what prefault, huge pages and interleave "
          "do, all twice\n"
          "  --collisions  instead: keys of one hash, from 1000 to --keys\n"
          "  --protect   instead: what guard pages and write protection "
          "cost\n",
          to);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"quick", no_argument, NULL, 'q'},
        {"grow", no_argument, NULL, 'g'},
        {"keys", required_argument, NULL, 'k'},
        {"rounds", required_argument, NULL, 'r'},
        {"placing", no_argument, NULL, 'p'},
        {"collisions", no_argument, NULL, 'c'},
        {"protect", no_argument, NULL, 'w'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    static struct line lines[] = {
        {"making a key", run_nothing, 1000, 0, {0}},
        {"robust mutex lock + unlock", run_lock, 1000, 0, {0}},
        {"get, few keys", run_get, 1000, 1, {0}},
        {"get, many keys", run_get, 0, 1, {0}},
        {"get_multi of 32, few keys", run_get_multi, 1000, 1, {0}},
        {"get_multi of 32, many keys", run_get_multi, 0, 1, {0}},
        {"set, few keys", run_set, 1000, 1, {0}},
        {"set, many keys", run_set, 0, 1, {0}},
        {"set_multi of 32, few keys", run_set_multi, 1000, 1, {0}},
        {"set_multi of 32, many keys", run_set_multi, 0, 1, {0}},
        {"incr, one counter", run_incr, 1000, 0, {0}},
        {"cas, one counter", run_cas, 1000, 0, {0}}};
    enum { LINES = sizeof(lines) / sizeof(lines[0]) };
    uint32_t many = 1000000;
    int rounds = 51, c, rc;
    bool growth = false;
    bool placing = false;
    bool collisions = false;
    bool protect = false;
    shd_segment *segment;

    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 'q') {
            rounds = 11;
            many = 100000;
        } else if (c == 'g') {
            growth = true;
        } else if (c == 'p') {
            placing = true;
        } else if (c == 'c') {
            collisions = true;
        } else if (c == 'w') {
            protect = true;
        } else if (c == 'r') {
            rounds = atoi(optarg);
        } else if (c == 'k') {
            many = (uint32_t)strtoul(optarg, NULL, 10);
        } else {
            usage(c == 'h' ? stdout : stderr);
            return c == 'h' ? 0 : 2;
        }
    }
    if (optind != argc || many < 1 || rounds < 1 || rounds > ROUNDS_MAX) {
        usage(stderr);
        return 2;
    }
    if (placing)
        return place(many, rounds);
    if (protect)
        return print_watched(rounds);
    rc = shd_segment_create(NULL, NULL, &segment);
    if (rc != SHD_OK)
        die("segment", rc);
    if (collisions) {
        print_collisions(segment, many);
        return 0;
    }
    if (growth) {
        print_growth(segment, many, rounds);
        return 0;
    }

    struct bench few = {.dict = make_dict(segment, "few", 1000),
                        .keys = 1000,
                        .random = 88172645463325252ull,
                        .mutex = make_mutex()};
    struct bench lots = few;

    lots.dict = make_dict(segment, "many", many);
    lots.keys = many;
    for (int r = 0; r < rounds; r++) {
        for (int i = 0; i < LINES; i++) {
            struct bench *b = lines[i].keys == 0 ? &lots : &few;
            double from = now_ns();

            lines[i].run(b);
            lines[i].ns[r] = (now_ns() - from) / BATCH;
        }
    }

    double key = median(&lines[0], rounds);
    double floor = median(&lines[1], rounds);
    double two = two_processes(&few, rounds) - key;

    printf("few = 1000 keys, many = %u keys, values of %d bytes; median of "
           "%d rounds\n\n%-34s %8s %8s\n",
           many, VALUE_BYTES, rounds, "", "ns", "x lock");
    for (int i = 1; i < LINES; i++) {
        double ns = median(&lines[i], rounds) - (lines[i].key_cost ? key : 0);

        printf("%-34s %8.1f %8.2f\n", lines[i].name, ns, ns / floor);
    }
    printf("%-34s %8.1f %8.2f\n", "95% get 5% set, each of 2 processes", two,
           two / floor);
    return 0;
}

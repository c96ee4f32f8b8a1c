/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Elements of lists that are moved, leased and given back by workers that
 * SIGKILL ends at any instruction, and the books.
 *
 * Each element has a number, and bytes that follow from it. Workers move them
 * between lists in all shards, take them on leases, give them back, or are
 * done with one, which they note before and after. Nobody pushes: so at the
 * end, after a reap, each number is in one list once; but those that somebody
 * was done with are in none, and of those that somebody died at, at most in
 * one. Then nothing is leased, and with all lists empty every byte is free.
 * Argument: seconds. Last line: N passed, N failed.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/shdict.h"

#define WORKERS 4u
#define LISTS 40u
#define NUMBERS 3000u
#define LONGEST 12000u
#define HELD_MAX 16u
#define HUNG_S 60

struct books {
    uint8_t begun[NUMBERS]; /* somebody was about to be done with it */
    uint8_t done[NUMBERS];
    uint64_t moved, leased, wrong;
};

static struct books *books;
static shd_segment *segment;
static shd_dict *dict;
static unsigned char text[LONGEST + 8], wanted[LONGEST + 8];
static uint64_t random_state;
static unsigned passed, failures;

static uint64_t below(uint64_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % n;
}

static void say(bool good, const char *what)
{
    printf("  %s %s\n", good ? "ok  " : "FAIL", what);
    passed += good;
    failures += !good;
    fflush(stdout);
}

static void must(int rc, const char *call)
{
    if (rc == SHD_OK)
        return;
    fprintf(stderr, "%s gave %s: %s\n", call, shd_strerror_name(rc),
            shd_last_error());
    exit(1);
}

static size_t length_of(uint32_t number)
{
    uint32_t mixed = number * 2654435761u >> 8;

    return 4 + (number % 50 == 0 ? mixed % LONGEST : mixed % 200);
}

static void fill(unsigned char *to, uint32_t number)
{
    uint64_t r = number | 1;

    memcpy(to, &number, 4);
    for (size_t i = 4; i < length_of(number); i++) {
        r = r * 6364136223846793005ull + 1442695040888963407ull;
        to[i] = (unsigned char)(r >> 56);
    }
}

/* The number of what is in `text`; notes what is no element of ours. */
static uint32_t number_of(const struct shd_value *v)
{
    uint32_t number = NUMBERS;

    if (v->type == SHD_STRING && v->len >= 4)
        memcpy(&number, text, 4);
    if (number < NUMBERS) {
        fill(wanted, number);
        if (v->len == length_of(number) && memcmp(text, wanted, v->len) == 0)
            return number;
    }
    __atomic_add_fetch(&books->wrong, 1, __ATOMIC_RELAXED);
    return 0;
}

static size_t list_name(char *to, size_t size)
{
    return (size_t)snprintf(to, size, "list%u", (unsigned)below(LISTS));
}

/* What may be answered beside others that are killed. */
static bool is_answer(int rc)
{
    return rc == SHD_OK || rc == SHD_NOTFOUND || rc == SHD_BUSY;
}

static void give_up(const char *call, int rc)
{
    if (is_answer(rc))
        return;
    fprintf(stderr, "%s gave %s: %s\n", call, shd_strerror_name(rc),
            shd_last_error());
    _exit(1);
}

static void move(void)
{
    char from[16], to[16];
    size_t from_len = list_name(from, sizeof(from));
    size_t to_len = list_name(to, sizeof(to));
    struct shd_value v;
    int rc = shd_lmove(dict, (int)below(2), from, from_len, (int)below(2), to,
                       to_len, text, LONGEST, &v);

    give_up("shd_lmove", rc);
    if (rc != SHD_OK)
        return;
    (void)number_of(&v);
    __atomic_add_fetch(&books->moved, 1, __ATOMIC_RELAXED);
}

struct held {
    uint64_t lease;
    uint32_t number;
};

static bool take(struct held *h)
{
    char key[16];
    size_t len = list_name(key, sizeof(key));
    struct shd_value v;
    int rc =
        shd_ltake(dict, (int)below(2), key, len, text, LONGEST, &v, &h->lease);

    give_up("shd_ltake", rc);
    if (rc != SHD_OK)
        return false;
    h->number = number_of(&v);
    __atomic_add_fetch(&books->leased, 1, __ATOMIC_RELAXED);
    return true;
}

/* False: it is still held, for the lock was busy. */
static bool finish(const struct held *h)
{
    int rc;

    if (below(100) != 0) {
        rc = shd_lnack(dict, h->lease);
        give_up("shd_lnack", rc);
        return rc == SHD_OK;
    }
    __atomic_store_n(&books->begun[h->number], 1, __ATOMIC_SEQ_CST);
    rc = shd_lack(dict, h->lease);
    give_up("shd_lack", rc);
    if (rc == SHD_OK)
        __atomic_store_n(&books->done[h->number], 1, __ATOMIC_SEQ_CST);
    return rc == SHD_OK;
}

static _Noreturn void work(uint64_t seed)
{
    struct held held[HELD_MAX];
    uint32_t n = 0;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        _exit(1);
    random_state = seed * 2 + 1;
    for (;;) {
        uint32_t i;

        switch (below(4)) {
        case 0:
            if (n < HELD_MAX && take(&held[n]))
                n++;
            break;
        case 1:
            i = n == 0 ? 0 : (uint32_t)below(n);
            if (n > 0 && finish(&held[i]))
                held[i] = held[--n];
            break;
        default:
            move();
        }
    }
}

static pid_t begin(uint64_t seed)
{
    pid_t pid = fork();

    if (pid < 0) {
        perror("fork");
        exit(1);
    }
    if (pid == 0)
        work(seed);
    return pid;
}

/* False: it had ended by itself. */
static bool end(pid_t pid)
{
    int status;

    (void)kill(pid, SIGKILL);
    return waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
           WTERMSIG(status) == SIGKILL;
}

static void storm(double seconds)
{
    struct timespec start, now, pause = {0, 2000000};
    pid_t pid[WORKERS];
    uint64_t kills = 0;
    uint32_t reaped;
    bool good = true;
    double past;

    for (uint32_t i = 0; i < WORKERS; i++)
        pid[i] = begin(i + 1);
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        uint32_t i = (uint32_t)below(WORKERS);

        (void)nanosleep(&pause, NULL);
        good &= end(pid[i]);
        pid[i] = begin(++kills + WORKERS);
        if (below(4) == 0 && shd_reap(segment, &reaped) != SHD_OK)
            good = false;
        clock_gettime(CLOCK_MONOTONIC, &now);
        past = (double)(now.tv_sec - start.tv_sec) +
               (double)(now.tv_nsec - start.tv_nsec) / 1e9;
        /* On a loaded machine nobody may have come to anything yet. */
    } while (past < seconds ||
             (past < seconds + HUNG_S &&
              (__atomic_load_n(&books->moved, __ATOMIC_RELAXED) == 0 ||
               __atomic_load_n(&books->leased, __ATOMIC_RELAXED) == 0)));
    for (uint32_t i = 0; i < WORKERS; i++)
        good &= end(pid[i]);
    printf("  %" PRIu64 " workers killed, %" PRIu64 " elements moved, %" PRIu64
           " leased\n",
           kills + WORKERS, books->moved, books->leased);
    say(good, "every worker went on until it was killed");
    say(books->moved > 0 && books->leased > 0,
        "elements were moved, and leased");
}

static void audit(void)
{
    static uint8_t found[NUMBERS];
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    char report[256] = "", key[16];
    uint64_t missing = 0, twice = 0, undead = 0, gone = 0;
    struct shd_value v;
    uint32_t reaped;
    int rc;

    say(shd_reap(segment, &reaped) == SHD_OK, "the dead are reaped");
    must(shd_dict_info(dict, &info), "shd_dict_info");
    say(info.leases == 0, "nothing is leased by the dead");
    rc = shd_segment_check(segment, report, sizeof(report));
    say(rc == SHD_OK, rc == SHD_OK ? "every invariant holds" : report);
    for (uint32_t i = 0; i < LISTS; i++) {
        int len = snprintf(key, sizeof(key), "list%u", i);

        while ((rc = shd_pop(dict, 1, key, (size_t)len, text, LONGEST, &v)) ==
               SHD_OK)
            found[number_of(&v)]++;
        if (rc != SHD_NOTFOUND)
            must(rc, "shd_pop");
    }
    for (uint32_t i = 0; i < NUMBERS; i++) {
        missing += found[i] == 0 && !books->begun[i];
        twice += found[i] > 1;
        undead += found[i] > 0 && books->done[i];
        gone += books->done[i];
    }
    printf("  %" PRIu64 " of %u elements done with\n", gone, NUMBERS);
    say(missing == 0, "no element is lost");
    say(twice == 0, "none is there twice");
    say(undead == 0, "what somebody was done with is gone");
    say(books->wrong == 0, "each had its own bytes");
    must(shd_dict_info(dict, &info), "shd_dict_info");
    say(info.entries == 0 && info.cells_bytes == 0,
        "every byte is free again");
}

int main(int argc, char **argv)
{
    struct shd_segment_options so = {.struct_size = sizeof(so)};
    struct shd_dict_options o = {.struct_size = sizeof(o)};

    random_state = 0x9e3779b97f4a7c15ull;
    books = mmap(NULL, sizeof(*books), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (books == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    o.capacity_bytes = 8 << 20;
    o.shards = 8;
    must(shd_segment_create(NULL, &so, &segment), "shd_segment_create");
    must(shd_dict_open(segment, "d", &o, &dict), "shd_dict_open");
    for (uint32_t i = 0; i < NUMBERS; i++) {
        char key[16];
        size_t len = list_name(key, sizeof(key));

        fill(text, i);
        must(shd_push(dict, 0, key, len, SHD_STRING, text, length_of(i), 0,
                      NULL),
             "shd_push");
    }
    storm(argc > 1 ? strtod(argv[1], NULL) : 4);
    audit();
    printf("%u passed, %u failed\n", passed, failures);
    return failures != 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every store of an operation, as the last thing a worker did.
 *
 * For each case (cases.c): the structure is built and its bytes are kept. Then
 * for each store k of the operation: the bytes are put back, a child registers
 * as a worker and runs the operation until it kills itself before store k -
 * a real death on the real mapping, so the kernel marks the lock -, and this
 * process comes next, by the lock's ordinary way or by a reap. Then
 *   - every invariant holds;
 *   - everything stored is as before the operation or as after it (key by key
 *     where the operation is a row of transactions by contract);
 *   - with everything deleted, every byte is free again, and every worker's
 *     slot but ours.
 * For some of the stores the recovery is cut off in the same way at each of its
 * stores, and another process recovers; --full does so for all of them.
 *
 * That all of this can fail is shown by a planted bug: a death that loses the
 * undo log must be noticed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "shm/api/handle.h"
#include "tests/crash/cases.h"
#include "tests/crash/script.h"
#include "tests/crash/trace.h"

#define FAILURES_SHOWN 3u
/* Without --full: an operation with more stores than SAMPLE_FROM (they fill
 * cells that nothing leads to) is cut off at the first and last ones and at a
 * sample between; recoveries are cut off after NEST_CUTS of the prefixes, at
 * every store where the case asks for it, else at every NEST_STEP'th. */
#define SAMPLE_FROM 260u
#define SAMPLE_FIRST 60u
#define SAMPLE_LAST 130u
#define SAMPLED 70u
#define NEST_CUTS 5u
#define NEST_STEP 11u

struct run {
    struct world world;
    const struct crash_case *c;
    char name[96], setup[400], operation[160];
    unsigned char *image, *image2;
    size_t image_bytes;
    struct state before, after, now;
    uint64_t room; /* for another dict, bytes */
    unsigned failures;
};

static uint64_t prefixes, nested_prefixes, skipped;
static bool full, quiet;
static shd_segment *planted_in;

static void say(struct run *r, uint64_t k, uint64_t j, const char *what)
{
    r->failures++;
    if (quiet || r->failures > FAILURES_SHOWN)
        return;
    printf("    \"%s\" after \"%s\", cut off at store %" PRIu64, r->operation,
           r->setup, k);
    if (j > 0)
        printf(", and the recovery at %" PRIu64, j);
    printf(": %s\n", what);
}

/* ---- images --------------------------------------------------------------- */

static void keep(const struct run *r, unsigned char *image)
{
    memcpy(image, r->world.segment->segment.base, r->image_bytes);
}

static void put_back(const struct run *r, const unsigned char *image)
{
    memcpy(r->world.segment->segment.base, image, r->image_bytes);
}

static bool build(struct run *r)
{
    struct shd_segment_options so = {.struct_size = sizeof(so)};
    struct shd_dict_options o = {.struct_size = sizeof(o)};
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    struct segment *s;

    so.size_bytes = (r->c->kib * 2 + 256) * 1024ull;
    so.workers_max = 8;
    so.objects_max = 4;
    so.locks_max = 12;
    if (shd_segment_create(NULL, &so, &r->world.segment) != SHD_OK)
        return false;
    s = &r->world.segment->segment;
    s->hash_seed = 7;
    segment_header(s)->hash_seed = 7;
    o.capacity_bytes = r->c->kib * 1024ull;
    o.capacity_max_bytes = r->c->kib * 2048ull;
    o.shards = r->c->shards;
    o.entries_hint = r->c->hint;
    if (shd_dict_open(r->world.segment, "crash", &o, &r->world.dict) !=
            SHD_OK ||
        shd_dict_info(r->world.dict, &info) != SHD_OK)
        return false;
    r->world.fresh_free = info.free_bytes;
    r->image_bytes = s->size;
    r->image = malloc(s->size);
    r->image2 = malloc(s->size);
    /* The image is written back over all of it. */
    if (r->image == NULL || r->image2 == NULL ||
        segment_commit(s, 0, s->size) != SHD_OK)
        return false;
    trace_segment(s->base, s->size);
    planted_in = r->world.segment;
    return true;
}

static void tear_down(struct run *r)
{
    if (r->world.segment != NULL)
        (void)shd_segment_close(r->world.segment);
    free(r->image);
    free(r->image2);
}

/* ---- what must hold -------------------------------------------------------- */

static bool check(struct run *r, uint64_t k, uint64_t j, const char *when)
{
    char report[400] = "", what[500];
    int rc = shd_segment_check(r->world.segment, report, sizeof(report));

    if (rc == SHD_OK)
        return true;
    snprintf(what, sizeof(what), "%s, check gave %s: %s", when,
             shd_strerror_name(rc), report);
    say(r, k, j, what);
    return false;
}

static bool failed_call(struct run *r, uint64_t k, uint64_t j,
                        const char *call, int rc)
{
    char what[700];

    snprintf(what, sizeof(what), "%s gave %s: %s", call,
             shd_strerror_name(rc), shd_last_error());
    say(r, k, j, what);
    return false;
}

static bool workers_are_free(struct run *r, uint64_t k, uint64_t j)
{
    struct shd_worker_info info = {.struct_size = sizeof(info)};
    int rc;

    for (uint32_t i = 0;
         (rc = shd_worker_info(r->world.segment, i, &info)) != SHD_INVAL;
         i++) {
        if (rc == SHD_OK && info.pid != (uint32_t)getpid()) {
            char what[160];

            snprintf(what, sizeof(what),
                     "slot %" PRIu32 " is still held by process %" PRIu32
                     ", incarnation %" PRIx64 ", state %" PRIu32 ", not %d",
                     i, info.pid, info.incarnation, info.state,
                     (int)getpid());
            say(r, k, j, what);
            return false;
        }
    }
    return true;
}

/* The other dict goes too, and its room is there again. */
static bool room_is_back(struct run *r, uint64_t k, uint64_t j)
{
    static const char *const OTHERS[] = {"other", "next"};
    struct shd_dict_options o = {.struct_size = sizeof(o)};
    shd_dict *d;
    int rc;

    for (size_t i = 0; i < 2; i++) {
        rc = shd_dict_destroy(r->world.segment, OTHERS[i]);
        if (rc != SHD_OK && rc != SHD_NOTFOUND)
            return failed_call(r, k, j, "destroy", rc);
    }
    if (r->room == 0)
        return true;
    o.capacity_bytes = r->room;
    rc = shd_dict_open(r->world.segment, "rest", &o, &d);
    if (rc != SHD_OK)
        return failed_call(r, k, j, "open of all the room", rc);
    (void)shd_dict_close(d);
    rc = shd_dict_destroy(r->world.segment, "rest");
    return rc == SHD_OK ? true : failed_call(r, k, j, "destroy", rc);
}

static bool nothing_leaks(struct run *r, uint64_t k, uint64_t j)
{
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    char key[64];
    size_t len;
    struct shd_value v;
    int rc = shd_flush_all(r->world.dict);

    /* A resize that was cut off is finished by another one. */
    if (rc == SHD_OK)
        rc = shd_dict_resize(r->world.dict, r->c->kib * 1024ull);
    if (rc != SHD_OK)
        return failed_call(r, k, j, "flush, resize", rc);
    if (rc == SHD_OK)
        rc = shd_flush_expired(r->world.dict, 0, NULL);
    if (rc != SHD_OK)
        return failed_call(r, k, j, "flush", rc);
    rc = shd_scan(r->world.dict, NULL, 0, SHD_SCAN_EXPIRED, key, sizeof(key),
                  &len, NULL, 0, &v);
    if (rc != SHD_NOTFOUND)
        return failed_call(r, k, j, "scan of nothing", rc);
    rc = shd_dict_info(r->world.dict, &info);
    if (rc != SHD_OK)
        return failed_call(r, k, j, "dict_info", rc);
    if (info.resizing != 0) {
        say(r, k, j, "a resize did not come to an end");
        return false;
    }
    if (info.free_bytes != r->world.fresh_free || info.entries != 0) {
        char what[120];

        snprintf(what, sizeof(what),
                 "a leak: %" PRIu64 " bytes free of %" PRIu64
                 ", %" PRIu64 " entries", info.free_bytes,
                 r->world.fresh_free, info.entries);
        say(r, k, j, what);
        return false;
    }
    return room_is_back(r, k, j) && workers_are_free(r, k, j) &&
           check(r, k, j, "when empty");
}

static bool is_before_or_after(struct run *r, uint64_t k, uint64_t j)
{
    char not_before[160], not_after[160], what[400];

    if ((r->c->flags & CASE_STEPS) != 0) {
        if (state_between(&r->now, &r->before, &r->after, what,
                          sizeof(what)) == 0)
            return true;
        say(r, k, j, what);
        return false;
    }
    if (state_compare(&r->now, &r->before, not_before,
                      sizeof(not_before)) == 0 ||
        state_compare(&r->now, &r->after, not_after, sizeof(not_after)) == 0)
        return true;
    snprintf(what, sizeof(what), "not as before (%s), nor as after (%s)",
             not_before, not_after);
    say(r, k, j, what);
    return false;
}

/* Comes after the dead: by the lock, or by a reap. */
static bool recover(struct run *r, uint64_t k, uint64_t j)
{
    int rc = SHD_NOTFOUND;

    if (((k + j) & 1) != 0)
        rc = shd_delete(r->world.dict, "never there", 11);
    if (rc != SHD_NOTFOUND)
        return failed_call(r, k, j, "the next call", rc);
    rc = shd_reap(r->world.segment, NULL);
    if (rc != SHD_OK)
        return failed_call(r, k, j, "reap", rc);
    return true;
}

static bool verify(struct run *r, uint64_t k, uint64_t j)
{
    if (!recover(r, k, j) || !check(r, k, j, "after recovery"))
        return false;
    if (state_read(&r->world, &r->now) != 0) {
        say(r, k, j, "it cannot be read");
        return false;
    }
    return is_before_or_after(r, k, j) && nothing_leaks(r, k, j);
}

/* ---- prefixes --------------------------------------------------------------- */

/* What the guards' logs say is lost with the worker. */
static void lose_log(void)
{
    const struct segment *s = &planted_in->segment;

    for (uint32_t i = 0; i < s->locks_max; i++)
        guard_at(s, i)->state = 0;
}

static bool cut_recoveries(struct run *r, uint64_t k)
{
    const char *recovery = "join;?del never-there;reap";
    bool good = true;
    uint64_t stores;
    int rc;

    uint64_t step = full || (r->c->flags & CASE_NEST) != 0 ? 1 : NEST_STEP;

    keep(r, r->image2);
    for (uint64_t j = 1 + k % step;; j += step) {
        put_back(r, r->image2);
        rc = script_run_apart(&r->world, recovery, j, NULL, &stores);
        if (rc == 0)
            break;
        nested_prefixes++;
        if (rc < 0) {
            say(r, k, j, "the recovering process failed");
            return false;
        }
        good &= verify(r, k, j);
    }
    put_back(r, r->image2);
    return good;
}

static bool is_sampled(uint64_t k, uint64_t stores)
{
    return full || stores <= SAMPLE_FROM || k <= SAMPLE_FIRST ||
           k + SAMPLE_LAST > stores || k % (stores / SAMPLED) == 0;
}

static bool is_nested(const struct run *r, uint64_t k, uint64_t stores)
{
    uint64_t cuts = (r->c->flags & CASE_NEST) != 0 ? NEST_CUTS : 1;

    return full || k % (stores / cuts + 1) == stores / (cuts * 2);
}

static bool cut(struct run *r, uint64_t k, uint64_t all, void (*plant)(void))
{
    uint64_t stores;
    bool good = true;

    put_back(r, r->image);
    if (script_run_apart(&r->world, r->operation, k, plant, &stores) != 1) {
        say(r, k, 0, "the operation did not come to this store");
        return false;
    }
    prefixes++;
    if (plant == NULL && is_nested(r, k, all))
        good = cut_recoveries(r, k);
    return verify(r, k, 0) && good;
}

/* Capacity of the largest dict that can still be made. */
static void measure_room(struct run *r)
{
    struct shd_dict_options o = {.struct_size = sizeof(o)};
    shd_dict *d;

    put_back(r, r->image);
    for (uint64_t kib = r->c->kib + 256; kib >= 8; kib -= 4) {
        o.capacity_bytes = kib * 1024;
        if (shd_dict_open(r->world.segment, "rest", &o, &d) != SHD_OK)
            continue;
        r->room = o.capacity_bytes;
        (void)shd_dict_close(d);
        break;
    }
    put_back(r, r->image);
}

static bool prepare(struct run *r, uint64_t *stores)
{
    char why[200];

    if (!build(r)) {
        printf("    it could not be built: %s\n", shd_last_error());
        return false;
    }
    keep(r, r->image);
    measure_room(r);
    if (script_run(&r->world, r->setup) != 0)
        return false;
    keep(r, r->image);
    if (!recover(r, 1, 0) || state_read(&r->world, &r->before) != 0)
        return false;
    put_back(r, r->image);
    if (script_run_apart(&r->world, r->operation, 0, NULL, stores) != 0)
        return false;
    if (!recover(r, 0, 0) || !check(r, 0, 0, "uncut") ||
        state_read(&r->world, &r->after) != 0 || !nothing_leaks(r, 0, 0))
        return false;
    if (*stores == 0) {
        say(r, 0, 0, "it stores nothing");
        return false;
    }
    bool same = state_compare(&r->before, &r->after, why, sizeof(why)) == 0;
    if (same != ((r->c->flags & CASE_SAME) != 0)) {
        say(r, 0, 0, same ? "it changes nothing" : why);
        return false;
    }
    return true;
}

static void substitute(char *to, size_t size, const char *from, uint32_t n)
{
    size_t at = 0;

    for (; *from != '\0' && at + 12 < size; from++) {
        if (*from == '#')
            at += (size_t)snprintf(to + at, size - at, "%" PRIu32, n);
        else
            to[at++] = *from;
    }
    to[at] = '\0';
}

/* True if nothing was found. */
static bool run_case(const struct crash_case *c, uint32_t n,
                     void (*plant)(void))
{
    struct run *r = calloc(1, sizeof(*r));
    uint64_t stores = 0;
    bool good;

    if (r == NULL)
        return false;
    r->c = c;
    substitute(r->name, sizeof(r->name), c->name, n);
    substitute(r->setup, sizeof(r->setup), c->setup, n);
    substitute(r->operation, sizeof(r->operation), c->operation, n);
    good = prepare(r, &stores);
    for (uint64_t k = 1; good && k <= stores; k++) {
        if (!is_sampled(k, stores)) {
            skipped++;
            continue;
        }
        if (!cut(r, k, stores, plant) && (quiet || r->failures > FAILURES_SHOWN))
            break;
    }
    good = good && r->failures == 0;
    if (!good && !quiet)
        printf("  FAIL %s\n", r->name);
    tear_down(r);
    free(r);
    return good;
}

/* A death that loses the log must not go unnoticed. */
static bool planted_bug_is_found(const char *case_name)
{
    bool found = false;

    quiet = true;
    for (size_t i = 0; i < CASE_COUNT; i++) {
        if (strcmp(CASES[i].name, case_name) == 0)
            found = !run_case(&CASES[i], CASES[i].from, lose_log);
    }
    quiet = false;
    if (!found)
        printf("  FAIL a lost undo log in \"%s\" went unnoticed\n",
               case_name);
    return found;
}

static int usage(void)
{
    fprintf(stderr, "usage: crash [--only CASE] [--full]\n"
                    "  --full  cuts off every recovery at every store\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const char *const PLANTED[] = {
        "set in place", "set among others", "delete one of many",
        "small over chain", "push left", "pop the last"};
    unsigned passed = 0, failed = 0, operations = 0;
    const char *only = NULL;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--full") == 0)
            full = true;
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
            only = argv[++i];
        else
            return usage();
    }
    for (size_t i = 0; i < CASE_COUNT; i++) {
        const struct crash_case *c = &CASES[i];

        if (only != NULL && strcmp(only, c->name) != 0)
            continue;
        operations++;
        for (uint32_t n = c->from; n <= c->to; n++) {
            if (run_case(c, n, NULL))
                passed++;
            else
                failed++;
        }
    }
    printf("  %u operations, %u cases, %" PRIu64 " prefixes of their stores "
           "(%" PRIu64 " left out), %" PRIu64 " prefixes of recoveries\n",
           operations, passed + failed, prefixes, skipped, nested_prefixes);
    for (size_t i = 0; only == NULL &&
                       i < sizeof(PLANTED) / sizeof(PLANTED[0]); i++) {
        if (planted_bug_is_found(PLANTED[i]))
            passed++;
        else
            failed++;
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed == 0 && passed > 0 ? 0 : 1;
}

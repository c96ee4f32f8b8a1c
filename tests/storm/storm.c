/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A storm of real SIGKILLs.
 *
 * Workers change dicts as fast as they can; this parent kills them at random
 * moments - one, several at once, while they start and register, one that is
 * reaping, and one that gives the dicts other capacities - and starts others in their place, by fork of this attached
 * process or by exec of a fresh one. Some are never killed but at an audit:
 * the witnesses, for a worker that lives a few ms cannot see a long stall.
 * Every AUDIT_EVERY kills all are killed at once, and what must hold (storm.h)
 * is verified, together with every invariant of the segment.
 */
#include "tests/storm/storm.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KILLS_DEFAULT 10000u
#define WORKERS_DEFAULT 6u
#define WITNESSES 2u
#define AUDIT_EVERY 500u
#define STALL_LIMIT_NS 100000000u

static struct storm storm;
static pid_t pids[SLOTS_MAX], resizer, supervisor;
static bool supervised;
static uint64_t kills_supervising;
static uint64_t seed = 0, rng;
static uint64_t kills, kills_starting, kills_reaping, execs, starts, audits;
static uint64_t kills_resizing, kills_in_operation, reaped_total, longest_cut_ns;
static struct meter parent_meter;
static char name[64], self_path[512];
static int journal_fd;

static uint64_t next(void)
{
    uint64_t z = rng += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)(next() % n);
}

static _Noreturn void end(int status);

static _Noreturn void die(const char *what)
{
    printf("    %s: %s (%s)\n", what, strerror(errno), shd_last_error());
    end(1);
}

static void must(int rc, const char *what)
{
    if (rc == SHD_OK)
        return;
    printf("    %s gave %s: %s\n", what, shd_strerror_name(rc),
           shd_last_error());
    end(1);
}

/* ---- workers ------------------------------------------------------------ */

static void die_with_parent(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(4);
}

static _Noreturn void exec_worker(uint32_t slot, uint64_t worker_seed)
{
    char fd_text[20], slot_text[20], seed_text[30], workers_text[20];

    snprintf(fd_text, sizeof(fd_text), "%d", journal_fd);
    snprintf(slot_text, sizeof(slot_text), "%u", slot);
    snprintf(workers_text, sizeof(workers_text), "%u", storm.workers);
    snprintf(seed_text, sizeof(seed_text), "%" PRIu64, worker_seed);
    execl(self_path, self_path, "--attach", name, fd_text, slot_text,
          workers_text, seed_text, (char *)NULL);
    _exit(5);
}

static void start(uint32_t slot, bool by_exec)
{
    uint64_t worker_seed = next();
    pid_t parent = getpid();

    fflush(stdout);
    pids[slot] = fork();
    if (pids[slot] < 0)
        die("fork");
    if (pids[slot] == 0) {
        die_with_parent(parent);
        if (by_exec)
            exec_worker(slot, worker_seed);
        worker_run(&storm, slot, worker_seed);
    }
    storm.journal->slot[slot].lives++;
    starts++;
    execs += by_exec;
}

/* argv of exec_worker(). */
static int attached_worker(char **argv)
{
    uint32_t slot = (uint32_t)strtoul(argv[4], NULL, 10);
    uint64_t worker_seed = strtoull(argv[6], NULL, 10);
    struct slot *s;

    die_with_parent(getppid());
    storm.journal = mmap(NULL, sizeof(struct journal), PROT_READ | PROT_WRITE,
                         MAP_SHARED, atoi(argv[3]), 0);
    if (storm.journal == MAP_FAILED)
        return 6;
    storm.workers = (uint32_t)strtoul(argv[5], NULL, 10);
    s = &storm.journal->slot[slot];
    int rc = shd_segment_attach(argv[2], NULL, &storm.segment);
    if (rc == SHD_OK)
        rc = storm_open_dicts(&storm, false);
    if (rc != SHD_OK) {
        snprintf(s->failure, sizeof(s->failure), "attach gave %s: %s",
                 shd_strerror_name(rc), shd_last_error());
        return 3;
    }
    worker_run(&storm, slot, worker_seed);
}

static pid_t wait_for(pid_t pid, int *status, int options)
{
    pid_t got;

    do
        got = waitpid(pid, status, options);
    while (got < 0 && errno == EINTR);
    return got;
}

/* A worker that ended by itself has something to tell. */
static void complain(uint32_t slot, int status)
{
    printf("    worker %u, process %d, ", slot, (int)pids[slot]);
    if (WIFSIGNALED(status))
        printf("died of signal %d in %s\n", WTERMSIG(status),
               KIND_NAMES[storm.journal->slot[slot].kind]);
    else
        printf("ended with %d: %s\n", WEXITSTATUS(status),
               storm.journal->slot[slot].failure);
    pids[slot] = 0;
    end(1);
}

static void look_for_failures(void)
{
    int status;

    for (uint32_t i = 0; i < storm.workers; i++) {
        if (pids[i] > 0 && wait_for(pids[i], &status, WNOHANG) == pids[i])
            complain(i, status);
    }
}

static void kill_one(uint32_t slot)
{
    uint64_t since = __atomic_load_n(
        &storm.journal->slot[slot].meter.busy_since_ns, __ATOMIC_RELAXED);
    uint64_t now = meter_now_ns();

    /* How long was it in the operation that this kill cuts off? */
    if (since != 0 && now > since && now - since > longest_cut_ns)
        longest_cut_ns = now - since;
    meter_cut(&storm.journal->slot[slot].meter, pids[slot],
              storm.journal->slot[slot].kind);
    __atomic_store_n(&storm.journal->slot[slot].pid, (uint32_t)pids[slot],
                     __ATOMIC_RELAXED);
    __atomic_store_n(&storm.journal->slot[slot].killed_ns, meter_now_ns(),
                     __ATOMIC_RELEASE);
    if (kill(pids[slot], SIGKILL) != 0)
        die("kill");
}

static void bury(uint32_t slot)
{
    int status;

    if (wait_for(pids[slot], &status, 0) != pids[slot])
        die("waitpid");
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        complain(slot, status);
    pids[slot] = 0;
    kills++;
    kills_in_operation +=
        storm.journal->slot[slot].meter.busy_since_ns != 0;
    audit_death(&storm.journal->slot[slot]);
}

static void reap(void)
{
    uint32_t reaped = 0;

    meter_begin(&parent_meter);
    must(shd_reap(storm.segment, &reaped), "reap");
    meter_end(&parent_meter, KIND_REAP);
    reaped_total += reaped;
}

/* A process that reaps, killed in the middle of it. */
static void kill_reaper(void)
{
    pid_t parent = getpid(), pid = fork();
    int status;

    if (pid < 0)
        die("fork");
    if (pid == 0) {
        die_with_parent(parent);
        for (;;) {
            if (shd_reap(storm.segment, NULL) != SHD_OK)
                _exit(3);
        }
    }
    (void)usleep(100 + below(1500));
    if (kill(pid, SIGKILL) != 0 || wait_for(pid, &status, 0) != pid)
        die("reaper");
    if (!WIFSIGNALED(status)) {
        printf("    a reaping process failed\n");
        end(1);
    }
    kills++;
    kills_reaping++;
}

/* ---- the resizer -------------------------------------------------------- */

static uint64_t between(uint64_t least, uint64_t most)
{
    return least + next() % (most - least + 1);
}

/* Both dicts, up and down. Stores may take the small one's room as fast as it
 * is made. */
static _Noreturn void resize_for_ever(void)
{
    struct meter *m = &storm.journal->resizer;

    if (meter_open() != 0)
        _exit(3);
    for (;;) {
        int rc;

        meter_begin(m);
        rc = shd_dict_resize(storm.big, between(BIG_LEAST(storm.workers),
                                                BIG_MOST));

        if (rc == SHD_OK) {
            rc = shd_dict_resize(storm.small,
                                 between(SMALL_LEAST, below(8) == 0
                                                          ? SMALL_MOST
                                                          : 2 * SMALL_BYTES));
            if (rc == SHD_NOMEM)
                rc = SHD_OK;
        }
        meter_end(m, KIND_NONE);
        if (rc != SHD_OK) {
            printf("    resize gave %s: %s\n", shd_strerror_name(rc),
                   shd_last_error());
            fflush(stdout);
            _exit(3);
        }
        storm.journal->resizes++;
        (void)usleep(below(3000));
    }
}

static void start_resizer(void)
{
    pid_t parent = getpid();
    uint64_t own = next();

    fflush(stdout);
    resizer = fork();
    if (resizer < 0)
        die("fork");
    if (resizer == 0) {
        die_with_parent(parent);
        rng = own;
        resize_for_ever();
    }
}

static void kill_resizer(void)
{
    int status;

    meter_cut(&storm.journal->resizer, resizer, KIND_NONE);
    if (kill(resizer, SIGKILL) != 0 ||
        wait_for(resizer, &status, 0) != resizer)
        die("resizer");
    resizer = 0;
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        printf("    the resizing process ended with status 0x%x\n", status);
        end(1);
    }
    kills++;
    kills_resizing++;
}

/* ---- the supervisor ----------------------------------------------------- */

static void note_recovery(const struct shd_watch_event *e)
{
    for (uint32_t i = 0; i < storm.workers; i++) {
        const struct slot *s = &storm.journal->slot[i];
        uint64_t killed = __atomic_load_n(&s->killed_ns, __ATOMIC_ACQUIRE);

        if (s->pid == e->pid && killed != 0 && e->at_ns > killed)
            histogram_add(&storm.journal->recovery, e->at_ns - killed);
    }
}

/* Recovers from every death, its predecessor's too. Only one at a time. */
static _Noreturn void supervise_for_ever(void)
{
    struct shd_watch_options o = {.struct_size = sizeof(o),
                                  .flags = SHD_WATCH_SUPERVISE};
    struct shd_watch_event e = {.struct_size = sizeof(e)};
    shd_watch *watch;
    int rc = shd_watch_open(storm.segment, &o, &watch);

    while (rc == SHD_OK || rc == SHD_NOTFOUND) {
        rc = shd_watch_next(watch, -1, &e);
        if (rc == SHD_OK && e.event == SHD_WATCH_DIED)
            note_recovery(&e);
    }
    printf("    the supervisor gave %s: %s\n", shd_strerror_name(rc),
           shd_last_error());
    fflush(stdout);
    _exit(3);
}

static void start_supervisor(void)
{
    pid_t parent = getpid();

    if (!supervised)
        return;
    fflush(stdout);
    supervisor = fork();
    if (supervisor < 0)
        die("fork");
    if (supervisor == 0) {
        die_with_parent(parent);
        supervise_for_ever();
    }
}

static void kill_supervisor(void)
{
    int status;

    if (!supervised)
        return;
    if (kill(supervisor, SIGKILL) != 0 ||
        wait_for(supervisor, &status, 0) != supervisor)
        die("supervisor");
    supervisor = 0;
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        printf("    the supervisor ended with status 0x%x\n", status);
        end(1);
    }
    kills++;
    kills_supervising++;
}

/* What the last one left is finished by this one. */
static void resize_back(shd_dict *dict, uint64_t bytes)
{
    struct shd_dict_info info = {.struct_size = sizeof(info)};

    must(shd_dict_resize(dict, bytes), "resize");
    must(shd_dict_info(dict, &info), "dict_info");
    if (info.capacity_bytes != bytes || info.resizing != 0) {
        printf("    a resize did not come to an end\n");
        end(1);
    }
}

/* ---- the storm ---------------------------------------------------------- */

static void kill_some(uint32_t victims)
{
    uint32_t first = WITNESSES, n = storm.workers - WITNESSES;
    uint32_t from = below(n);
    bool reap_zombies = !supervised && below(4) == 0;

    for (uint32_t i = 0; i < victims; i++)
        kill_one(first + (from + i) % n);
    if (reap_zombies)
        reap();
    for (uint32_t i = 0; i < victims; i++)
        bury(first + (from + i) % n);
    /* Else the others find out by themselves. */
    if (!supervised && below(4) != 0)
        reap();
    for (uint32_t i = 0; i < victims; i++) {
        uint32_t slot = first + (from + i) % n;
        bool by_exec = below(5) == 0;

        start(slot, by_exec);
        if (below(8) == 0) {
            (void)usleep(below(by_exec ? 4000 : 800));
            kill_one(slot);
            bury(slot);
            kills_starting++;
            start(slot, false);
        }
    }
}

static void check_segment(void)
{
    char report[512] = "";
    int rc = shd_segment_check(storm.segment, report, sizeof(report));

    if (rc == SHD_OK)
        return;
    printf("    check gave %s: %s\n", shd_strerror_name(rc), report);
    end(1);
}

static void check_workers_free(void)
{
    struct shd_worker_info info = {.struct_size = sizeof(info)};
    int rc;

    for (uint32_t i = 0;
         (rc = shd_worker_info(storm.segment, i, &info)) != SHD_INVAL; i++) {
        if (rc == SHD_NOTFOUND)
            continue;
        must(rc, "worker_info");
        if (info.pid != (uint32_t)getpid()) {
            printf("    worker slot %u is still held, by process %u\n", i,
                   info.pid);
            end(1);
        }
    }
}

/* All die at once; nobody disturbs while everything is verified. */
static void audit(void)
{
    kill_resizer();
    kill_supervisor();
    for (uint32_t i = 0; i < storm.workers; i++)
        kill_one(i);
    for (uint32_t i = 0; i < storm.workers; i++)
        bury(i);
    if (below(2) == 0)
        reap();
    check_segment();
    if (audit_all(&storm) != 0)
        end(1);
    reap();
    check_workers_free();
    check_segment();
    audits++;
}

static void empty_dict(shd_dict *dict, uint64_t fresh_free, const char *what)
{
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    unsigned char key[256];
    size_t key_len;
    struct shd_value v;
    int rc;

    while ((rc = shd_scan(dict, NULL, 0, SHD_SCAN_EXPIRED, key, sizeof(key),
                          &key_len, NULL, 0, &v)) == SHD_OK) {
        rc = shd_delete(dict, key, key_len);
        if (rc == SHD_NOTFOUND && v.ttl_ms < 0)
            rc = shd_flush_expired(dict, 0, NULL);
        must(rc, "delete");
    }
    if (rc != SHD_NOTFOUND)
        must(rc, "scan");
    must(shd_dict_info(dict, &info), "dict_info");
    printf("  %-22s %" PRIu64 " of %" PRIu64 " bytes free after deleting "
           "everything; %" PRIu64 " evictions\n", what, info.free_bytes,
           fresh_free, info.evictions);
    if (info.entries != 0 || info.free_bytes != fresh_free) {
        printf("    a leak: %" PRIu64 " bytes, %" PRIu64 " entries left\n",
               fresh_free - info.free_bytes, info.entries);
        end(1);
    }
}

/* ---- what it saw -------------------------------------------------------- */

static void print_histogram(const char *what, const struct histogram *h,
                            uint32_t worst)
{
    printf("  %-22s p50 %.1f us, p99 %.1f us, p99.9 %.1f us, max %.2f ms "
           "(%s)\n", what, (double)histogram_quantile(h, 0.5) / 1e3,
           (double)histogram_quantile(h, 0.99) / 1e3,
           (double)histogram_quantile(h, 0.999) / 1e3,
           (double)h->max_ns / 1e6, KIND_NAMES[worst]);
}

/* Every stall over the limit is told; the storm fails if more than the limit
 * is left of one when the time is taken off that another worker, perhaps the
 * lock's holder, was put aside in its operation meanwhile. */
static bool judge_stalls(void)
{
    const struct meter *meters[SLOTS_MAX + 2];
    bool good = true;

    for (uint32_t i = 0; i < storm.workers; i++)
        meters[i] = &storm.journal->slot[i].meter;
    meters[storm.workers] = &parent_meter;
    /* Many operations in one: it explains, and is not judged. */
    meters[storm.workers + 1] = &storm.journal->resizer;
    for (uint32_t i = 0; i <= storm.workers; i++) {
        if (meters[i]->stall.max_ns > STALL_LIMIT_NS &&
            meters[i]->episodes > METER_EPISODES) {
            printf("    a stall over the limit, and too many long "
                   "operations to explain it\n");
            good = false;
        }
        for (unsigned n = 0; n < METER_EPISODES; n++) {
            const struct episode *e = &meters[i]->episode[n];
            uint64_t explained;

            if (e->stall_ns <= STALL_LIMIT_NS)
                continue;
            explained = meter_explained(meters, storm.workers + 2, e);
            printf("    %s stalled %.1f ms (limit %u); another worker was "
                   "put aside for %.1f ms meanwhile\n", KIND_NAMES[e->kind],
                   (double)e->stall_ns / 1e6, STALL_LIMIT_NS / 1000000,
                   (double)explained / 1e6);
            if (e->stall_ns - explained > STALL_LIMIT_NS)
                good = false;
        }
    }
    return good;
}

static void print_recovery(void)
{
    const struct histogram *h = &storm.journal->recovery;

    if (!supervised)
        return;
    printf("  %-22s p50 %.1f us, p99 %.1f us, max %.2f ms, of %" PRIu64
           " deaths\n  %-22s (others met the rest first, or the supervisor "
           "itself was dead)\n",
           "SIGKILL to recovery", (double)histogram_quantile(h, 0.5) / 1e3,
           (double)histogram_quantile(h, 0.99) / 1e3,
           (double)h->max_ns / 1e6, h->count, "");
}

static bool print_stalls(void)
{
    struct histogram wall = {0}, stall = {0};
    uint32_t worst_wall = 0, worst_stall = 0;

    for (uint32_t i = 0; i <= storm.workers; i++) {
        const struct meter *m = i < storm.workers
                                    ? &storm.journal->slot[i].meter
                                    : &parent_meter;

        if (m->wall.max_ns > wall.max_ns)
            worst_wall = m->worst_wall_kind;
        if (m->stall.max_ns > stall.max_ns)
            worst_stall = m->worst_stall_kind;
        histogram_merge(&wall, &m->wall);
        histogram_merge(&stall, &m->stall);
    }
    print_histogram("wall time", &wall, worst_wall);
    print_histogram("stall", &stall, worst_stall);
    print_recovery();
    printf("  %-22s %.2f ms (wall time)\n", "longest cut off by kill",
           (double)longest_cut_ns / 1e6);
    printf("  The stall, which is judged, is wall time in an operation less "
           "the time that the\n  scheduler gave to other processes while "
           "this one could run (schedstat);\n  over %u ms also less the time "
           "that another worker was put aside like that in the\n  middle of "
           "an operation, perhaps with the lock.\n",
           STALL_LIMIT_NS / 1000000);
    return judge_stalls();
}

static void print_kills(double took_s)
{
    struct shd_segment_info info = {.struct_size = sizeof(info)};
    uint32_t cut[KINDS] = {0};
    uint64_t ops = 0;

    for (uint32_t i = 0; i < storm.workers; i++) {
        ops += storm.journal->slot[i].ops;
        for (unsigned k = 0; k < KINDS; k++)
            cut[k] += storm.journal->slot[i].cut_kinds[k];
    }
    must(shd_segment_info(storm.segment, &info), "segment_info");
    printf("  %-22s %" PRIu64 " in %.1f s; %" PRIu64 " in an operation, "
           "%" PRIu64 " while starting, %" PRIu64 " while reaping, %" PRIu64
           " while resizing (%" PRIu64 " done), %" PRIu64
           " while supervising\n",
           "kills", kills, took_s, kills_in_operation, kills_starting,
           kills_reaping, kills_resizing, storm.journal->resizes,
           kills_supervising);
    printf("  %-22s", "  cut off");
    for (unsigned k = 1, n = 0; k < KINDS; k++) {
        if (cut[k] == 0)
            continue;
        printf("%s %u %s", n % 5 == 0 && n > 0 ? ",\n                        "
                           : n > 0             ? ","
                                               : "",
               cut[k], KIND_NAMES[k]);
        n++;
    }
    printf("\n  %-22s %" PRIu64 " inside a critical section; %" PRIu64
           " workers reaped, %" PRIu64 " by the parent\n", "recoveries",
           info.recoveries, info.deaths, reaped_total);
    printf("  %-22s %" PRIu64 ", %" PRIu64 " of them by exec\n",
           "workers started", starts, execs);
    printf("  %-22s %" PRIu64 ", %" PRIu64 " audits\n", "operations", ops,
           audits);
    printf("  %-22s %" PRIu64 " keys as acknowledged; %" PRIu64 " list "
           "elements, %" PRIu64 " lost with %" PRIu64 " deaths in a pop\n",
           "verified", audit_totals.keys, audit_totals.elements,
           audit_totals.elements_lost, audit_totals.pops_open);
    printf("  %-22s %" PRIu64 " acknowledged, %" PRIu64 " more counted, of "
           "%" PRIu64 " in flight at deaths\n", "counters",
           audit_totals.counts, audit_totals.counts_extra,
           audit_totals.counts_open);
}

static _Noreturn void end(int status)
{
    for (uint32_t i = 0; i < SLOTS_MAX; i++) {
        if (pids[i] > 0)
            (void)kill(pids[i], SIGKILL);
    }
    if (resizer > 0)
        (void)kill(resizer, SIGKILL);
    if (supervisor > 0)
        (void)kill(supervisor, SIGKILL);
    if (storm.segment != NULL && shd_segment_destroy(name) != SHD_OK)
        printf("    %s\n", shd_last_error());
    if (status != 0)
        printf("    the seed was %" PRIu64 " (moments of kills vary all the "
               "same)\n", seed);
    printf("%d passed, %d failed\n", status == 0, status != 0);
    fflush(stdout);
    exit(status);
}

static void prepare(void)
{
    struct shd_segment_options o = {.struct_size = sizeof(o)};
    ssize_t n = readlink("/proc/self/exe", self_path, sizeof(self_path) - 1);

    if (n <= 0)
        die("readlink");
    journal_fd = memfd_create("storm-journal", 0);
    if (journal_fd < 0 ||
        ftruncate(journal_fd, sizeof(struct journal)) != 0)
        die("memfd_create");
    storm.journal = mmap(NULL, sizeof(struct journal), PROT_READ | PROT_WRITE,
                         MAP_SHARED, journal_fd, 0);
    if (storm.journal == MAP_FAILED)
        die("mmap");
    for (uint32_t i = 0; i < SLOTS_MAX; i++)
        storm.journal->slot[i].next_version = 1;
    snprintf(name, sizeof(name), "storm-%d", (int)getpid());
    o.size_bytes = 64ull << 20;
    /* Few slots: workers that are not reaped in time use them up, and then
     * the next one to join must do it. */
    o.workers_max = storm.workers * 2 + 4;
    o.objects_max = 8;
    o.locks_max = 16;
    must(shd_segment_create(name, &o, &storm.segment), "segment_create");
    must(storm_open_dicts(&storm, true), "dict_open");
    if (meter_open() != 0)
        die("/proc/thread-self/schedstat");
}

static int usage(void)
{
    fprintf(stderr, "usage: storm [--kills N] [--seconds S] [--workers N] "
                    "[--seed N] [--supervisor]\n");
    return 2;
}

static void rage(uint64_t kills_asked, double seconds_asked)
{
    uint64_t began = meter_now_ns(), next_audit = AUDIT_EVERY;

    for (uint32_t i = 0; i < storm.workers; i++)
        start(i, i % 4 == 3);
    start_resizer();
    start_supervisor();
    while (kills < kills_asked &&
           (double)(meter_now_ns() - began) / 1e9 < seconds_asked) {
        (void)usleep(200 + below(9000));
        look_for_failures();
        if (below(6) == 0) {
            kill_resizer();
            start_resizer();
        }
        if (supervised && below(8) == 0) {
            kill_supervisor();
            start_supervisor();
        }
        if (!supervised && below(10) == 0)
            kill_reaper();
        else
            kill_some(below(5) == 0
                          ? 1 + below(storm.workers - WITNESSES)
                          : 1);
        if (kills >= next_audit) {
            audit();
            next_audit += AUDIT_EVERY;
            for (uint32_t i = 0; i < storm.workers; i++)
                start(i, i % 4 == 3);
            start_resizer();
            start_supervisor();
        }
    }
    audit();
}

int main(int argc, char **argv)
{
    uint64_t kills_asked = KILLS_DEFAULT, began;
    double seconds_asked = 1e9;
    struct shd_dict_info big = {.struct_size = sizeof(big)};
    struct shd_dict_info small = {.struct_size = sizeof(small)};

    if (argc == 7 && strcmp(argv[1], "--attach") == 0)
        return attached_worker(argv);
    storm.workers = WORKERS_DEFAULT;
    seed = (uint64_t)time(NULL) << 20 ^ (uint64_t)getpid();
    for (int i = 1; i < argc; i += 2) {
        if (strcmp(argv[i], "--supervisor") == 0) {
            supervised = true;
            i--;
            continue;
        }
        if (i + 1 >= argc)
            return usage();
        if (strcmp(argv[i], "--kills") == 0)
            kills_asked = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds_asked = strtod(argv[i + 1], NULL);
        else if (strcmp(argv[i], "--workers") == 0)
            storm.workers = (uint32_t)strtoul(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
        else
            return usage();
    }
    if (storm.workers < WITNESSES + 1 || storm.workers > SLOTS_MAX)
        return usage();
    rng = seed;
    printf("storm: %u workers, %u of them witnesses that die only at audits; "
           "seed %" PRIu64 "\n", storm.workers, WITNESSES, seed);
    prepare();
    must(shd_dict_info(storm.big, &big), "dict_info");
    must(shd_dict_info(storm.small, &small), "dict_info");
    began = meter_now_ns();
    rage(kills_asked, seconds_asked);
    print_kills((double)(meter_now_ns() - began) / 1e9);
    bool calm = print_stalls();
    resize_back(storm.big, BIG_BYTES);
    resize_back(storm.small, SMALL_BYTES);
    check_segment();
    empty_dict(storm.big, big.free_bytes, "big dict");
    empty_dict(storm.small, small.free_bytes, "small dict");
    check_segment();
    end(calm ? 0 : 1);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A storm of real SIGKILLs.
 *
 * Workers change dicts as fast as they can, and are killed at random moments
 * (storm.h, "how a worker dies"); this parent starts others in their place, by
 * fork of this attached process or by exec of a fresh one. Some are never
 * killed but at an audit: the witnesses, for a worker that lives less than a
 * ms cannot see a long stall. Every AUDIT_EVERY kills all are killed at once,
 * and what must hold (storm.h) is verified, together with every invariant of
 * the segment.
 */
#include "tests/storm/parent.h"
#include "shm/api/handle.h"
#include "shm/memory/catalogue.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KILLS_DEFAULT 10000u
#define WORKERS_DEFAULT 8u
#define AUDIT_EVERY 1000u
#define EXEC_ONE_IN 50u
#define LOOKS 100 /* for a worker with a lock */
#define STOPS 10  /* tries to stop one with it */

struct storm storm;
struct tally tally;
struct meter parent_meter;
bool supervised;
static pid_t pids[SLOTS_MAX];
static uint64_t seed = 0, rng;
static char name[64], self_path[512];
static int journal_fd;
static bool calm = true;

uint64_t parent_random(void)
{
    uint64_t z = rng += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

uint32_t below(uint32_t n)
{
    return (uint32_t)(parent_random() % n);
}

_Noreturn void die(const char *what)
{
    printf("    %s: %s (%s)\n", what, strerror(errno), shd_last_error());
    end(1);
}

void must(int rc, const char *what)
{
    if (rc == SHD_OK)
        return;
    printf("    %s gave %s: %s\n", what, shd_strerror_name(rc),
           shd_last_error());
    end(1);
}

/* ---- workers ------------------------------------------------------------ */

void die_with_parent(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(4);
}

pid_t parent_fork(void)
{
    uint64_t childs = parent_random();
    pid_t parent = getpid(), pid;

    fflush(stdout);
    pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        die_with_parent(parent);
        rng = childs;
    }
    return pid;
}

pid_t wait_for(pid_t pid, int *status, int options)
{
    pid_t got;

    do
        got = waitpid(pid, status, options);
    while (got < 0 && errno == EINTR);
    return got;
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

/* Some at once, some after hundreds of operations: all powers of two of time
 * alike. */
static void give_fate(struct slot *slot, bool witness)
{
    uint32_t what = witness ? 100 : below(100);

    slot->fate = what < 65   ? FATE_TIMER
                 : what < 75 ? FATE_EARLY
                             : FATE_PARENT;
    slot->delay_ns = 1000u << below(11);
    slot->delay_ns += below(slot->delay_ns);
}

static void start(uint32_t slot)
{
    uint64_t worker_seed = parent_random();
    bool by_exec = below(EXEC_ONE_IN) == 0;

    give_fate(&storm.journal->slot[slot], slot < WITNESSES);
    storm.journal->slot[slot].joined = 0;
    pids[slot] = parent_fork();
    if (pids[slot] == 0) {
        if (by_exec)
            exec_worker(slot, worker_seed);
        worker_run(&storm, slot, worker_seed);
    }
    storm.journal->slot[slot].lives++;
    tally.starts++;
    tally.execs += by_exec;
}

static void start_all(void)
{
    for (uint32_t i = 0; i < storm.workers; i++)
        start(i);
    resizer_start();
    supervisor_start();
}

/* A worker that ended by itself has something to tell. */
static _Noreturn void complain(uint32_t slot, int status)
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

static void kill_one(uint32_t slot)
{
    struct slot *s = &storm.journal->slot[slot];

    meter_cut(&s->meter, pids[slot], s->kind);
    s->fate = FATE_PARENT;
    __atomic_store_n(&s->pid, (uint32_t)pids[slot], __ATOMIC_RELAXED);
    __atomic_store_n(&s->killed_ns, meter_now_ns(), __ATOMIC_RELEASE);
    if (kill(pids[slot], SIGKILL) != 0)
        die("kill");
}

/* Dead, and not waited for yet: meter_cut() looks at it. */
static void bury(uint32_t slot)
{
    struct slot *s = &storm.journal->slot[slot];
    uint64_t since = s->meter.busy_since_ns;
    int status;

    meter_cut(&s->meter, pids[slot], s->kind);
    if (wait_for(pids[slot], &status, 0) != pids[slot])
        die("waitpid");
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        complain(slot, status);
    pids[slot] = 0;
    tally.kills++;
    tally.by_timer += s->fate != FATE_PARENT;
    tally.in_operation += since != 0;
    tally.starting += !s->joined;
    /* How long had it been in the operation that was cut off? */
    if (since != 0 && s->killed_ns > since &&
        s->killed_ns - since > tally.longest_cut_ns)
        tally.longest_cut_ns = s->killed_ns - since;
    audit_death(s);
}

/* Those that have died, for others to take their places. */
static void bury_dead(void)
{
    siginfo_t info;
    uint32_t slot;

    for (;;) {
        info.si_pid = 0;
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0)
            die("waitid");
        if (info.si_pid == 0)
            return;
        for (slot = 0; slot < storm.workers; slot++)
            if (pids[slot] == info.si_pid)
                break;
        if (slot == storm.workers) {
            others_bury(info.si_pid);
        } else {
            bury(slot);
            start(slot);
        }
    }
}

static void reap(void)
{
    uint32_t reaped = 0;

    meter_begin(&parent_meter);
    must(shd_reap(storm.segment, &reaped), "reap");
    meter_end(&parent_meter, KIND_REAP);
    tally.reaped += reaped;
}

/* ---- who is killed ------------------------------------------------------- */

static uint32_t any_mortal(void)
{
    return WITNESSES + below(storm.workers - WITNESSES);
}

static void kill_any(void)
{
    kill_one(any_mortal());
}

static void kill_many(void)
{
    bool reap_zombies = !supervised && below(4) == 0;
    uint32_t n = 1 + below(storm.workers - WITNESSES);
    uint32_t from = any_mortal() - WITNESSES;

    for (uint32_t i = 0; i < n; i++)
        kill_one(WITNESSES + (from + i) % (storm.workers - WITNESSES));
    if (reap_zombies)
        reap();
}

static uint32_t frozen; /* bits of the slots whose workers are stopped */

/* Which worker has that lock just now? workers: none of those that die, and
 * run. */
static uint32_t owner_of(const struct guard *g)
{
    uint32_t word = __atomic_load_n(&g->lock, __ATOMIC_RELAXED);
    pid_t tid = (pid_t)(word & FUTEX_TID_MASK);
    uint32_t slot = WITNESSES;

    if (tid == 0)
        return storm.workers;
    while (slot < storm.workers &&
           (pids[slot] != tid || (frozen >> slot & 1) != 0))
        slot++;
    return slot;
}

/* A worker that is just now seen with a lock, and which; NULL if none is, for
 * some time. */
static const struct guard *see_holder(uint32_t *slot)
{
    const struct segment *s = &storm.segment->segment;
    uint32_t guards = catalogue_guards(s);

    for (uint32_t look = 0; look < LOOKS; look++) {
        uint32_t first = below(guards);

        for (uint32_t i = 0; i < guards; i++) {
            const struct guard *g = guard_at(s, (first + i) % guards);

            *slot = owner_of(g);
            if (*slot < storm.workers)
                return g;
        }
    }
    return NULL;
}

static void kill_holder(void)
{
    uint32_t slot;

    if (see_holder(&slot) != NULL)
        kill_one(slot);
}

static void kill_sleepers(uint32_t holder)
{
    for (uint32_t i = WITNESSES; i < storm.workers; i++) {
        struct slot *s = &storm.journal->slot[i];

        if (i == holder ||
            __atomic_load_n(&s->meter.busy_since_ns, __ATOMIC_RELAXED) == 0 ||
            !meter_is_asleep(pids[i]) || below(3) == 0)
            continue;
        kill_one(i);
        tally.waiting++;
    }
}

static uint64_t stopped_ns[SLOTS_MAX];

static void stop(uint32_t slot)
{
    stopped_ns[slot] = meter_now_ns();
    if (kill(pids[slot], SIGSTOP) != 0)
        die("SIGSTOP");
}

/* Whoever waited for it meanwhile is not to blame. */
static void end_stop(uint32_t slot, bool by_death)
{
    struct slot *s = &storm.journal->slot[slot];

    meter_stopped(&s->meter, stopped_ns[slot], s->kind);
    if (by_death)
        kill_one(slot);
    else if (kill(pids[slot], SIGCONT) != 0)
        die("SIGCONT");
}

/* Stops a worker that has a lock, and its number; workers: none was met. Most
 * have let go of it before they stand. */
static uint32_t stop_holder(void)
{
    siginfo_t info = {0};
    const struct guard *g;
    uint32_t slot;

    for (int tries = 0; tries < STOPS; tries++) {
        g = see_holder(&slot);
        if (g == NULL)
            break;
        stop(slot);
        if (waitid(P_PID, (id_t)pids[slot], &info,
                   WSTOPPED | WEXITED | WNOWAIT) != 0)
            die("waitid");
        if (info.si_code != CLD_STOPPED) /* its own timer was quicker */
            break;
        if (owner_of(g) == slot)
            return slot;
        end_stop(slot, false);
    }
    return storm.workers;
}

/* A holder that is stopped keeps the others waiting; they are killed at it.
 * Then it dies too, or goes on. */
static void kill_waiters(void)
{
    uint32_t holder = stop_holder();

    if (holder == storm.workers)
        return;
    (void)usleep(100 + below(500));
    kill_sleepers(holder);
    end_stop(holder, below(2) == 0);
}

/* One of these, some time after a death. */
static void strike(void)
{
    uint32_t what = below(64);

    if (what < 16) {
        kill_any();
    } else if (what < 32) {
        kill_holder();
    } else if (what < 36) {
        kill_waiters();
    } else if (what < 38) {
        kill_many();
    } else if (what < 42) {
        resizer_kill();
        resizer_start();
    } else if (what < 45 && supervised) {
        supervisor_kill();
        supervisor_start();
    } else if (what < 45) {
        reaper_kill();
    } else if (what < 50 && !supervised) {
        reap(); /* else the others find out by themselves */
    }
}

/* ---- audits -------------------------------------------------------------- */

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

/* Holders are stopped, so that there are dead ones' locks when all die. */
static void freeze_holders(void)
{
    uint32_t slot;

    for (int i = 0; i < 4 && (slot = stop_holder()) < storm.workers; i++)
        frozen |= 1u << slot;
}

static void kill_all(void)
{
    for (uint32_t i = 0; i < storm.workers; i++) {
        if ((frozen >> i & 1) != 0)
            end_stop(i, true);
        else
            kill_one(i);
    }
    frozen = 0;
    for (uint32_t i = 0; i < storm.workers; i++)
        bury(i);
}

/* All die at once; nobody disturbs while everything is verified. */
static void audit(void)
{
    resizer_kill();
    supervisor_kill();
    freeze_holders();
    kill_all();
    supervisors_wait();
    calm &= report_judge();
    recoverers_kill();
    if (below(2) == 0)
        reap();
    check_segment();
    if (audit_all(&storm) != 0)
        end(1);
    reap();
    check_workers_free();
    check_segment();
    tally.audits++;
}

/* ---- from beginning to end ---- */

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

_Noreturn void end(int status)
{
    for (uint32_t i = 0; i < SLOTS_MAX; i++) {
        if (pids[i] > 0)
            (void)kill(pids[i], SIGKILL);
    }
    others_end();
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
    if (meter_open(&parent_meter) != 0)
        die("/proc/thread-self/schedstat");
}

static int usage(void)
{
    fprintf(stderr, "usage: storm [--kills N] [--seconds S] [--workers N] "
                    "[--seed N] [--supervisor]\n");
    return 2;
}

static sigset_t deaths(void)
{
    sigset_t set;

    if (sigemptyset(&set) != 0 || sigaddset(&set, SIGCHLD) != 0)
        die("sigaddset");
    return set;
}

/* Waits for a death, or some time. */
static void wait_for_death(void)
{
    struct timespec t = {.tv_nsec = 50000 + below(500000)};
    sigset_t set = deaths();

    (void)sigtimedwait(&set, NULL, &t);
}

static void rage(uint64_t kills_asked, double seconds_asked)
{
    uint64_t began = meter_now_ns(), next_audit = AUDIT_EVERY;
    sigset_t set = deaths();

    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        die("sigprocmask");
    start_all();
    while (tally.kills < kills_asked &&
           (double)(meter_now_ns() - began) / 1e9 < seconds_asked) {
        wait_for_death();
        bury_dead();
        strike();
        if (tally.kills >= next_audit) {
            audit();
            next_audit += AUDIT_EVERY;
            start_all();
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
    report_kills((double)(meter_now_ns() - began) / 1e9);
    report_stalls();
    resize_back(storm.big, BIG_BYTES);
    resize_back(storm.small, SMALL_BYTES);
    check_segment();
    empty_dict(storm.big, big.free_bytes, "big dict");
    empty_dict(storm.small, small.free_bytes, "small dict");
    check_segment();
    end(calm ? 0 : 1);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/storm/parent.h"
#include "shm/api/handle.h"
#include "shm/memory/catalogue.h"

#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define DYING_MAX 8u
#define SUCCESSION_NS 60000000000u

static pid_t resizer, supervisor;
static pid_t dying[DYING_MAX]; /* supervisors: they take their time */

/* Those it was killed in are counted by the caller. */
static void buried(const char *what, int status)
{
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        printf("    the %s ended with status 0x%x\n", what, status);
        end(1);
    }
    tally.kills++;
}

static void kill_and_wait(pid_t pid, const char *what)
{
    int status;

    if (kill(pid, SIGKILL) != 0 || wait_for(pid, &status, 0) != pid)
        die(what);
    buried(what, status);
}

void others_bury(pid_t pid)
{
    int status;

    if (wait_for(pid, &status, 0) != pid)
        die("waitpid");
    for (unsigned i = 0; i < DYING_MAX; i++) {
        if (dying[i] != pid)
            continue;
        dying[i] = 0;
        buried("supervisor", status);
        tally.supervising++;
        return;
    }
    printf("    the %s ended with status 0x%x\n",
           pid == resizer      ? "resizer"
           : pid == supervisor ? "supervisor"
                               : "stranger", status);
    end(1);
}

void others_end(void)
{
    if (resizer > 0)
        (void)kill(resizer, SIGKILL);
    if (supervisor > 0)
        (void)kill(supervisor, SIGKILL);
}

/* ---- the one that resizes ------------------------------------------------ */

static uint64_t between(uint64_t least, uint64_t most)
{
    return least + parent_random() % (most - least + 1);
}

/* Both dicts, up and down. Stores may take the small one's room as fast as it
 * is made. */
static _Noreturn void resize_for_ever(void)
{
    struct meter *m = &storm.journal->resizer;

    if (meter_open(m) != 0)
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

void resizer_start(void)
{
    resizer = parent_fork();
    if (resizer == 0)
        resize_for_ever();
}

void resizer_kill(void)
{
    meter_cut(&storm.journal->resizer, resizer, KIND_NONE);
    kill_and_wait(resizer, "resizer");
    resizer = 0;
    tally.resizing++;
}

/* ---- the supervisor ------------------------------------------------------ */

static void note_recovery(const struct shd_watch_event *e)
{
    for (uint32_t i = 0; i < storm.workers; i++) {
        const struct slot *s = &storm.journal->slot[i];
        uint64_t killed = __atomic_load_n(&s->killed_ns, __ATOMIC_ACQUIRE);

        if (s->pid == e->pid && killed != 0 && e->at_ns > killed)
            histogram_add(&storm.journal->recovery, e->at_ns - killed);
    }
}

/* Recovers from every death, its predecessor's too. Only one at a time; it
 * waits for the one before it to be gone. */
static _Noreturn void supervise_for_ever(void)
{
    struct shd_watch_options o = {.struct_size = sizeof(o),
                                  .flags = SHD_WATCH_SUPERVISE};
    struct shd_watch_event e = {.struct_size = sizeof(e)};
    shd_watch *watch;
    uint64_t began = meter_now_ns();
    int rc;

    while ((rc = shd_watch_open(storm.segment, &o, &watch)) == SHD_EXISTS &&
           meter_now_ns() - began < SUCCESSION_NS)
        (void)usleep(300);
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

void supervisor_start(void)
{
    if (!supervised)
        return;
    supervisor = parent_fork();
    if (supervisor == 0)
        supervise_for_ever();
}

void supervisor_kill(void)
{
    unsigned i = 0;

    if (!supervised)
        return;
    while (i < DYING_MAX && dying[i] != 0)
        i++;
    if (i == DYING_MAX) {
        i = below(DYING_MAX);
        others_bury(dying[i]);
    }
    if (kill(supervisor, SIGKILL) != 0)
        die("supervisor");
    dying[i] = supervisor;
    supervisor = 0;
}

void supervisors_wait(void)
{
    for (unsigned i = 0; i < DYING_MAX; i++)
        if (dying[i] != 0)
            others_bury(dying[i]);
}

/* ---- those that reap and recover ----------------------------------------- */

void reaper_kill(void)
{
    pid_t pid = parent_fork();

    if (pid == 0) {
        while (shd_reap(storm.segment, NULL) == SHD_OK)
            ;
        _exit(3);
    }
    (void)usleep(below(800));
    kill_and_wait(pid, "reaper");
    tally.reaping++;
}

/* A lock whose holder has died, and nobody has come by yet. */
static struct guard *dead_lock(void)
{
    const struct segment *s = &storm.segment->segment;
    uint32_t guards = catalogue_guards(s);

    for (uint32_t i = 0; i < guards; i++) {
        struct guard *g = guard_at(s, i);

        if ((__atomic_load_n(&g->lock, __ATOMIC_RELAXED) & FUTEX_OWNER_DIED))
            return g;
    }
    return NULL;
}

/* How long before the timer is due a recovery must begin to be hit: learnt
 * from where the ones before were hit. */
#define AIM_NS 100000u
#define AIM_STEP_NS 500
static int64_t aim_ns = 5000;

static _Noreturn void recover_until_killed(struct guard *g)
{
    struct stage *stage = &storm.journal->recoverer;
    struct guard_env *env = &storm.segment->env;
    int64_t ahead = aim_ns + (int64_t)below(8 * AIM_STEP_NS) -
                    4 * AIM_STEP_NS;
    struct slot own = {0};
    uint64_t begin = meter_now_ns() + AIM_NS - (uint64_t)ahead;

    worker_dies_in(&own, AIM_NS);
    while (meter_now_ns() < begin)
        ;
    __atomic_store_n(&stage->at, STAGE_IN, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    int rc = guard_reap(env, g);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&stage->at, STAGE_AFTER, __ATOMIC_RELAXED);
    if (rc < 0)
        _exit(3);
    for (;;)
        (void)pause();
}

void recoverers_kill(void)
{
    struct stage *stage = &storm.journal->recoverer;
    struct guard *g = dead_lock();

    for (uint32_t i = 0; i < RECOVERERS && g != NULL; i++, g = dead_lock()) {
        pid_t pid;
        int status;

        stage->at = STAGE_BEFORE;
        pid = parent_fork();
        if (pid == 0)
            recover_until_killed(g);
        if (wait_for(pid, &status, 0) != pid)
            die("waitpid");
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
            printf("    a recovery failed: status 0x%x\n", status);
            end(1);
        }
        tally.kills++;
        tally.by_timer++;
        tally.recovering += stage->at == STAGE_IN;
        if (stage->at == STAGE_BEFORE)
            aim_ns += AIM_STEP_NS;
        else if (stage->at == STAGE_AFTER)
            aim_ns -= AIM_STEP_NS;
        if (aim_ns < 4 * AIM_STEP_NS - (int64_t)AIM_NS)
            aim_ns = 0;
        if (aim_ns > (int64_t)AIM_NS - 4 * AIM_STEP_NS)
            aim_ns = (int64_t)AIM_NS - 4 * AIM_STEP_NS;
    }
}

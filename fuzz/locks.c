/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuzz/locks.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fuzz/workers.h"
#include "shm/guard/reading.h"
#include "shm/guard/txn.h"

#define WORDS 8u    /* of data under the guard */
#define OWNERS 4u   /* that can be claimed, each with its bit of one map */
#define OWNER 7u
#define MEDDLES 40u /* in one call, */
#define STUBBORN 3000u /* or for who does the same each time */
#define NS 1000000000l

/* What is under the guard: in the memory of the one before it. */
struct under {
    uint64_t word[WORDS];
    uint64_t map;
    uint32_t owner[OWNERS];
};

static struct at_work {
    struct play *p;
    struct guard *guard, *other;
    struct under *data;
    struct under before, after; /* the transaction */
    struct guard kept[2];
    uint32_t meddles, left; /* how often somebody did, and may */
    uint32_t always;        /* the same, before each access; 0: anything */
    bool spoilt;            /* the log is none of ours any more */
} it;

static void wrote_guards(void)
{
    workers_wrote(it.other, sizeof(*it.other));
    workers_wrote(it.guard, sizeof(*it.guard));
}

static uint64_t draw(uint64_t below)
{
    return play_draw(it.p, below);
}

/* ---- in between ------------------------------------------------------------- */

static uint32_t some_holder(void)
{
    uint32_t me = workers_tid(workers_current());

    switch (draw(8)) {
    case 0: return 0;
    case 1: return me;
    case 2: return me | FUTEX_OWNER_DIED;
    case 3: return FUTEX_OWNER_DIED;
    case 4: return FUTEX_WAITERS;
    case 5: return 1 + (uint32_t)draw(1 << 16); /* the odd ones live */
    case 6: return workers_tid(WORKERS) | FUTEX_WAITERS;
    default: return workers_tid(WORKERS);
    }
}

static void read_past(void)
{
    struct segment *s = &it.p->readonly->segment;
    struct guard *g =
        guard_at(s, (uint32_t)(it.guard -
                               guard_at(&it.p->segment->segment, 0)));
    struct undone *u = undone_enter(s, g);

    if (u != NULL)
        (void)undone_leave(u);
}

static void alter(uint32_t how)
{
    struct guard *g = it.guard;

    switch (how) {
    case 1: g->lock ^= FUTEX_WAITERS; break;
    case 2: g->seq += 2; break;
    case 3: g->seq ^= 1; break;
    case 4: g->state ^= 1ull << draw(50); break;
    case 5: g->damaged ^= 1; break;
    case 6: g->wait[draw(GUARD_WAITS)].armed ^= 1; break;
    case 7:
        if (it.p->readonly != NULL)
            read_past();
        break;
    default: g->lock = some_holder(); break;
    }
}

static void meddle(const void *at, size_t bytes)
{
    (void)at;
    (void)bytes;
    it.meddles++;
    alter(it.always != 0 ? it.always : (uint32_t)draw(10));
    if (it.always != 0 && it.left > 0) {
        it.left--;
        workers_interrupt(1, meddle);
    } else if (it.left > 0 && draw(2) == 0) {
        it.left--;
        workers_interrupt(1 + draw(64), meddle);
    }
}

/* Maybe somebody interferes from now on. */
static void let_meddle(void)
{
    uint64_t how = draw(4);

    if (how == 0) {
        it.always = 1 + (uint32_t)draw(3);
        it.left = STUBBORN;
    } else if (how == 1) {
        it.always = 0;
        it.left = MEDDLES;
    } else {
        return;
    }
    workers_interrupt(1 + draw(64), meddle);
}

static bool quiet(void)
{
    return it.meddles == 0 && !it.spoilt;
}

/* ---- the word ------------------------------------------------------------------ */

static struct timespec some_time(void)
{
    static const long FROM_NOW[] = {0, -NS, 1, 20000000, NS - 600000, 3 * NS};
    struct timespec t;
    long ns;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    ns = t.tv_nsec + FROM_NOW[draw(6)];
    t.tv_sec += ns / NS - (ns < 0);
    t.tv_nsec = (ns % NS + NS) % NS;
    return t;
}

static void have(const uint32_t *word, int rc)
{
    if (quiet() && (rc == 0 || rc == EOWNERDEAD) &&
        (*word & FUTEX_TID_MASK) != workers_tid(workers_current()))
        play_fail(it.p, "the lock was given, and is another's");
}

/* With a lock, or without one. */
static void try_words(void)
{
    uint32_t *word = &it.guard->lock, *second = &it.other->lock;
    bool had = false;
    int rc;

    it.p->doing = "lock word";
    it.guard->lock = some_holder();
    let_meddle();
    workers_refuse_clock((uint32_t)draw(8) / 4 * (1 + (uint32_t)draw(3)));
    for (uint64_t n = 1 + draw(5); n > 0; n--) {
        struct timespec until = some_time();

        workers_wake_early((uint32_t)draw(3));
        switch (draw(6)) {
        case 0:
        case 1:
        case 2:
            rc = n % 2 == 0 ? robust_trylock(word) : robust_wait(word, &until);
            if (had && quiet() && rc != EBUSY)
                play_fail(it.p, "had, and given once more");
            have(word, rc);
            had = had || rc == 0 || rc == EOWNERDEAD;
            break;
        case 3:
            rc = robust_trylock(second);
            if (rc == 0 && !had)
                (void)robust_unlock(second);
            else if (quiet() && had && rc != EDEADLK)
                play_fail(it.p, "a second lock at a time: %d", rc);
            break;
        case 4:
            if (!had)
                workers_ask_again(0);
            rc = robust_unlock(word);
            if (quiet() && had && rc != 0)
                play_fail(it.p, "had, and not let go of: %d", rc);
            had = false;
            break;
        default:
            if (!had)
                workers_ask_again((uint32_t)draw(8));
            break;
        }
    }
    workers_wake_early(0);
    workers_refuse_clock(0);
    workers_interrupt(0, NULL);
    if (!had)
        workers_ask_again(0);
    (void)robust_unlock(word);
    workers_ask_again(0);
}

/* ---- who has it --------------------------------------------------------------- */

/* What /proc tells of a thread: its state, or something else; of one of ours,
 * who is none, nothing. */
#define PROC_FD (1 << 24)
static uint32_t asked_for;

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list more;
    mode_t mode = 0;

    if (workers_inside() && sscanf(path, "/proc/%u/stat", &asked_for) == 1 &&
        asked_for < workers_tid(0) && asked_for != (uint32_t)getpid()) {
        errno = EMFILE;
        return asked_for % 16 == 15 ? -1 : PROC_FD;
    }
    if ((flags & (O_CREAT | O_TMPFILE)) != 0) {
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
    }
    return __real_open(path, flags, mode);
}

ssize_t __real_read(int fd, void *to, size_t size);
ssize_t __wrap_read(int fd, void *to, size_t size);
ssize_t __wrap_read(int fd, void *to, size_t size)
{
    static const char *const TEXTS[] = {"7 (a) b) S 1", "7 (a) Z 1", "7 (a) X",
                                        "7 (a)Z 1", "7 a", "", "7 (a) R", "7 ("};
    const char *text = TEXTS[asked_for / 2 % 8];
    size_t len = strlen(text);

    if (fd != PROC_FD)
        return __real_read(fd, to, size);
    len = len < size ? len : size;
    memcpy(to, text, len);
    return (ssize_t)len;
}

/* ---- the log --------------------------------------------------------------------- */

static bool is_as(const struct under *now, const struct under *then)
{
    return memcmp(now->word, then->word, sizeof(now->word)) == 0 &&
           memcmp(now->owner, then->owner, sizeof(now->owner)) == 0 &&
           now->map == then->map;
}

/* What it is to do is known before. */
static void plan(uint64_t *stores, bool *commits)
{
    *stores = draw(2 * WORDS);
    *commits = draw(4) != 0;
    it.data->map = ~0ull;
    for (uint32_t i = 0; i < OWNERS; i++) {
        it.data->owner[i] = draw(3) == 0 ? OWNER : 0;
        if (it.data->owner[i] != 0)
            it.data->map &= ~(1ull << i);
    }
    memcpy(&it.before, it.data, sizeof(it.before));
    memcpy(&it.after, it.data, sizeof(it.after));
    for (uint64_t i = 0; i < *stores; i++)
        it.after.word[i % WORDS] = it.before.word[i % WORDS] + 1 + i / WORDS;
    for (uint32_t i = 0; *stores % 2 != 0 && i < OWNERS; i++) {
        it.after.owner[i] = it.before.owner[i] == 0 ? OWNER : 0;
        it.after.map ^= 1ull << i;
    }
    if (!*commits)
        it.after = it.before;
}

static void change(const struct guard_env *env, uint64_t stores, bool commits)
{
    struct under *d = it.data;
    struct txn t;

    if (guard_lock(env, it.guard) != SHD_OK)
        return;
    txn_begin(&t, env->segment, it.guard, 2 * WORDS);
    for (uint64_t i = 0; i < stores; i++)
        txn_store64(&t, &d->word[i % WORDS], d->word[i % WORDS] + 1);
    for (uint32_t i = 0; stores % 2 != 0 && i < OWNERS; i++) {
        if (it.before.owner[i] == 0)
            (void)txn_claim(&t, &d->owner[i], OWNER, &d->map, i);
        else
            txn_release(&t, &d->owner[i], OWNER, &d->map, i);
    }
    if (commits)
        txn_commit(&t);
    else
        txn_abort(&t);
    guard_unlock(it.guard);
}

/* A field of the log. */
static void spoil(void)
{
    struct guard *g = it.guard;
    uint64_t some = draw(2) == 0 ? draw(64) : 1ull << draw(64);

    it.spoilt = true;
    switch (draw(10)) {
    case 0: g->state = txn_state((uint32_t)some, 0, 0); break;
    case 1: g->state = txn_state(0, (uint32_t)some, 0); break;
    case 2: g->state = txn_state(0, 0, (uint32_t)some); break;
    case 3: g->state |= some; break;
    case 4: g->seq ^= some; break;
    case 5: g->undo[draw(4)].old ^= some; break;
    case 6: g->undo[draw(4)].where ^= some; break;
    case 7: g->claims[0].owner_at ^= some; break;
    case 8: g->releases[0].bit ^= (uint32_t)some; break;
    default: g->damaged = 1; break;
    }
}

/* By an attachment that cannot take the lock, or by one that can. */
static void look(const struct guard_env *env, const struct under *d,
                 struct guard *g)
{
    struct reading r;
    struct under seen;
    uint32_t rounds = 0;
    bool whole;

    reading_begin(&r, env, g);
    do {
        if (reading_try(&r) != SHD_OK)
            return;
        reading_copy(&seen, d, sizeof(seen));
        whole = reading_done(&r);
    } while (!whole && rounds++ < 40);
    if (whole && quiet() && !is_as(&seen, &it.before) &&
        !is_as(&seen, &it.after))
        play_fail(it.p, "half a transaction was read");
}

static void look_past(struct guard_env *env)
{
    struct segment *s = &it.p->readonly->segment;
    uint64_t data = segment_offset(&it.p->segment->segment, it.data);
    uint64_t guard = segment_offset(&it.p->segment->segment, it.guard);

    env->segment = s;
    workers_refuse(0, (uint32_t)draw(24));
    look(env, segment_at(s, data, sizeof(struct under)),
         segment_at(s, guard, sizeof(struct guard)));
    workers_refuse(0, 0);
    env->segment = &it.p->segment->segment;
}

static void recover(struct guard_env *env)
{
    struct guard *g = it.guard;
    bool sound = false;
    char report[100];
    int rc;

    workers_refuse_clock((uint32_t)draw(8) / 7);
    switch (draw(5)) {
    case 0: rc = guard_lock(env, g); break;
    case 1: rc = guard_trylock(env, g); break;
    case 2:
        rc = guard_reap(env, g);
        (void)guard_check(g, report, sizeof(report));
        guard_kick(g);
        if (rc > 0)
            rc = SHD_OK;
        break;
    case 3:
        rc = guard_seize(env, g, &sound);
        if (rc == SHD_OK && !sound) {
            guard_fence(g);
            (void)guard_check(g, report, sizeof(report));
            guard_mend(g, draw(3) == 0 ? g->seq + draw(1000) : 0);
        }
        break;
    default: look(env, it.data, g); return;
    }
    if (rc != SHD_OK && quiet())
        play_fail(it.p, "no recovery: %d", rc);
    guard_unlock(g);
    if (rc == SHD_OK && quiet() && !is_as(it.data, &it.before) &&
        !is_as(it.data, &it.after))
        play_fail(it.p, "half a transaction was left");
}

/* A transaction, cut off or not, and who comes after it. */
static void try_log(void)
{
    struct guard_env env = it.p->segment->env;
    volatile uint64_t rounds = 1 + draw(2);
    uint64_t stores, stop;
    bool commits;

    it.p->doing = "log";
    env.wait_ms = (uint32_t)(draw(4) == 0 ? draw(3000) : draw(80));
    plan(&stores, &commits);
    stop = 1 + draw(80);
    if (draw(3) == 0)
        it.guard->lock = some_holder(), it.spoilt = true;
    let_meddle();
    if (workers_try(stop)) {
        change(&env, stores, commits);
        workers_done();
    }
    workers_interrupt(0, NULL);
    if (draw(3) == 0)
        spoil();
    for (; rounds > 0; rounds--) {
        env = it.p->segment->env;
        env.wait_ms = (uint32_t)draw(80);
        if (draw(3) == 0)
            let_meddle();
        if (draw(2) == 0 && it.p->readonly != NULL)
            look_past(&env);
        recover(&env);
        workers_interrupt(0, NULL);
        workers_refuse_clock(0);
    }
}

bool locks_take(struct play *p, struct guard **guard, struct guard **memory)
{
    struct segment *s = &p->segment->segment;

    it = (struct at_work){.p = p};
    if (s->locks_max < 2)
        return false;
    it.guard = guard_at(s, s->locks_max - 1);
    it.other = guard_at(s, s->locks_max - 2);
    if (it.guard->object != 0 || it.other->object != 0)
        return false;
    p->ops++;
    it.kept[0] = *it.other;
    it.kept[1] = *it.guard;
    wrote_guards();
    memset(it.guard, 0, sizeof(*it.guard));
    memset(it.other, 0, sizeof(*it.other));
    *guard = it.guard;
    *memory = it.other;
    return true;
}

void locks_give_back(void)
{
    *it.other = it.kept[0];
    *it.guard = it.kept[1];
}

void locks_op(struct play *p)
{
    struct guard *guard, *memory;

    if (!locks_take(p, &guard, &memory))
        return;
    it.data = (struct under *)(void *)memory->undo;
    if (draw(2) == 0)
        try_words();
    else
        try_log();
    locks_give_back();
}

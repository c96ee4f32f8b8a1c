/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * In a page that all share each slot has its operations in a row: what it is
 * about to do is written there before, what came of it after. A process is
 * killed when it likes the parent, and another one goes on in its slot, behind
 * the operation that was cut off. Between an operation and its ticks a process
 * often gives up the processor, so that more of them overlap.
 *
 * A value is known by a number that is stored once; its length follows from
 * the number, and so do its bytes: a value that is torn is no value.
 */
#include "tests/histories/history.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/shdict.h"

#define VALUE_MAX 90000u
#define KILLS_MAX 12u    /* in a round */
#define PAUSE_NS 400000u /* between two, at most */
#define TORN UINT32_MAX

enum type { REGISTER, NUMBER, LIST };
static const enum type TYPE_OF[DICT_KEYS] = {REGISTER, REGISTER, REGISTER, REGISTER,
                                        NUMBER,   NUMBER,   LIST,     LIST};

/* How often of 16; the type's other verbs follow. */
static const uint8_t VERBS_OF[3][16] = {
    {GET, GET, GET, GET, SET, SET, SET, ADD, ADD, REPLACE, REPLACE, DELETE,
     DELETE, TAKE, CAS, CAS},
    {GET, GET, INCR, INCR, INCR, INCR, INIT, INIT, INIT, INIT, INIT, DELETE,
     SET, ADD, REPLACE, TAKE},
    {LPUSH, LPUSH, RPUSH, RPUSH, RPUSH, LPOP, LPOP, LPOP, RPOP, RPOP, RPOP,
     LLEN, LLEN, LPOP, DELETE, RPUSH},
};

#define DEATH KEYS /* for a key: of all objects */
#define ENTRIES (ROUND_MAX + 2 * KILLS_MAX + 8u)

struct entry {
    struct operation operation;
    uint32_t key;
    bool begun; /* what is above stands, and it may be in flight */
};

/* Whose box a slot's process has. */
struct box {
    uint32_t process; /* 0: none yet; written last */
    uint64_t incarnation;
};

struct page {
    uint64_t ticks;
    uint32_t values; /* the last one given */
    bool failed;
    char failure[200];
    uint32_t lives[SLOTS];
    struct box box[SLOTS];
    uint32_t count[SLOTS];
    struct entry entry[SLOTS][ENTRIES];
};

static struct page *page;
static shd_segment *segment;
static shd_dict *dict;
static unsigned char bytes[VALUE_MAX + 8];
static uint64_t seed;
static uint64_t round_number;

static uint64_t random_of(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static uint32_t below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(random_of(state) % n);
}

static uint64_t tick(void)
{
    return __atomic_add_fetch(&page->ticks, 1, __ATOMIC_SEQ_CST);
}

static bool failed(const char *what, int rc)
{
    snprintf(page->failure, sizeof(page->failure), "%s gave %s: %s", what,
             shd_strerror_name(rc), shd_last_error());
    __atomic_store_n(&page->failed, true, __ATOMIC_SEQ_CST);
    return false;
}

/* ---- values ---------------- */

/* In one cell, in a few, and so long that readers take it in slices. */
static uint32_t length_of(uint32_t value)
{
    static const uint32_t MOST[8] = {12, 12, 60, 60, 500, 3000, 12000, 80000};
    uint64_t state = value;

    return 8 + below(&state, MOST[value % 8]);
}

static size_t fill(uint32_t value)
{
    uint32_t len = length_of(value);

    memset(bytes, (int)(value * 31 & 0xff), len);
    memcpy(bytes, &value, sizeof(value));
    return len;
}

static uint32_t value_of(const struct shd_value *v)
{
    uint32_t value;

    if (v->type != SHD_STRING)
        return v->number == (double)(uint32_t)v->number ? (uint32_t)v->number
                                                        : TORN;
    memcpy(&value, bytes, sizeof(value));
    if (v->len < sizeof(value) || v->len != length_of(value))
        return TORN;
    for (size_t i = sizeof(value); i < v->len; i++) {
        if (bytes[i] != (value * 31 & 0xff))
            return TORN;
    }
    return value;
}

/* ---- operations ---------------- */

struct call {
    struct entry *e;
    const char *key;
    size_t len;
    enum type type;
};

static int store(const struct call *c, uint32_t op)
{
    uint32_t value = c->e->operation.value;

    if (c->type == NUMBER)
        return shd_store(dict, op, c->key, c->len, SHD_NUMBER, NULL, 0, value,
                         0, 0, NULL);
    return shd_store(dict, op, c->key, c->len, SHD_STRING, bytes, fill(value),
                     0, 0, 0, NULL);
}

static int compare_and_set(const struct call *c)
{
    static unsigned char old[VALUE_MAX + 8];
    size_t old_len = fill(c->e->operation.other), len;

    memcpy(old, bytes, old_len);
    len = fill(c->e->operation.value);
    return shd_cas(dict, c->key, c->len, SHD_STRING, old, old_len, 0,
                   SHD_STRING, bytes, len, 0, 0, 0, NULL);
}

static int change(const struct call *c, struct shd_value *v)
{
    struct operation *o = &c->e->operation;
    uint64_t length = 0;
    int rc;

    switch ((enum verb)o->verb) {
    case INCR:
    case INIT:
        v->type = SHD_NUMBER;
        return shd_incr(dict, c->key, c->len, o->value, o->verb == INIT, 0, 0,
                        &v->number, NULL);
    case LPUSH:
    case RPUSH:
        rc = shd_push(dict, o->verb == LPUSH, c->key, c->len, SHD_STRING,
                      bytes, fill(o->value), 0, &length);
        break;
    default:
        rc = shd_llen(dict, c->key, c->len, &length);
        break;
    }
    v->type = SHD_NUMBER;
    v->number = (double)length;
    return rc;
}

/* What a code means; *value tells whether v has a result. */
static int call(const struct call *c, struct shd_value *v, bool *value)
{
    enum verb verb = c->e->operation.verb;

    *value = false;
    switch (verb) {
    case SET:
        return store(c, SHD_SET);
    case ADD:
        return store(c, SHD_ADD);
    case REPLACE:
        return store(c, SHD_REPLACE);
    case DELETE:
        return shd_delete(dict, c->key, c->len);
    case CAS:
        return compare_and_set(c);
    case GET:
        *value = true;
        return shd_get(dict, c->key, c->len, bytes, VALUE_MAX, v);
    case TAKE:
        *value = true;
        return shd_take(dict, c->key, c->len, bytes, VALUE_MAX, v);
    case LPOP:
    case RPOP:
        *value = true;
        return shd_pop(dict, verb == LPOP, c->key, c->len, bytes, VALUE_MAX,
                       v);
    default:
        *value = true;
        return change(c, v);
    }
}

static bool outcome_of(int rc, uint8_t *outcome)
{
    static const struct {
        int rc;
        enum outcome outcome;
    } CODES[] = {{SHD_OK, DONE},
                 {SHD_NOTFOUND, NOTFOUND},
                 {SHD_EXISTS, EXISTS},
                 {SHD_CHANGED, CHANGED}};

    for (size_t i = 0; i < sizeof(CODES) / sizeof(CODES[0]); i++) {
        if (CODES[i].rc == rc) {
            *outcome = (uint8_t)CODES[i].outcome;
            return true;
        }
    }
    return false;
}

/* Somebody's box, or that of one who is gone. */
static struct box some_box(uint64_t *state)
{
    const struct box *b = &page->box[below(state, SLOTS)];
    uint32_t process = __atomic_load_n(&b->process, __ATOMIC_SEQ_CST);
    struct box copy = {
        .incarnation = __atomic_load_n(&b->incarnation, __ATOMIC_SEQ_CST)};

    if (process == __atomic_load_n(&b->process, __ATOMIC_SEQ_CST))
        copy.process = process;
    return copy;
}

static void choose(struct entry *e, uint64_t *state, uint32_t seen,
                   const struct holding *h, struct box *box)
{
    struct operation *o = &e->operation;

    e->key = below(state, KEYS);
    o->value = __atomic_add_fetch(&page->values, 1, __ATOMIC_RELAXED);
    if (e->key >= DICT_KEYS) {
        *box = some_box(state);
        objects_choose(h, e->key, below(state, 8), box->process, o);
        return;
    }
    o->verb = VERBS_OF[TYPE_OF[e->key]][below(state, 16)];
    if (TYPE_OF[e->key] == NUMBER)
        o->value = 1 + below(state, 1000);
    o->other = o->verb == CAS ? seen : 0;
}

static bool perform_call(struct entry *e, uint32_t *seen)
{
    struct operation *o = &e->operation;
    struct shd_value v = {0};
    char key[40];
    struct call c = {.e = e, .key = key, .type = TYPE_OF[e->key]};
    bool value;
    int rc;

    c.len = (size_t)snprintf(key, sizeof(key), "%llu %u",
                             (unsigned long long)round_number, e->key);
    rc = call(&c, &v, &value);
    if (!outcome_of(rc, &o->outcome))
        return failed(VERB_NAMES[o->verb], rc);
    if (value && rc == SHD_OK)
        o->result = value_of(&v);
    if (o->verb == GET && rc == SHD_OK && c.type == REGISTER)
        *seen = o->result;
    return true;
}

static bool perform(struct entry *e, uint64_t *state, uint32_t *seen,
                    struct holding *h, const struct box *box)
{
    struct operation *o = &e->operation;
    int rc;

    o->began = tick();
    __atomic_store_n(&e->begun, true, __ATOMIC_SEQ_CST);
    if (below(state, 4) == 0)
        (void)sched_yield();
    if (e->key < DICT_KEYS) {
        if (!perform_call(e, seen))
            return false;
    } else if (!objects_perform(h, o, box->incarnation, &rc)) {
        return failed(VERB_NAMES[o->verb], rc);
    }
    if (below(state, 4) == 0)
        (void)sched_yield();
    __atomic_store_n(&o->ended, tick(), __ATOMIC_SEQ_CST);
    return true;
}

static struct entry *next_entry(uint32_t slot)
{
    struct entry *e = &page->entry[slot][page->count[slot]];

    e->operation.slot = (uint8_t)slot;
    return e;
}

/* Its first operation, and then others know its box. */
static bool listen_first(uint32_t slot, uint64_t *state, struct holding *h)
{
    struct entry *e = next_entry(slot);
    struct box *box = &page->box[slot];
    uint64_t incarnation;
    int rc = objects_join(&incarnation);

    if (rc != SHD_OK)
        return failed("join", rc);
    e->key = MAILBOX;
    e->operation.verb = LISTEN;
    e->operation.other = h->process;
    if (!perform(e, state, NULL, h, box))
        return false;
    __atomic_fetch_add(&page->count[slot], 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&box->process, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&box->incarnation, incarnation, __ATOMIC_SEQ_CST);
    __atomic_store_n(&box->process, h->process, __ATOMIC_SEQ_CST);
    return true;
}

/* A process of that slot, from where the one before it has come to. */
static _Noreturn void work(uint32_t slot)
{
    uint64_t state = seed * SLOTS + slot + page->count[slot] * 0x10001ull;
    struct holding h = {.process = 1 + slot + SLOTS * page->lives[slot]};
    struct box box = {0};
    uint32_t seen = 0;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 ||
        (page->count[slot] < ROUND_MAX && !listen_first(slot, &state, &h)))
        _exit(1);
    for (;;) {
        struct entry *e = next_entry(slot);

        if (page->count[slot] < ROUND_MAX)
            choose(e, &state, seen, &h, &box);
        else if (!objects_give_back(&h, &e->operation, &e->key))
            _exit(0);
        if (!perform(e, &state, &seen, &h, &box))
            _exit(1);
        __atomic_fetch_add(&page->count[slot], 1, __ATOMIC_SEQ_CST);
    }
}

/* ---- the parent ---------------- */

bool record_open(void)
{
    struct shd_segment_options so = {
        .struct_size = sizeof(so), .size_bytes = 256u << 20, .wait_ms = 60000};
    struct shd_dict_options o = {
        .struct_size = sizeof(o), .capacity_bytes = 64u << 20, .shards = 4};
    int rc = shd_segment_create(NULL, &so, &segment);

    if (rc == SHD_OK)
        rc = shd_dict_open(segment, "histories", &o, &dict);
    if (rc != SHD_OK) {
        printf("  FAIL it could not be set up: %s\n", shd_last_error());
        return false;
    }
    if (!objects_open(segment))
        return false;
    page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return page != MAP_FAILED;
}

static pid_t start(uint32_t slot)
{
    pid_t pid;

    fflush(stdout);
    page->lives[slot]++;
    pid = fork();
    if (pid == 0)
        work(slot);
    if (pid < 0)
        perror("fork");
    return pid;
}

/* What a process that has just gone was in the middle of. */
static void cut_off(uint32_t slot, struct recorded *r)
{
    uint32_t n = page->count[slot];
    struct entry *e = &page->entry[slot][n];

    if (!e->begun) {
        memset(e, 0, sizeof(*e));
        return;
    }
    page->count[slot]++;
    if (e->operation.ended != 0)
        return;
    e->operation.cut_off = true;
    e->operation.ended = tick();
    r->cut_off++;
}

/* What it held it has lost when this reap returns; of one that ended by itself,
 * sooner or later. */
static bool note_death(uint32_t slot, uint64_t killed)
{
    struct entry *e = next_entry(slot);
    uint32_t n = page->count[slot]++;
    int rc;

    e->key = DEATH;
    e->operation.other = 1 + slot + SLOTS * page->lives[slot];
    e->begun = true;
    if (killed == 0) {
        e->operation.began = n > 0 ? e[-1].operation.ended : 0;
        e->operation.cut_off = true;
        e->operation.ended = UINT64_MAX;
        return true;
    }
    e->operation.began = killed;
    rc = shd_reap(segment, NULL);
    e->operation.ended = tick();
    if (rc != SHD_OK)
        printf("  FAIL reap gave %s\n", shd_strerror_name(rc));
    return rc == SHD_OK;
}

/* Waits for the slot's process. `killed`: since when, 0: it was not. False: it
 * came to a bad end. */
static bool bury(uint32_t slot, pid_t *pid, uint64_t killed,
                 struct recorded *r)
{
    int status;

    while (waitpid(*pid, &status, 0) < 0) {
        if (errno != EINTR)
            return false;
    }
    *pid = 0;
    cut_off(slot, r);
    if (WIFEXITED(status) ? WEXITSTATUS(status) == 0
                          : killed != 0 && WTERMSIG(status) == SIGKILL)
        return note_death(slot, killed);
    printf("  FAIL a process ended with status 0x%x: %s\n", (unsigned)status,
           page->failure);
    return false;
}

static bool kill_some(pid_t pid[SLOTS], struct recorded *r)
{
    uint64_t state = ~seed;

    for (uint32_t i = 0; i < KILLS_MAX; i++) {
        const struct timespec t = {.tv_nsec = below(&state, PAUSE_NS)};
        uint32_t slot = below(&state, SLOTS);
        uint64_t since;

        (void)nanosleep(&t, NULL);
        if (__atomic_load_n(&page->count[slot], __ATOMIC_SEQ_CST) >= ROUND_MAX)
            continue;
        since = tick();
        (void)kill(pid[slot], SIGKILL);
        r->kills++;
        if (!bury(slot, &pid[slot], since, r))
            return false;
        pid[slot] = start(slot);
        if (pid[slot] < 0)
            return false;
    }
    return true;
}

static bool add(struct recorded *r, uint32_t key, const struct operation *o)
{
    struct history *h = &r->of[key];

    if (h->count == HISTORY_MAX) {
        printf("  FAIL a key has more than %u operations\n", HISTORY_MAX);
        return false;
    }
    h->operation[h->count++] = *o;
    r->objects += key >= DICT_KEYS && o->verb != objects_death(key);
    r->inherited += o->outcome == INHERITED;
    r->refused += o->outcome == LOST;
    return true;
}

static bool add_death(struct recorded *r, struct operation o)
{
    bool good = true;

    for (uint32_t key = DICT_KEYS; key < KEYS && good; key++) {
        o.verb = (uint8_t)objects_death(key);
        good = o.verb == VERBS || add(r, key, &o);
    }
    return good;
}

static bool collect(struct recorded *r)
{
    bool good = true;

    for (uint32_t k = 0; k < KEYS; k++)
        r->of[k].count = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        for (uint32_t i = 0; i < page->count[slot] && good; i++) {
            const struct entry *e = &page->entry[slot][i];

            good = e->key == DEATH ? add_death(r, e->operation)
                                   : add(r, e->key, &e->operation);
            r->operations += e->key != DEATH;
        }
    }
    return good;
}

/* The dict is sound, and its keys go. */
static bool clean_up(void)
{
    char report[300];
    int rc = shd_reap(segment, NULL);

    report[0] = '\0';
    if (rc == SHD_OK)
        rc = shd_segment_check(segment, report, sizeof(report));
    if (rc != SHD_OK) {
        printf("  FAIL reap, check gave %s: %s\n", shd_strerror_name(rc),
               report);
        return false;
    }
    if (!objects_clean_up())
        return false;
    rc = shd_flush_all(dict);
    if (rc == SHD_OK)
        rc = shd_flush_expired(dict, 0, NULL);
    if (rc == SHD_OK)
        return true;
    printf("  FAIL flush gave %s\n", shd_strerror_name(rc));
    return false;
}

bool record_round(uint64_t round_seed, struct recorded *r)
{
    pid_t pid[SLOTS] = {0};
    bool good = true;

    seed = round_seed;
    round_number++;
    memset(page, 0, sizeof(*page));
    for (uint32_t i = 0; i < SLOTS && good; i++) {
        pid[i] = start(i);
        good = pid[i] > 0;
    }
    good = good && kill_some(pid, r);
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (pid[i] <= 0)
            continue;
        if (!good)
            (void)kill(pid[i], SIGKILL);
        good = bury(i, &pid[i], good ? 0 : tick(), r) && good;
    }
    return good && collect(r) && clean_up();
}

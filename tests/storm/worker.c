/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/storm/storm.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Of this process; the big buffers are not on the stack of a loop. */
static const struct storm *st;
static struct slot *self;
static uint32_t self_number;
static uint64_t rng;
static unsigned char bytes[VALUE_MAX + 64], buffer[VALUE_MAX + 64];

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

static _Noreturn void fail(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

static _Noreturn void fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(self->failure, sizeof(self->failure), format, args);
    va_end(args);
    _exit(3);
}

/* A code that the operation may give: `other` beside SHD_OK. */
static void must(int rc, int other, enum kind kind)
{
    if (rc != SHD_OK && rc != other)
        fail("%s gave %s: %s", KIND_NAMES[kind], shd_strerror_name(rc),
             shd_last_error());
}

/* Only the compiler could reorder them: whoever reads them finds a process
 * that is dead, or its own stores. */
static void intend(enum kind kind, uint32_t target, uint64_t version)
{
    self->target = target;
    self->version = version;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&self->kind, kind, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    meter_begin(&self->meter);
}

static void returned(enum kind kind)
{
    meter_end(&self->meter, kind);
    self->ops++;
}

static void acknowledged(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&self->kind, KIND_NONE, __ATOMIC_RELAXED);
}

/* ---- keys of its own ---------------------------------------------------- */

static void own_write(enum kind kind, uint32_t n)
{
    char key[NAME_BYTES];
    unsigned key_len = name_own(key, self_number, n);
    uint64_t len = 0, version = self->next_version++;
    uint32_t op = kind == KIND_ADD       ? SHD_ADD
                  : kind == KIND_REPLACE ? SHD_REPLACE
                  : kind == KIND_SET     ? SHD_SET
                                         : SHD_SET | SHD_SAFE;
    bool there = self->own[n] != 0;
    int wanted = SHD_OK, rc;
    uint32_t type, forcible;
    double number;

    if (kind == KIND_ADD && there)
        wanted = SHD_EXISTS;
    if (kind == KIND_REPLACE && !there)
        wanted = SHD_NOTFOUND;
    type = value_make(self_number, n, version, bytes, &len, &number);
    intend(kind, n, version);
    rc = shd_store(st->big, op, key, key_len, type, bytes, len, number, 0, 0,
                   &forcible);
    returned(kind);
    if (rc != wanted)
        fail("%s of own key %u gave %s: %s", KIND_NAMES[kind], n,
             shd_strerror_name(rc), shd_last_error());
    if (forcible != 0)
        fail("%s evicted something in a dict that has room",
             KIND_NAMES[kind]);
    if (rc == SHD_OK)
        self->own[n] = version;
    acknowledged();
}

static void own_delete(uint32_t n)
{
    char key[NAME_BYTES];
    unsigned key_len = name_own(key, self_number, n);
    bool there = self->own[n] != 0;

    intend(KIND_DELETE, n, 0);
    int rc = shd_delete(st->big, key, key_len);
    returned(KIND_DELETE);
    if (rc != (there ? SHD_OK : SHD_NOTFOUND))
        fail("delete of own key %u gave %s", n, shd_strerror_name(rc));
    self->own[n] = 0;
    acknowledged();
}

static void own_expire(uint32_t n)
{
    char key[NAME_BYTES];
    unsigned key_len = name_own(key, self_number, n);

    intend(KIND_EXPIRE, n, self->own[n]);
    int rc = shd_expire(st->big, key, key_len, 3600000 + below(1000));
    returned(KIND_EXPIRE);
    if (rc != (self->own[n] != 0 ? SHD_OK : SHD_NOTFOUND))
        fail("expire of own key %u gave %s", n, shd_strerror_name(rc));
    acknowledged();
}

static void own_read(uint32_t n)
{
    char why[200] = "";
    int64_t version;

    meter_begin(&self->meter);
    version = value_version(st, self_number, n, why, sizeof(why));
    returned(KIND_GET);
    if (version < 0)
        fail("own key %u: %s", n, why);
    if ((uint64_t)version != self->own[n])
        fail("own key %u has version %" PRId64 ", acknowledged was %" PRIu64,
             n, version, self->own[n]);
}

/* What another acknowledged before is there, or something newer. */
static void read_other(void)
{
    uint32_t other = below(st->workers), n = below(OWN_KEYS);
    struct slot *slot = &st->journal->slot[other];
    uint64_t before = __atomic_load_n(&slot->own[n], __ATOMIC_ACQUIRE);
    char why[200] = "";
    int64_t version;

    meter_begin(&self->meter);
    version = value_version(st, other, n, why, sizeof(why));
    returned(KIND_READ_OTHER);
    if (version < 0)
        fail("worker %u's key %u: %s", other, n, why);
    if (version != 0 && (uint64_t)version < before)
        fail("worker %u's key %u has version %" PRId64 ", after %" PRIu64
             " was acknowledged", other, n, version, before);
}

/* ---- its own queue ------------------------------------------------------ */

static void queue_push(void)
{
    char key[NAME_BYTES];
    unsigned key_len = name_queue(key, self_number);
    uint64_t length;

    intend(KIND_OWN_PUSH, 0, self->queue_tail);
    int rc = shd_push(st->big, 0, key, key_len, SHD_NUMBER, NULL, 0,
                      (double)self->queue_tail, &length);
    returned(KIND_OWN_PUSH);
    must(rc, SHD_OK, KIND_OWN_PUSH);
    self->queue_tail++;
    acknowledged();
    if (length != self->queue_tail - self->queue_head)
        fail("its queue has %" PRIu64 " elements, should have %" PRIu64,
             length, self->queue_tail - self->queue_head);
}

static void queue_pop(void)
{
    char key[NAME_BYTES];
    unsigned key_len = name_queue(key, self_number);
    struct shd_value v;
    bool empty = self->queue_head == self->queue_tail;

    intend(KIND_OWN_POP, 0, self->queue_head);
    int rc = shd_pop(st->big, 1, key, key_len, buffer, sizeof(buffer), &v);
    returned(KIND_OWN_POP);
    if (rc != (empty ? SHD_NOTFOUND : SHD_OK))
        fail("pop from its queue of %" PRIu64 " gave %s",
             self->queue_tail - self->queue_head, shd_strerror_name(rc));
    if (!empty && v.number != (double)self->queue_head)
        fail("its queue gave %g, should be %" PRIu64, v.number,
             self->queue_head);
    if (!empty)
        self->queue_head++;
    acknowledged();
}

/* ---- shared by all ------------------------------------------------------ */

/* Adds one by comparing, until nobody was quicker. */
static int add_by_value(const char *key, unsigned key_len, double *result)
{
    struct shd_value v;
    int rc;

    do {
        rc = shd_get(st->big, key, key_len, NULL, 0, &v);
        if (rc != SHD_OK && rc != SHD_NOTFOUND)
            return rc;
        *result = rc == SHD_OK ? v.number + 1 : 1;
        rc = shd_cas(st->big, key, key_len,
                     rc == SHD_OK ? SHD_NUMBER : SHD_NIL, NULL, 0, *result - 1,
                     SHD_NUMBER, NULL, 0, *result, 0, 0, NULL);
    } while (rc == SHD_CHANGED || rc == SHD_EXISTS);
    return rc;
}

static int add_by_version(const char *key, unsigned key_len, double *result)
{
    struct shd_value v;
    uint64_t version;
    int rc;

    do {
        rc = shd_get_versioned(st->big, key, key_len, NULL, 0, &v, &version);
        if (rc != SHD_OK && rc != SHD_NOTFOUND)
            return rc;
        *result = rc == SHD_OK ? v.number + 1 : 1;
        if (rc == SHD_NOTFOUND)
            version = 0;
        rc = shd_store_versioned(st->big, key, key_len, SHD_NUMBER, NULL, 0,
                                 *result, 0, 0, &version, NULL);
    } while (rc == SHD_CHANGED || rc == SHD_EXISTS);
    return rc;
}

static void counter_incr(void)
{
    static double last[COUNTERS];
    uint32_t n = below(COUNTERS);
    char key[NAME_BYTES];
    unsigned key_len = name_counter(key, n);
    double result = 0;

    intend(KIND_INCR, n, 0);
    int rc;

    switch (below(4)) {
    case 0: rc = add_by_value(key, key_len, &result); break;
    case 1: rc = add_by_version(key, key_len, &result); break;
    default:
        rc = shd_incr(st->big, key, key_len, 1, 1, 0, 0, &result, NULL);
        break;
    }
    returned(KIND_INCR);
    must(rc, SHD_OK, KIND_INCR);
    self->counted[n]++;
    acknowledged();
    if (result <= last[n])
        fail("counter %u gave %g after %g", n, result, last[n]);
    last[n] = result;
}

static void shared_push(void)
{
    uint32_t n = below(LISTS), element = (uint32_t)self->elements;
    char key[NAME_BYTES];
    unsigned key_len = name_list(key, n);
    uint64_t id = (uint64_t)self_number << 32 | element, length;
    int rc;

    if (element >= ELEMENTS)
        return;
    self->elements = element + 1;
    intend(KIND_PUSH, n, element);
    if (next() & 1) {
        size_t len = sizeof(id) + below(next() & 15 ? 100 : 3000);

        memset(bytes, (int)(id & 255), len);
        memcpy(bytes, &id, sizeof(id));
        rc = shd_push(st->big, (int)below(2), key, key_len, SHD_STRING,
                      bytes, len, 0, &length);
    } else {
        rc = shd_push(st->big, (int)below(2), key, key_len, SHD_NUMBER, NULL,
                      0, (double)id, &length);
    }
    returned(KIND_PUSH);
    must(rc, SHD_OK, KIND_PUSH);
    self->pushed[element] = (uint8_t)(n + 1);
    acknowledged();
}

static void shared_pop(void)
{
    uint32_t n = below(LISTS), slot, element;
    char key[NAME_BYTES];
    unsigned key_len = name_list(key, n);
    struct shd_value v;

    intend(KIND_POP, n, 0);
    int rc = shd_pop(st->big, (int)below(2), key, key_len, buffer,
                     sizeof(buffer), &v);
    returned(KIND_POP);
    must(rc, SHD_NOTFOUND, KIND_POP);
    if (rc == SHD_OK) {
        if (element_parse(st, &v, buffer, &slot, &element) != 0)
            fail("list %u gave an element that never was", n);
        __atomic_fetch_add(&st->journal->popped[slot][element], 1,
                           __ATOMIC_RELAXED);
    }
    acknowledged();
}

static void shared_list(void)
{
    char key[NAME_BYTES];
    unsigned key_len = name_list(key, below(LISTS));
    uint64_t length;

    meter_begin(&self->meter);
    int rc = shd_llen(st->big, key, key_len, &length);
    returned(KIND_LLEN);
    must(rc, SHD_OK, KIND_LLEN);
    if (length < LIST_LONG && (length < 2 || (next() & 1)))
        shared_push();
    else
        shared_pop();
}

static void scan_some(void)
{
    unsigned char key[NAME_BYTES * 2], after[NAME_BYTES * 2];
    size_t len, after_len;
    struct shd_value v;

    after_len = name_own((char *)after, below(st->workers), below(OWN_KEYS));
    for (int i = 0; i < 4; i++) {
        meter_begin(&self->meter);
        int rc = shd_scan(st->big, after, after_len, 0, key, sizeof(key),
                          &len, buffer, sizeof(buffer), &v);
        returned(KIND_SCAN);
        must(rc, SHD_NOTFOUND, KIND_SCAN);
        if (rc != SHD_OK)
            return;
        if (len == after_len && memcmp(key, after, len) == 0)
            fail("scan gave the key it started after");
        memcpy(after, key, len);
        after_len = len;
    }
}

/* ---- the small dict: nothing lasts, all is whole ------------------------ */

#define SMALL_SLOT SLOTS_MAX

static void small_get(uint32_t n)
{
    char why[200] = "";

    meter_begin(&self->meter);
    int64_t version = value_version(st, SMALL_SLOT, n, why, sizeof(why));
    returned(KIND_SMALL_GET);
    if (version < 0)
        fail("key %u of the small dict: %s", n, why);
}

static void small_set(uint32_t n, bool safe)
{
    char key[NAME_BYTES];
    unsigned key_len = name_own(key, SMALL_SLOT, n);
    uint64_t len = 0, version = (next() >> 30) + 1;
    enum kind kind = safe ? KIND_SMALL_SAFE_SET : KIND_SMALL_SET;
    double number;
    uint32_t type = value_make(SMALL_SLOT, n, version, bytes, &len, &number);

    intend(kind, n, version);
    int rc = shd_store(st->small, safe ? SHD_SET | SHD_SAFE : SHD_SET, key,
                       key_len, type, bytes, len, number,
                       below(4) ? 0 : 1 + below(50), 0, NULL);
    returned(kind);
    must(rc, safe ? SHD_NOMEM : SHD_OK, kind);
    acknowledged();
}

static void small_list(uint32_t n, bool push)
{
    char key[NAME_BYTES];
    unsigned key_len = (unsigned)snprintf(key, sizeof(key), "l:%u", n % 20);
    uint64_t length;
    struct shd_value v;
    enum kind kind = push ? KIND_SMALL_PUSH : KIND_SMALL_POP;
    int rc;

    memset(bytes, 'x', 200);
    intend(kind, n, 0);
    if (push)
        rc = shd_push(st->small, (int)below(2), key, key_len, SHD_STRING,
                      bytes, below(200), 0, &length);
    else
        rc = shd_pop(st->small, (int)below(2), key, key_len, buffer,
                     sizeof(buffer), &v);
    returned(kind);
    must(rc, push ? SHD_NOMEM : SHD_NOTFOUND, kind);
    acknowledged();
    if (!push && rc == SHD_OK) {
        for (uint64_t i = 0; i < v.len; i++) {
            if (v.len > 200 || buffer[i] != 'x')
                fail("a list of the small dict gave other bytes");
        }
    }
}

/* Strings that grow, and are taken out: of nothing but x. */
static void small_string(uint32_t n, bool append)
{
    char key[NAME_BYTES];
    unsigned key_len = (unsigned)snprintf(key, sizeof(key), "a:%u", n % 20);
    enum kind kind = append ? KIND_SMALL_APPEND : KIND_SMALL_TAKE;
    struct shd_value v;
    int rc;

    memset(bytes, 'x', 300);
    intend(kind, n, 0);
    if (append)
        rc = shd_append(st->small, below(8) == 0, key, key_len, bytes,
                        below(300), "", 0, 0, NULL, NULL);
    else
        rc = shd_take(st->small, key, key_len, buffer, sizeof(buffer), &v);
    /* It has been added to for long; somebody else may delete it first. */
    if (!append && rc == SHD_SPACE) {
        rc = shd_delete(st->small, key, key_len);
        rc = rc == SHD_OK ? SHD_NOTFOUND : rc;
    }
    returned(kind);
    /* It removes nothing of its own value to make room. */
    must(rc, append ? SHD_NOMEM : SHD_NOTFOUND, kind);
    acknowledged();
    for (uint64_t i = 0; !append && rc == SHD_OK && i < v.len; i++) {
        if (buffer[i] != 'x')
            fail("a string of the small dict holds other bytes");
    }
}

static void small_other(uint32_t n)
{
    char key[NAME_BYTES];
    unsigned key_len;
    double result;
    uint64_t freed;

    switch (below(6)) {
    case 4:
    case 5:
        small_string(n, below(8) > 0);
        return;
    case 0:
        key_len = (unsigned)snprintf(key, sizeof(key), "c:%u", n % 30);
        intend(KIND_SMALL_INCR, n, 0);
        must(shd_incr(st->small, key, key_len, 1, 1, 0, 0, &result, NULL),
             SHD_OK, KIND_SMALL_INCR);
        returned(KIND_SMALL_INCR);
        break;
    case 1:
        key_len = name_own(key, SMALL_SLOT, n);
        intend(KIND_SMALL_DELETE, n, 0);
        must(shd_delete(st->small, key, key_len), SHD_NOTFOUND,
             KIND_SMALL_DELETE);
        returned(KIND_SMALL_DELETE);
        break;
    case 2:
        intend(KIND_SMALL_FLUSH, n, 0);
        must(shd_flush_expired(st->small, 3, &freed), SHD_OK,
             KIND_SMALL_FLUSH);
        returned(KIND_SMALL_FLUSH);
        break;
    default:
        small_list(n, below(3) > 0);
        return;
    }
    acknowledged();
}

/* ---- the worker --------------------------------------------------------- */

static void work(void)
{
    uint32_t n = below(OWN_KEYS), what = below(100);

    if (what < 10)
        own_write(KIND_SET, n);
    else if (what < 18)
        own_write(KIND_SAFE_SET, n);
    else if (what < 22)
        own_write(KIND_ADD, n);
    else if (what < 25)
        own_write(KIND_REPLACE, n);
    else if (what < 30)
        own_delete(n);
    else if (what < 31)
        own_expire(n);
    else if (what < 36)
        own_read(n);
    else if (what < 40)
        read_other();
    else if (what < 50)
        counter_incr();
    else if (what < 63)
        shared_list();
    else if (what < 71)
        self->queue_tail - self->queue_head < LIST_LONG && (next() & 1)
            ? queue_push()
            : queue_pop();
    else if (what < 72)
        scan_some();
    else if (what < 84)
        small_set(below(SMALL_KEYS), (next() & 3) == 0);
    else if (what < 91)
        small_get(below(SMALL_KEYS));
    else
        small_other(below(SMALL_KEYS));
}

static void reap_some(void)
{
    intend(KIND_REAP, 0, 0);
    must(shd_reap(st->segment, NULL), SHD_OK, KIND_REAP);
    returned(KIND_REAP);
    acknowledged();
}

/* The kernel sends it SIGKILL then, whatever it is doing. */
void worker_dies_in(struct slot *slot, uint32_t ns)
{
    struct sigevent how = {.sigev_notify = SIGEV_SIGNAL,
                           .sigev_signo = SIGKILL};
    struct itimerspec when = {
        .it_value = {.tv_sec = ns / 1000000000u, .tv_nsec = ns % 1000000000u}};
    timer_t timer;

    __atomic_store_n(&slot->pid, (uint32_t)getpid(), __ATOMIC_RELAXED);
    __atomic_store_n(&slot->killed_ns, meter_now_ns() + ns, __ATOMIC_RELEASE);
    if (timer_create(CLOCK_MONOTONIC, &how, &timer) != 0 ||
        timer_settime(timer, 0, &when, NULL) != 0)
        _exit(7);
}

static void start(void)
{
    uint64_t incarnation;
    char why[400] = "";

    if (self->fate == FATE_EARLY)
        worker_dies_in(self, self->delay_ns);
    if (meter_open(&self->meter) != 0)
        fail("/proc/thread-self/schedstat cannot be read");
    if (slot_settle(st, self_number, why, sizeof(why)) != 0)
        fail("after a death in %s: %s", KIND_NAMES[self->kind], why);
    intend(KIND_JOIN, 0, 0);
    must(shd_worker_join(st->segment, &incarnation), SHD_OK, KIND_JOIN);
    returned(KIND_JOIN);
    self->joined = 1;
    acknowledged();
    /* What the one before it has acknowledged; an audit looks at all. */
    for (uint32_t i = 0; i < OWN_KEYS_LOOKED_AT; i++)
        own_read(below(OWN_KEYS));
    if (self->fate == FATE_TIMER)
        worker_dies_in(self, self->delay_ns);
}

_Noreturn void worker_run(const struct storm *s, uint32_t number,
                          uint64_t seed)
{
    st = s;
    self_number = number;
    self = &s->journal->slot[number];
    rng = seed;
    start();
    for (uint64_t i = 1;; i++) {
        work();
        if (i % 2000 == 0)
            reap_some();
        /* Not all processors all the time: sleepers are killed as well, and
         * who lives long leaves them to those that do not. */
        if (number < WITNESSES && i % 32 == 0)
            (void)usleep(100 + below(1000));
        else if (i % 256 == 0)
            (void)usleep(20 + below(100));
    }
}

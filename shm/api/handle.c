/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table is a list: a process has one or two segments. Everything that
 * changes it, and registration, happens under one mutex, which fork takes as
 * well, so that a child never starts with a half-changed table.
 */
#include "shm/api/handle.h"
#include "shm/api/object.h"
#include "shm/base/error.h"
#include "shm/dict/counters.h"
#include "shm/segment/header.h"
#include "shm/segment/name.h"

#include "shm/api/gates.h" /* last */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t tables = PTHREAD_MUTEX_INITIALIZER;
static shd_segment *segments;
static shd_segment *spare; /* for the next one that is made or attached */
static uint64_t closes;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static int fork_error;

void handle_tables_lock(void)
{
    int rc = pthread_mutex_lock(&tables);

    /* A plain mutex that is taken and let go of in pairs cannot fail. */
    assert(rc == 0);
    (void)rc;
}

void handle_tables_unlock(void)
{
    int rc = pthread_mutex_unlock(&tables);

    assert(rc == 0);
    (void)rc;
}

/* ---- fork ------------------------------------------------------------- */

/* Counts go to the line of that number from now on. */
static void count_in(shd_segment *h, uint64_t number)
{
    h->env.stripe = counters_stripe(number);
    for (struct shd_dict *d = h->dicts; d != NULL; d = d->next)
        counters_move(&d->dict);
}

static void child_after_fork(void)
{
    for (shd_segment *h = segments; h != NULL; h = h->next) {
        if (h->open == 0)
            continue;
        atomic_store64(&h->env.incarnation, 0);
        count_in(h, (uint64_t)getpid());
        h->forked = true;
        handle_watches_after_fork(h);
        /* The parent's bell is the parent's alone. */
        if (h->bell_fd >= 0)
            (void)close(h->bell_fd);
        h->bell_fd = -1;
        if (h->segment.writable)
            segment_after_fork(&h->segment);
    }
    protect_after_fork(true);
    handle_tables_unlock();
}

static void before_fork(void)
{
    handle_tables_lock();
    protect_before_fork();
}

static void parent_after_fork(void)
{
    protect_after_fork(false);
    handle_tables_unlock();
}

static void install_fork_handlers(void)
{
    fork_error = pthread_atfork(before_fork, parent_after_fork,
                                child_after_fork);
}

static int follow_forks(void)
{
    int rc = pthread_once(&fork_once, install_fork_handlers);

    if (rc == 0)
        rc = fork_error;
    if (rc != 0)
        return error_set(SHD_NOMEM, "pthread_atfork: %s", strerror(rc));
    return SHD_OK;
}

/* ---- what a process says of itself ------------------------------------ */

static bool environment_number(const char *variable, long max, long *out)
{
    const char *text = getenv(variable);
    char *end;
    long v;

    if (text == NULL || text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    v = strtol(text, &end, 10);
    if (errno != 0 || *end != '\0' || v > max)
        return false;
    *out = v;
    return true;
}

static void describe_self(const struct shd_segment_options *o,
                          struct registry_self *self)
{
    const char *name = program_invocation_short_name;
    const char *phase = getenv("SHDICT_PHASE");
    long v;

    memset(self, 0, sizeof(*self));
    self->worker_id = -1;
    if (phase != NULL && strcmp(phase, "starting") == 0)
        self->phase = SHD_PHASE_STARTING;
    if (environment_number("SHDICT_RESTARTS", UINT32_MAX, &v))
        self->restarts = (uint32_t)v;
    if (environment_number("SHDICT_WORKER", INT32_MAX, &v))
        self->worker_id = (int32_t)v;
    if (environment_number("SHDICT_GENERATION", UINT32_MAX, &v))
        self->generation = (uint32_t)v;
    if (o != NULL && o->worker_id != 0)
        self->worker_id = o->worker_id;
    if (o != NULL && o->generation != 0)
        self->generation = o->generation;
    if (o != NULL && o->worker_name != NULL && o->worker_name[0] != '\0')
        name = o->worker_name;
    snprintf(self->name, sizeof(self->name), "%s", name);
}

/* ---- the table -------------------------------------------------------- */

/* Everything that differs by platform or build in shared memory. */
static uint64_t fingerprint(void)
{
    uint64_t h = dict_fingerprint();

    h = h * 1000003 + sizeof(struct guard);
    h = h * 1000003 + sizeof(struct catalogue_object);
    h = h * 1000003 + object_fingerprint();
    return h * 1000003 + sizeof(struct registry_slot);
}

static int initialize(struct segment *s)
{
    int rc = registry_initialize(s);

    return rc == SHD_OK ? catalogue_initialize(s) : rc;
}

static bool is_same(const struct segment *a, const struct segment *b)
{
    return a->device == b->device && a->inode == b->inode &&
           a->writable == b->writable;
}

/* Before a file is made, so that none is left over for want of a handle. */
static int have_spare(void)
{
    if (spare == NULL)
        spare = calloc(1, sizeof(*spare));
    if (spare == NULL)
        return error_set(SHD_NOMEM, "this process has no memory");
    return SHD_OK;
}

/* The handle of that file, open or closed; else a new one, or the one that
 * has been closed for longest when there are too many of those. */
static shd_segment *find_handle(const struct segment *s)
{
    shd_segment *oldest = NULL;
    uint32_t closed = 0;

    for (shd_segment *h = segments; h != NULL; h = h->next) {
        if (is_same(&h->segment, s))
            return h;
        if (h->open != 0)
            continue;
        closed++;
        if (oldest == NULL || h->closed < oldest->closed)
            oldest = h;
    }
    if (closed >= HANDLE_CLOSED_MAX)
        return oldest;
    shd_segment *h = spare;
    spare = NULL;
    h->next = segments;
    segments = h;
    return h;
}

/* Takes s over, or closes it if the process has that file already. Options
 * of the process are those of its first attach. */
static void intern(struct segment *s, const struct shd_segment_options *o,
                   shd_segment **out)
{
    shd_segment *h = find_handle(s);

    if (h->open > 0) {
        segment_close(s);
    } else {
        h->segment = *s;
        h->shared_fd = -1;
        h->bell_fd = -1;
        h->forked = false;
        h->env.segment = &h->segment;
        h->env.incarnation = 0;
        h->env.stripe = counters_stripe((uint64_t)getpid());
        h->env.wait_ms =
            o != NULL && o->wait_ms != 0 ? o->wait_ms : GUARD_WAIT_MS_DEFAULT;
        describe_self(o, &h->self);
        if (s->writable && protect_wanted(o != NULL ? o->flags : 0))
            protect_add(&h->protect, s->base, s->size);
    }
    atomic_store32_release(&h->open, h->open + 1);
    *out = h;
}

int handle_attach(const char *name, const struct shd_segment_options *o,
                  shd_segment **out)
{
    struct segment s;
    int rc = follow_forks();

    if (rc != SHD_OK)
        return rc;
    handle_tables_lock();
    rc = have_spare();
    if (rc == SHD_OK)
        rc = segment_attach(name, o, fingerprint(), &s);
    if (rc == SHD_OK)
        intern(&s, o, out);
    handle_tables_unlock();
    return rc;
}

int handle_held(const char *name, const struct shd_segment_options *o,
                shd_segment **out)
{
    struct segment_name n;
    shd_segment *h;
    int rc = header_options_check(o);

    if (rc == SHD_OK)
        rc = name_parse(name, &n);
    if (rc == SHD_OK && n.fd >= 0)
        rc = error_set(SHD_NAME, "a descriptor is not held under a name");
    if (rc != SHD_OK)
        return rc;
    handle_tables_lock();
    for (h = segments; h != NULL; h = h->next)
        if (h->open > 0 && h->segment.writable &&
            strcmp(h->segment.path, n.path) == 0)
            break;
    if (h != NULL)
        atomic_store32_release(&h->open, h->open + 1);
    handle_tables_unlock();
    if (h == NULL)
        return error_set(SHD_NOTFOUND,
                         "this process does not hold a segment %s", name);
    *out = h;
    return SHD_OK;
}

int handle_create(const char *name, const struct shd_segment_options *o,
                  shd_segment **out)
{
    struct segment s;
    int rc = follow_forks();

    if (rc != SHD_OK)
        return rc;
    handle_tables_lock();
    rc = have_spare();
    if (rc == SHD_OK)
        rc = segment_create(name, o, fingerprint(), initialize, &s);
    if (rc == SHD_OK)
        intern(&s, o, out);
    handle_tables_unlock();
    return rc;
}

int handle_create_unnamed(const char *name,
                          const struct shd_segment_options *o,
                          uint64_t hash_seed, struct segment_birth *birth,
                          shd_segment **out)
{
    struct segment s;
    int rc = follow_forks();

    if (rc != SHD_OK)
        return rc;
    handle_tables_lock();
    rc = have_spare();
    if (rc == SHD_OK)
        rc = segment_create_unnamed(name, o, hash_seed, fingerprint(),
                                    initialize, birth, &s);
    if (rc == SHD_OK)
        intern(&s, o, out);
    handle_tables_unlock();
    return rc;
}

int handle_leave(shd_segment *segment)
{
    int rc;

    if (segment->env.incarnation == 0)
        return SHD_OK;
    rc = registry_leave(&segment->env);
    if (rc == SHD_OK)
        atomic_store64(&segment->env.incarnation, 0);
    return rc;
}

static void close_last(shd_segment *segment)
{
    atomic_store32_release(&segment->open, 0);
    for (struct shd_dict *d = segment->dicts; d != NULL; d = d->next)
        atomic_store32_release(&d->open, 0);
    handle_objects_close(segment);
    /* If the slot cannot be freed now (its lock is busy), closing the file
     * frees the liveness byte, and a reap the slot. */
    (void)handle_leave(segment);
    atomic_store64(&segment->env.incarnation, 0);
    protect_remove(&segment->protect);
    segment_close(&segment->segment);
    if (segment->shared_fd >= 0)
        (void)close(segment->shared_fd);
    segment->shared_fd = -1;
    if (segment->bell_fd >= 0)
        (void)close(segment->bell_fd);
    segment->bell_fd = -1;
    segment->closed = ++closes;
}

int handle_close(shd_segment *segment)
{
    int rc;

    handle_tables_lock();
    rc = handle_reader(segment);
    if (rc == SHD_OK) {
        if (segment->open > 1)
            atomic_store32_release(&segment->open, segment->open - 1);
        else
            close_last(segment);
    }
    handle_tables_unlock();
    return rc;
}

/* ---- before each call ------------------------------------------------- */

int handle_reader(shd_segment *segment)
{
    if (segment == NULL)
        return error_set(SHD_INVAL, "the segment's handle is NULL");
    if (atomic_load32_acquire(&segment->open) == 0)
        return error_set(SHD_CLOSED, "the segment's handle has been closed");
    return SHD_OK;
}

static int register_worker(shd_segment *segment)
{
    uint64_t incarnation;
    bool look = false;
    int rc = SHD_OK;

    handle_tables_lock();
    if (segment->env.incarnation == 0) {
        rc = registry_join(&segment->env, &segment->self, &incarnation);
        if (rc == SHD_OK) {
            /* Its lower half is the worker's slot, which nobody shares. */
            count_in(segment, incarnation & 0xffff);
            atomic_store64_release(&segment->env.incarnation, incarnation);
            look = segment->forked && registry_has_dead(&segment->env);
            segment->forked = false;
        }
    }
    handle_tables_unlock();
    /* What stands in the way of reaping others is no failure of the caller's:
     * whoever needs what a dead one holds recovers that by itself. */
    if (look) {
        int ignored = shd_reap(segment, NULL);

        (void)ignored;
    }
    return rc;
}

int handle_writer(shd_segment *segment)
{
    int rc = handle_reader(segment);

    if (rc != SHD_OK)
        return rc;
    if (!segment->segment.writable)
        return error_set(SHD_READONLY, "the segment is attached read-only");
    if (atomic_load64(&segment->env.incarnation) != 0)
        return SHD_OK;
    return register_worker(segment);
}

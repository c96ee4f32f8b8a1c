/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/api/handle.h"
#include "shm/base/error.h"
#include "shm/dict/check.h"
#include "shm/dict/repair.h"
#include "shm/ipc/object.h"
#include "shm/ipc/remake.h"
#include "shm/segment/placing.h"

#include "shm/api/gates.h" /* last */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define STRING_(x) #x
#define STRING(x) STRING_(x)

/* Attach and create may each miss the other's moment; a third round needs a
 * segment that is removed and made again meanwhile. */
#define OPEN_ROUNDS 16

const char *shd_version(void)
{
    return STRING(SHD_VERSION_MAJOR) "." STRING(SHD_VERSION_MINOR) "." STRING(
        SHD_VERSION_PATCH);
}

/* ---- create, attach, destroy ------------------------------------------ */

int shd_segment_create(const char *name, const struct shd_segment_options *o,
                       shd_segment **out)
{
    if (out == NULL)
        return error_set(SHD_INVAL, "out is NULL");
    return handle_create(name, o, out);
}

int shd_segment_attach(const char *name, const struct shd_segment_options *o,
                       shd_segment **out)
{
    if (out == NULL)
        return error_set(SHD_INVAL, "out is NULL");
    if (o != NULL && (o->flags & SHD_ATTACH_HELD) != 0)
        return handle_held(name, o, out);
    return handle_attach(name, o, out);
}

int shd_segment_open(const char *name, const struct shd_segment_options *o,
                     shd_segment **out)
{
    int rc = SHD_INVAL;

    if (out == NULL)
        return error_set(SHD_INVAL, "out is NULL");
    for (int i = 0; i < OPEN_ROUNDS; i++) {
        rc = shd_segment_attach(name, o, out);
        /* A descriptor, a read-only attachment, and one that must be held
         * already cannot be made. */
        if (rc != SHD_NOTFOUND || strncmp(name, "fd:", 3) == 0 ||
            (o != NULL &&
             (o->flags & (SHD_ATTACH_READONLY | SHD_ATTACH_HELD)) != 0))
            return rc;
        rc = handle_create(name, o, out);
        if (rc != SHD_EXISTS)
            return rc;
    }
    return rc;
}

int shd_segment_close(shd_segment *segment)
{
    return handle_close(segment);
}

int shd_segment_destroy(const char *name)
{
    return segment_destroy(name);
}

/* ---- looking ---------------------------------------------------------- */

static int open_shared_fd(shd_segment *h)
{
    char link[40];

    if (h->segment.fd < 0)
        return error_set(SHD_SYS,
                         "this process could not reopen the segment after "
                         "fork: it has no descriptor");
    snprintf(link, sizeof(link), "/proc/self/fd/%d", h->segment.fd);
    h->shared_fd =
        open(link, (h->segment.writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (h->shared_fd < 0)
        return error_errno("reopening the segment");
    return SHD_OK;
}

int shd_segment_fd(shd_segment *segment)
{
    int rc = handle_reader(segment);

    if (rc != SHD_OK)
        return rc;
    handle_tables_lock();
    if (segment->shared_fd < 0)
        rc = open_shared_fd(segment);
    if (rc == SHD_OK)
        rc = segment->shared_fd;
    handle_tables_unlock();
    return rc;
}

/* Callers of one version only so far: the size must be ours. */
static int check_struct_size(const void *info, uint32_t given, size_t ours)
{
    if (info == NULL)
        return error_set(SHD_INVAL, "info is NULL");
    if (given != ours)
        return error_set(SHD_INVAL,
                         "info: struct_size is %u, this library's is %zu",
                         given, ours);
    return SHD_OK;
}

static uint64_t recoveries(const struct segment *s)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < catalogue_guards(s); i++)
        n += atomic_load64(&guard_at(s, i)->recoveries);
    return n;
}

int shd_segment_info(shd_segment *segment, struct shd_segment_info *info)
{
    const struct segment *s;
    const struct segment_header *h;
    int rc = handle_reader(segment);

    if (rc == SHD_OK)
        rc = check_struct_size(info, info ? info->struct_size : 0,
                               sizeof(*info));
    if (rc != SHD_OK)
        return rc;
    s = &segment->segment;
    h = segment_header(s);
    memset(info, 0, sizeof(*info));
    info->struct_size = sizeof(*info);
    rc = segment_committed(s, &info->committed_bytes);
    if (rc != SHD_OK)
        return rc;
    info->layout_version = h->layout_version;
    info->size_bytes = s->size;
    info->hash_seed = s->hash_seed;
    info->creator_pid_namespace = h->pid_namespace;
    info->created_ms = h->created_ms;
    info->incarnations = atomic_load64(&h->incarnations);
    info->deaths = atomic_load64(&h->deaths);
    info->recoveries = recoveries(s);
    if (s->huge)
        info->huge_bytes = placing_huge_bytes(s->base, s->size);
    info->workers_max = s->workers_max;
    info->objects_max = s->objects_max;
    info->locks_max = s->locks_max;
    info->readonly = !s->writable;
    memcpy(info->path, s->path, sizeof(info->path));
    info->layout_fingerprint = h->fingerprint;
    info->supervisor = atomic_load64(&h->supervisor);
    info->object_generations = atomic_load64(&h->generations);
    info->worker_generation = atomic_load32(&h->generation);
    info->write_protect = protect_how(&segment->protect);
    memcpy(info->boot_id, h->boot_id, sizeof(info->boot_id) - 1);
    return SHD_OK;
}

int shd_object_info(shd_segment *segment, uint32_t index,
                    struct shd_object_info *info)
{
    struct catalogue_object o;
    int rc = handle_reader(segment);

    if (rc == SHD_OK)
        rc = check_struct_size(info, info ? info->struct_size : 0,
                               sizeof(*info));
    if (rc == SHD_OK)
        rc = catalogue_at(&segment->env, index, &o);
    if (rc != SHD_OK)
        return rc;
    memset(info, 0, sizeof(*info));
    info->struct_size = sizeof(*info);
    info->kind = o.kind;
    info->generation = o.generation;
    info->size_bytes = o.size_bytes;
    /* Of a damaged one, what it was made with: shd_segment_check tells. */
    if (o.kind == SHD_OBJECT_DICT)
        (void)dict_capacity_of(&segment->env, &o, &info->size_bytes);
    info->created_ms = o.created_ms;
    memcpy(info->name, o.name, sizeof(info->name));
    return SHD_OK;
}

/* ---- checking --------------------------------------------------------- */

/* With the lock, if it is to be had at once; whoever has it keeps the
 * invariants for itself until it lets go. */
static int check_guard_locked(shd_segment *h, struct guard *g, char *report,
                              size_t size)
{
    int rc = guard_trylock(&h->env, g);

    if (rc == SHD_BUSY)
        return SHD_OK;
    if (rc == SHD_OK) {
        rc = guard_check(g, report, size);
        guard_unlock(g);
        return rc;
    }
    if (guard_check(g, report, size) == SHD_OK)
        snprintf(report, size, "guard: %s", shd_last_error());
    return rc;
}

/* Without the lock an open transaction looks like damage: it has to pass, or
 * is undone in private. */
static int check_guard_beside(shd_segment *h, struct guard *g, char *report,
                              size_t size)
{
    struct reading r;
    int rc;

    reading_begin(&r, &h->env, g);
    do {
        rc = reading_try(&r);
        /* Nobody will ever make a damaged log stand still. */
        if (rc == SHD_BUSY && atomic_load64(&g->damaged) != 0)
            return guard_check(g, report, size);
        if (rc != SHD_OK)
            return rc;
        rc = guard_check(g, report, size);
    } while (!reading_done(&r));
    return rc;
}

static int check_guards(shd_segment *h, char *report, size_t size)
{
    uint32_t guards = catalogue_guards(&h->segment);
    char what[128];

    for (uint32_t i = 0; i < guards; i++) {
        struct guard *g = guard_at(&h->segment, i);
        int rc = h->segment.writable
                     ? check_guard_locked(h, g, what, sizeof(what))
                     : check_guard_beside(h, g, what, sizeof(what));

        if (rc == SHD_CORRUPT)
            snprintf(report, size, "lock %u: %s", i, what);
        if (rc != SHD_OK)
            return rc;
    }
    return SHD_OK;
}

/* Is that object still there? Another may have taken its place. */
static bool is_there(shd_segment *h, uint32_t index, uint64_t generation)
{
    struct catalogue_object o;

    return catalogue_at(&h->env, index, &o) == SHD_OK &&
           o.generation == generation;
}

/* What can be done with any object: a line for each kind. */
static const struct {
    uint32_t kind;
    int (*check)(const struct guard_env *env, const struct catalogue_object *o,
                 char *report, size_t size);
    int (*repair)(const struct guard_env *env,
                  const struct catalogue_object *o, struct repair *r);
} kinds[] = {{SHD_OBJECT_DICT, dict_check, repair_dict}};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static int check_object(shd_segment *h, const struct catalogue_object *o,
                        char *report, size_t size)
{
    for (size_t k = 0; k < KINDS; k++) {
        if (kinds[k].kind == o->kind && kinds[k].check != NULL)
            return kinds[k].check(&h->env, o, report, size);
    }
    return object_check(&h->env, o, report, size);
}

static int check_objects(shd_segment *h, char *report, size_t size)
{
    for (uint32_t i = 0; i < h->segment.objects_max; i++) {
        struct catalogue_object o;
        int rc = catalogue_at(&h->env, i, &o);

        if (rc == SHD_NOTFOUND)
            continue;
        if (rc != SHD_OK)
            return rc;
        rc = check_object(h, &o, report, size);
        if (rc != SHD_OK && is_there(h, i, o.generation))
            return rc;
    }
    return SHD_OK;
}

int shd_check_progress(shd_segment *segment, uint64_t *done, uint64_t *total)
{
    struct catalogue_object o;
    struct dict d;
    int rc = handle_reader(segment);

    if (rc == SHD_OK && (done == NULL || total == NULL))
        rc = error_set(SHD_INVAL, "done or total is NULL");
    if (rc != SHD_OK)
        return rc;
    *done = dict_checked();
    *total = 0;
    for (uint32_t i = 0; i < segment->segment.objects_max; i++) {
        if (catalogue_at(&segment->env, i, &o) != SHD_OK ||
            o.kind != SHD_OBJECT_DICT ||
            dict_view(&segment->env, &o, &d) != SHD_OK)
            continue;
        for (uint32_t s = 0; s < d.shards && dict_enter(&d, s); s++)
            *total += atomic_load64(&d.shard[s].entries);
    }
    return SHD_OK;
}

int shd_segment_check(shd_segment *segment, char *report, size_t size)
{
    int rc = handle_reader(segment);

    if (rc != SHD_OK)
        return rc;
    if (report == NULL || size == 0)
        return error_set(SHD_INVAL, "report is NULL or has no room");
    report[0] = '\0';
    rc = segment_check(&segment->segment, report, size);
    if (rc == SHD_OK)
        rc = catalogue_check(&segment->env, report, size);
    if (rc == SHD_OK)
        rc = registry_check(&segment->env, report, size);
    if (rc == SHD_OK)
        rc = check_guards(segment, report, size);
    if (rc == SHD_OK)
        rc = check_objects(segment, report, size);
    if (rc == SHD_CORRUPT && report[0] == '\0')
        snprintf(report, size, "%s", shd_last_error());
    if (rc == SHD_OK)
        report[0] = '\0';
    else if (rc == SHD_CORRUPT)
        (void)error_set(rc, "%s", report);
    return rc;
}

/* ---- repair ----------------------------------------------------------- */

/* A lock that no dict has. */
static int repair_guard(shd_segment *h, uint32_t index, struct repair *r)
{
    struct guard *g = guard_at(&h->segment, index);
    bool sound;
    int rc = guard_seize(&h->env, g, &sound);

    if (rc != SHD_OK)
        return rc;
    if (!sound) {
        /* Each has small tables, which its check looks at. */
        guard_mend(g, 0);
        repair_say(r, "lock %u: its log could not be believed, and was "
                      "emptied",
                   index);
    }
    guard_unlock(g);
    return SHD_OK;
}

/* What is no dict: its log is undone or emptied; then it is sound, or made
 * anew. */
static int remake(shd_segment *h, const struct catalogue_object *o,
                  struct repair *r)
{
    char why[256] = "";
    int rc = SHD_OK;

    for (uint32_t i = 0; i < o->guards && rc == SHD_OK; i++)
        rc = repair_guard(h, o->guards_first + i, r);
    if (rc == SHD_OK)
        rc = object_check(&h->env, o, why, sizeof(why));
    if (rc != SHD_CORRUPT)
        return rc;
    /* A check that could not even look has said why elsewhere. */
    if (why[0] == '\0')
        snprintf(why, sizeof(why), "%s '%s': %s", object_kind_name(o->kind),
                 o->name, shd_last_error());
    rc = remake_object(&h->env, o);
    r->done.remade += rc == SHD_OK;
    repair_say(r, rc == SHD_OK ? "%s: made anew, empty"
                               : "%s: it can only be removed",
               why);
    return rc == SHD_OK ? rc : SHD_CORRUPT;
}

static int repair_object(shd_segment *h, const struct catalogue_object *o,
                         struct repair *r)
{

    for (size_t k = 0; k < KINDS; k++) {
        if (kinds[k].kind == o->kind && kinds[k].repair != NULL)
            return kinds[k].repair(&h->env, o, r);
    }
    return remake(h, o, r);
}

/* All that can be, whatever happens to one of them. */
static int repair_objects(shd_segment *h, struct repair *r)
{
    int worst = SHD_OK;

    for (uint32_t i = 0; i < h->segment.objects_max; i++) {
        struct catalogue_object o;
        uint32_t mended = 0;
        int rc = catalogue_at(&h->env, i, &o);

        if (rc == SHD_OK)
            rc = catalogue_mend_guards(&h->env, i, &mended);
        if (mended > 0)
            repair_say(r, "'%s': %u locks said that they were another's",
                       o.name, mended);
        if (rc == SHD_OK)
            rc = repair_object(h, &o, r);
        if (rc != SHD_OK && rc != SHD_NOTFOUND && rc != SHD_GONE &&
            (worst == SHD_OK || rc == SHD_CORRUPT))
            worst = rc;
    }
    return worst;
}

int shd_segment_repair(shd_segment *segment, struct shd_repair *done,
                       char *report, size_t size)
{
    struct repair r = {.text = report, .size = size};
    char why[256] = "";
    uint64_t before;
    int rc, all;

    if (report == NULL || size == 0)
        return error_set(SHD_INVAL, "report is NULL or has no room");
    report[0] = '\0';
    rc = check_struct_size(done, done ? done->struct_size : 0, sizeof(*done));
    if (rc == SHD_OK)
        rc = handle_writer(segment);
    if (rc != SHD_OK)
        return rc;
    before = recoveries(&segment->segment);
    for (uint32_t i = 0; i < GUARD_FIRST_OBJECT && rc == SHD_OK; i++)
        rc = repair_guard(segment, i, &r);
    if (rc != SHD_OK)
        return rc;
    rc = repair_objects(segment, &r);
    all = rc == SHD_OK ? shd_segment_check(segment, why, sizeof(why)) : rc;
    if (all != SHD_OK && rc == SHD_OK)
        repair_say(&r, "beyond repair: %s", why);
    before = recoveries(&segment->segment) - before;
    r.done.rolled_back = (uint32_t)before;
    if (before > 0)
        repair_say(&r, "what %llu dead workers were at is undone",
                   (unsigned long long)before);
    *done = r.done;
    done->struct_size = sizeof(*done);
    if (all == SHD_CORRUPT)
        return error_set(all, "not all of it could be repaired: see the "
                              "report");
    return all;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The public snapshots: handles, names, and what may be replaced. The
 * contracts are in shdict.h. */
#include "shm/api/object.h"
#include "shm/base/error.h"
#include "shm/keep/restore.h"
#include "shm/keep/save.h"

#include "shm/api/gates.h" /* last */

#include <stdlib.h>
#include <string.h>

struct shd_save {
    shd_segment *segment;
    struct save save;
    bool failed;
};

struct shd_restore {
    shd_segment *segment; /* NULL: verifying, or not made yet */
    struct segment_birth birth;
    struct restore restore;
    uint32_t flags;
    bool done, failed;
    char name[256];
};

static int info_check(const struct shd_keep_info *info)
{
    return info != NULL && info->struct_size == sizeof(*info)
               ? SHD_OK
               : error_set(SHD_INVAL,
                           "info is NULL, or its struct_size is not %zu",
                           sizeof(*info));
}

static void tell_sums(struct shd_keep_info *info,
                      const struct record_sums *sums)
{
    info->objects = sums->objects;
    info->entries = sums->entries;
    info->elements = sums->elements;
    info->messages = sums->messages;
    info->events = sums->events;
}

static int failed_before(void)
{
    return error_set(SHD_CLOSED, "it has failed before: close it");
}

/* ---- saving ------------------------------------------------------------ */

/* Whoever may take locks is a worker of the segment. */
static int usable(shd_segment *segment)
{
    int rc = handle_reader(segment);

    return rc == SHD_OK && segment->segment.writable ? handle_writer(segment)
                                                     : rc;
}

int shd_save_open(shd_segment *segment, const char *path,
                  const struct shd_save_options *o, shd_save **out)
{
    struct shd_save_options options;
    shd_save *s;
    int rc = handle_options(o, &options, sizeof(options),
                            "struct shd_save_options");

    if (rc == SHD_OK && (out == NULL || path == NULL))
        rc = error_set(SHD_INVAL, "path or out is NULL");
    if (rc == SHD_OK)
        rc = usable(segment);
    if (rc != SHD_OK)
        return rc;
    s = calloc(1, sizeof(*s));
    if (s == NULL)
        return error_set(SHD_NOMEM, "no memory for a save");
    s->segment = segment;
    rc = save_begin(&s->save, &segment->env, path, options.hold_ms);
    if (rc != SHD_OK) {
        save_end(&s->save);
        free(s);
        return rc;
    }
    *out = s;
    return SHD_OK;
}

int shd_save_step(shd_save *s)
{
    int rc = s == NULL ? error_set(SHD_INVAL, "the save is NULL")
                       : usable(s->segment);

    if (rc == SHD_OK && s->failed)
        rc = failed_before();
    if (rc != SHD_OK)
        return rc;
    rc = save_step(&s->save);
    s->failed = rc < 0;
    return rc;
}

int shd_save_info(shd_save *s, struct shd_keep_info *info)
{
    const struct save *v = &s->save;
    int rc = info_check(info);

    if (rc != SHD_OK)
        return rc;
    memset(info, 0, sizeof(*info));
    info->struct_size = sizeof(*info);
    tell_sums(info, &v->copy.sums);
    info->done = v->done && v->copy.out.used == 0 && !s->failed;
    info->at = v->copy.sums.entries + v->copy.skipped;
    info->total = v->total;
    info->saved_ms = v->saved_ms;
    info->expired = v->copy.skipped;
    info->bytes = v->file.bytes;
    info->held_ns = v->copy.held_ns;
    info->one_moment = info->done && v->one_moment;
    info->dropped = (uint32_t)v->dropped;
    memcpy(info->name, v->name, sizeof(info->name));
    return SHD_OK;
}

int shd_save_close(shd_save *s)
{
    if (s == NULL)
        return error_set(SHD_INVAL, "the save is NULL");
    save_end(&s->save);
    free(s);
    return SHD_OK;
}

int shd_segment_save(shd_segment *segment, const char *path,
                     const struct shd_save_options *o,
                     struct shd_keep_info *info)
{
    shd_save *s;
    int rc = info == NULL ? SHD_OK : info_check(info);

    if (rc == SHD_OK)
        rc = shd_save_open(segment, path, o, &s);
    if (rc != SHD_OK)
        return rc;
    do {
        rc = shd_save_step(s);
    } while (rc == 1);
    if (rc == SHD_OK && info != NULL)
        rc = shd_save_info(s, info);
    (void)shd_save_close(s);
    return rc;
}

/* ---- what is replaced -------------------------------------------------- */

static uint32_t live_workers(shd_segment *segment)
{
    struct shd_worker_info w = {.struct_size = sizeof(w)};
    uint32_t n = 0;
    int rc = SHD_OK;

    for (uint32_t i = 0; rc != SHD_INVAL; i++) {
        rc = shd_worker_info(segment, i, &w);
        n += rc == SHD_OK && w.state == SHD_WORKER_ALIVE;
    }
    return n;
}

/* May the segment of that name be replaced? */
static int replace_check(const char *name, uint32_t flags)
{
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .flags = SHD_ATTACH_READONLY,
                                    .worker_id = -1};
    const char *flag = "SHD_RESTORE_REPLACE (--replace)";
    shd_segment *old;
    uint32_t n;
    int rc = shd_segment_attach(name, &o, &old);

    if (rc == SHD_NOTFOUND)
        return SHD_OK;
    if (rc == SHD_FOREIGN || rc == SHD_NAME || rc == SHD_INVAL)
        return rc;
    n = rc == SHD_OK ? live_workers(old) : 0;
    if (rc == SHD_OK)
        (void)shd_segment_close(old);
    if ((flags & SHD_RESTORE_IN_USE) != 0)
        return SHD_OK;
    if ((flags & SHD_RESTORE_REPLACE) == 0)
        return error_set(SHD_EXISTS,
                         "segment %.200s exists: give another name, or %s to "
                         "put the snapshot in its place",
                         name, flag);
    if (rc != SHD_OK)
        return error_set(SHD_EXISTS,
                         "segment %.200s exists, and whether it is in use "
                         "cannot be seen from here: SHD_RESTORE_IN_USE "
                         "(--force) replaces it all the same",
                         name);
    if (n == 0)
        return SHD_OK;
    return error_set(SHD_EXISTS,
                     "segment %.200s has %u live workers, who would go on "
                     "with the old one: end them, or replace it all the same "
                     "by SHD_RESTORE_IN_USE (--force)",
                     name, n);
}

/* ---- restoring --------------------------------------------------------- */

#define FLAGS_KNOWN                                                           \
    ((uint32_t)(SHD_RESTORE_REPLACE | SHD_RESTORE_IN_USE |                    \
                SHD_RESTORE_FREEZE | SHD_RESTORE_VERIFY))

static int choose_name(shd_restore *r, const char *name)
{
    if (name == NULL)
        name = r->restore.segment_name;
    if (name[0] == '\0')
        return error_set(SHD_NAME, "the segment that was saved had no name: "
                                   "give one");
    if (strlen(name) >= sizeof(r->name))
        return error_set(SHD_NAME, "a segment's name has up to 255 bytes");
    memcpy(r->name, name, strlen(name) + 1);
    return replace_check(r->name, r->flags);
}

/* A segment without a name, as the saved one was made; this process attaches
 * it as it wants. */
static int make_segment(shd_restore *r, const struct shd_segment_options *own)
{
    uint64_t seed;
    struct shd_segment_options o = restore_options(&r->restore, &seed);
    int rc;

    if (own != NULL) {
        if (own->struct_size != sizeof(*own))
            return error_set(SHD_INVAL, "options: struct_size is %u, this "
                                        "library's is %zu",
                             own->struct_size, sizeof(*own));
        o.flags = own->flags;
        o.wait_ms = own->wait_ms;
        o.worker_id = own->worker_id;
        o.generation = own->generation;
        o.worker_name = own->worker_name;
    }
    rc = handle_create_unnamed(r->name, &o, seed, &r->birth, &r->segment);
    if (rc == SHD_OK)
        rc = handle_writer(r->segment);
    if (rc == SHD_OK)
        restore_into(&r->restore, &r->segment->env);
    return rc;
}

static int begin(shd_restore *r, const char *path, const char *name,
                 const struct shd_restore_options *o)
{
    int rc;

    if ((o->flags & ~FLAGS_KNOWN) != 0)
        return error_set(SHD_INVAL, "options: unknown flags 0x%x",
                         o->flags & ~FLAGS_KNOWN);
    r->flags = o->flags;
    rc = restore_begin(&r->restore, path,
                       (o->flags & SHD_RESTORE_FREEZE) != 0);
    if (rc != SHD_OK || (o->flags & SHD_RESTORE_VERIFY) != 0)
        return rc;
    rc = choose_name(r, name);
    return rc == SHD_OK ? make_segment(r, o->segment) : rc;
}

int shd_restore_open(const char *path, const char *name,
                     const struct shd_restore_options *o, shd_restore **out)
{
    struct shd_restore_options options;
    shd_restore *r;
    int rc = handle_options(o, &options, sizeof(options),
                            "struct shd_restore_options");

    if (rc == SHD_OK && (out == NULL || path == NULL))
        rc = error_set(SHD_INVAL, "path or out is NULL");
    if (rc != SHD_OK)
        return rc;
    r = calloc(1, sizeof(*r));
    if (r == NULL)
        return error_set(SHD_NOMEM, "no memory for a restore");
    r->restore.file.fd = -1;
    rc = begin(r, path, name, &options);
    if (rc != SHD_OK)
        (void)shd_restore_close(r, NULL);
    else
        *out = r;
    return rc;
}

static int publish(shd_restore *r)
{
    int rc = replace_check(r->name, r->flags);
    bool replace =
        (r->flags & (SHD_RESTORE_REPLACE | SHD_RESTORE_IN_USE)) != 0;

    return rc == SHD_OK ? segment_publish(&r->birth, replace) : rc;
}

int shd_restore_step(shd_restore *r)
{
    int rc;

    if (r == NULL)
        return error_set(SHD_INVAL, "the restore is NULL");
    if (r->failed)
        return failed_before();
    if (r->done)
        return 0;
    /* In a child of fork it is another worker's. */
    rc = r->segment != NULL ? handle_writer(r->segment) : SHD_OK;
    if (rc == SHD_OK)
        rc = restore_step(&r->restore);
    if (rc == 0 && r->segment != NULL)
        rc = publish(r);
    r->done = rc == 0;
    r->failed = rc < 0;
    return rc;
}

int shd_restore_info(shd_restore *r, struct shd_keep_info *info)
{
    const struct restore *v = &r->restore;
    int rc = info_check(info);

    if (rc != SHD_OK)
        return rc;
    memset(info, 0, sizeof(*info));
    info->struct_size = sizeof(*info);
    tell_sums(info, &v->reader.sums);
    info->done = r->done;
    info->at = info->bytes = v->file.at;
    info->total = v->file.size;
    info->saved_ms = v->file.saved_ms;
    info->expired = v->expired;
    info->evicted = v->evicted;
    memcpy(info->name, v->segment_name, sizeof(info->name));
    return SHD_OK;
}

int shd_restore_close(shd_restore *r, shd_segment **segment)
{
    if (segment != NULL)
        *segment = NULL;
    if (r == NULL)
        return error_set(SHD_INVAL, "the restore is NULL");
    restore_end(&r->restore);
    if (r->segment != NULL && r->done && segment != NULL)
        *segment = r->segment;
    else if (r->segment != NULL)
        (void)shd_segment_close(r->segment);
    if (!r->done)
        segment_abandon(&r->birth);
    free(r);
    return SHD_OK;
}

int shd_segment_restore(const char *path, const char *name,
                        const struct shd_restore_options *o,
                        struct shd_keep_info *info, shd_segment **segment)
{
    shd_restore *r = NULL;
    int rc = info == NULL ? SHD_OK : info_check(info);

    if (segment != NULL)
        *segment = NULL;
    if (rc == SHD_OK)
        rc = shd_restore_open(path, name, o, &r);
    if (rc != SHD_OK)
        return rc;
    do {
        rc = shd_restore_step(r);
    } while (rc == 1);
    if (rc == SHD_OK && info != NULL)
        rc = shd_restore_info(r, info);
    (void)shd_restore_close(r, segment);
    return rc;
}

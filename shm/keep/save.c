/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/keep/save.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/ipc/queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define STEP_BYTES (1u << 20)
#define NOT_COPIED UINT64_MAX
#define TMPFS "/dev/shm/shdict-"

/* ---- beginning --------------------------------------------------------- */

/* Under which it can be opened again: a plain name, or the path. */
static const char *name_of(const struct segment *s)
{
    size_t len = strlen(TMPFS);

    return strncmp(s->path, TMPFS, len) == 0 ? s->path + len : s->path;
}

static int put_segment(struct save *s)
{
    const struct segment *g = s->env->segment;
    struct stat st;

    if (fstat(g->fd, &st) != 0)
        return error_errno("fstat of the segment");
    s->copy.out.used = 0;
    return record_add(&s->copy.out, RECORD_SEGMENT,
                      (const uint64_t[]){g->hash_seed,
                                         g->size - g->extents_at,
                                         g->workers_max, g->objects_max,
                                         g->locks_max, st.st_mode & 0777},
                      6, s->name);
}

/* For who wants to know how far it is. */
static uint64_t count_all(const struct guard_env *env)
{
    struct shd_dict_info di;
    struct catalogue_object o;
    struct dict d;
    uint64_t sum = 0;

    for (uint32_t i = 0; i < env->segment->objects_max; i++) {
        if (catalogue_at(env, i, &o) != SHD_OK || o.kind != SHD_OBJECT_DICT ||
            dict_view(env, &o, &d) != SHD_OK || dict_info(&d, &di) != SHD_OK)
            continue;
        sum += di.entries;
    }
    return sum;
}

static uint64_t catalogue_seq(const struct guard_env *env)
{
    return atomic_load64_acquire(
        &guard_at(env->segment, GUARD_CATALOGUE)->seq);
}

int save_begin(struct save *s, const struct guard_env *env, const char *path,
               uint32_t hold_ms)
{
    uint64_t wall = clock_wall_ms();
    int rc;

    memset(s, 0, sizeof(*s));
    s->file.fd = -1;
    s->env = env;
    s->guards = env->segment->locks_max;
    s->seqs = malloc(s->guards * sizeof(*s->seqs));
    if (s->seqs == NULL)
        return error_set(SHD_NOMEM, "this process has no memory");
    for (uint32_t i = 0; i < s->guards; i++)
        s->seqs[i] = NOT_COPIED;
    s->copy.hold_ms = hold_ms != 0 ? hold_ms : SAVE_HOLD_MS_DEFAULT;
    s->saved_ms = wall;
    snprintf(s->name, sizeof(s->name), "%s", name_of(env->segment));
    s->copy.to_wall_ms = (int64_t)(wall - clock_now_ms());
    s->total = count_all(env);
    s->catalogue_seq = catalogue_seq(env);
    rc = file_writer_begin(&s->file, path, wall);
    return rc == SHD_OK ? put_segment(s) : rc;
}

/* ---- steps ------------------------------------------------------------- */

static void remember(struct save *s, uint32_t guard)
{
    if (guard < s->guards)
        s->seqs[guard] = s->copy.seq;
}

static uint32_t guard_number(const struct save *s, const struct guard *g)
{
    return (uint32_t)(g - guard_at(s->env->segment, 0));
}

static int begin_dict(struct save *s, const struct catalogue_object *o)
{
    const struct dict *d = &s->dict;
    int rc = dict_view(s->env, o, &s->dict);

    if (rc != SHD_OK)
        return rc;
    s->in_dict = true;
    s->shard = 0;
    s->copy.sums.objects++;
    return record_add(&s->copy.out, RECORD_DICT,
                      (const uint64_t[]){dict_capacity(d),
                                         d->header->capacity_max_bytes,
                                         d->shards,
                                         dict_entries_hint(d)},
                      4, d->name);
}

/* It was destroyed after its first part had been written. */
static int drop_dict(struct save *s)
{
    s->in_dict = false;
    s->index++;
    s->dropped++;
    s->copy.out.used = 0;
    return record_add(&s->copy.out, RECORD_DROP, NULL, 0, NULL);
}

static int next_shard(struct save *s)
{
    int rc = copy_shard(&s->copy, &s->dict, s->shard);

    if (rc == SHD_GONE)
        return drop_dict(s);
    if (rc != SHD_OK)
        return rc;
    remember(s, guard_number(s, dict_guard(&s->dict, s->shard)));
    if (++s->shard == s->dict.shards) {
        s->in_dict = false;
        s->index++;
    }
    return SHD_OK;
}

static int end_of_all(struct save *s)
{
    const struct record_sums *n = &s->copy.sums;
    uint32_t used = catalogue_guards(s->env->segment);

    s->one_moment = catalogue_seq(s->env) == s->catalogue_seq &&
                    s->dropped == 0;
    for (uint32_t i = 0; i < used && i < s->guards; i++)
        if (s->seqs[i] != NOT_COPIED &&
            atomic_load64_acquire(&guard_at(s->env->segment, i)->seq) !=
                s->seqs[i])
            s->one_moment = false;
    s->done = true;
    return record_add(&s->copy.out, RECORD_END,
                      (const uint64_t[]){n->objects, n->entries, n->elements,
                                         n->messages, n->events},
                      5, NULL);
}

static int next_object(struct save *s)
{
    struct catalogue_object o;
    int rc = catalogue_at(s->env, s->index, &o);

    if (rc == SHD_INVAL)
        return end_of_all(s);
    if (rc == SHD_OK && o.kind == SHD_OBJECT_DICT)
        return begin_dict(s, &o);
    s->index++;
    if (rc == SHD_OK) {
        rc = copy_object(&s->copy, s->env, &o);
        if (rc == SHD_OK)
            remember(s, o.guards_first);
        else
            s->copy.out.used = 0;
    }
    /* None there, or none any more. */
    return rc == SHD_NOTFOUND || rc == SHD_GONE ? SHD_OK : rc;
}

/* What has been copied goes into the file first. */
static int write_some(struct save *s)
{
    uint64_t left = s->copy.out.used - s->written;
    size_t n = left < STEP_BYTES ? (size_t)left : STEP_BYTES;
    int rc = file_write(&s->file, s->copy.out.bytes + s->written, n);

    s->written += n;
    if (s->written < s->copy.out.used)
        return rc;
    s->written = 0;
    s->copy.out.used = 0;
    if (rc == SHD_OK && s->done)
        rc = file_writer_finish(&s->file);
    return rc;
}

int save_step(struct save *s)
{
    int rc;

    if (s->copy.out.used == 0) {
        if (s->done)
            return 0;
        rc = s->in_dict ? next_shard(s) : next_object(s);
        return rc == SHD_OK ? 1 : rc;
    }
    rc = write_some(s);
    if (rc != SHD_OK)
        return rc;
    return s->done && s->copy.out.used == 0 ? 0 : 1;
}

void save_end(struct save *s)
{
    file_writer_end(&s->file);
    record_buffer_free(&s->copy.out);
    free(s->seqs);
    s->seqs = NULL;
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/api/object.h"
#include "shm/base/error.h"
#include "shm/worker/doorbell.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- handles ----------------------------------------------------------- */

static struct handle_object *find(shd_segment *segment, const struct object *o)
{
    for (struct handle_object *h = segment->objects; h != NULL; h = h->next)
        if (h->object.generation == o->generation &&
            strcmp(h->object.name, o->name) == 0)
            return h;
    return NULL;
}

/* As for dicts: the oldest closed one, if there are many. */
static struct handle_object *find_closed(shd_segment *segment)
{
    struct handle_object *oldest = NULL;
    uint32_t closed = 0;

    for (struct handle_object *h = segment->objects; h != NULL; h = h->next) {
        if (h->open == 0) {
            oldest = h;
            closed++;
        }
    }
    return closed >= HANDLE_CLOSED_MAX ? oldest : NULL;
}

static int intern(shd_segment *segment, const struct handle_object *seen,
                  struct handle_object **out)
{
    struct handle_object *h = find(segment, &seen->object);

    if (h == NULL) {
        h = find_closed(segment);
        if (h == NULL) {
            h = calloc(1, sizeof(*h));
            if (h == NULL)
                return error_set(SHD_NOMEM, "no memory for a handle");
            h->owner = segment;
            h->next = segment->objects;
            segment->objects = h;
        }
    }
    if (h->open == 0)
        memcpy(h->view, seen->view, sizeof(h->view));
    atomic_store32(&h->open, h->open + 1);
    *out = h;
    return SHD_OK;
}

int handle_object_open(shd_segment *segment, const char *name,
                       const struct handle_opening *how,
                       struct handle_object **out)
{
    struct handle_object seen;
    int rc = handle_reader(segment);

    if (rc != SHD_OK)
        return rc;
    if (name == NULL || out == NULL)
        return error_set(SHD_INVAL, "name or out is NULL");
    rc = catalogue_name_check(name);
    if (rc != SHD_OK)
        return rc;
    memset(&seen, 0, sizeof(seen));
    rc = how->open(&segment->env, name, how->options, false, seen.view);
    if (rc == SHD_NOTFOUND && how->may_create) {
        rc = handle_writer(segment);
        if (rc == SHD_OK)
            rc = how->open(&segment->env, name, how->options, true, seen.view);
    }
    if (rc != SHD_OK)
        return rc;
    handle_tables_lock();
    rc = intern(segment, &seen, out);
    handle_tables_unlock();
    return rc;
}

int handle_options(const void *given, void *copy, size_t size,
                   const char *what)
{
    uint32_t given_size;

    memset(copy, 0, size);
    if (given == NULL)
        return SHD_OK;
    memcpy(&given_size, given, sizeof(given_size));
    if (given_size < sizeof(given_size) || given_size > size)
        return error_set(SHD_INVAL,
                         "%s of %u bytes: this library knows %zu", what,
                         given_size, size);
    memcpy(copy, given, given_size);
    return SHD_OK;
}

static int check_kind(const struct handle_object *h, uint32_t kind)
{
    if (h == NULL)
        return error_set(SHD_INVAL, "the %s's handle is NULL",
                         object_kind_name(kind));
    if (kind != 0 && h->object.kind != kind)
        return error_set(SHD_INVAL, "'%s' is a %s, no %s", h->object.name,
                         object_kind_name(h->object.kind),
                         object_kind_name(kind));
    return SHD_OK;
}

int handle_object_reader_by(struct handle_object *h, uint32_t kind)
{
    int rc = check_kind(h, kind);

    if (rc != SHD_OK)
        return rc;
    if (atomic_load32(&h->open) == 0)
        return error_set(SHD_CLOSED, "%s '%s' is closed",
                         object_kind_name(kind), h->object.name);
    if (atomic_load32(&h->owner->open) == 0)
        return error_set(SHD_CLOSED, "the segment of %s '%s' is closed",
                         object_kind_name(kind), h->object.name);
    return SHD_OK;
}

int handle_object_writer_by(struct handle_object *h, uint32_t kind)
{
    int rc = handle_object_reader_by(h, kind);

    return rc != SHD_OK ? rc : handle_writer(h->owner);
}

int handle_object_close(struct handle_object *h, uint32_t kind)
{
    int rc = check_kind(h, kind);

    if (rc != SHD_OK)
        return rc;
    handle_tables_lock();
    if (h->open == 0)
        rc = error_set(SHD_CLOSED, "the %s is closed", object_kind_name(kind));
    else
        atomic_store32(&h->open, h->open - 1);
    handle_tables_unlock();
    return rc;
}

void handle_objects_close(shd_segment *segment)
{
    for (struct handle_object *h = segment->objects; h != NULL; h = h->next)
        atomic_store32_release(&h->open, 0);
}

int handle_object_destroy(shd_segment *segment, const char *name,
                          uint32_t kind)
{
    struct catalogue_object c;
    int rc = handle_writer(segment);

    if (rc != SHD_OK)
        return rc;
    if (name == NULL)
        return error_set(SHD_INVAL, "the name is NULL");
    rc = catalogue_find(&segment->env, name, &c);
    if (rc == SHD_OK && kind != 0 && c.kind != kind)
        rc = error_set(SHD_MISMATCH, "'%s' is a %s, no %s", name,
                       object_kind_name(c.kind), object_kind_name(kind));
    return rc != SHD_OK ? rc : object_destroy(&segment->env, name);
}

int shd_object_destroy(shd_segment *segment, const char *name)
{
    return handle_object_destroy(segment, name, 0);
}

const char *shd_object_kind_name(uint32_t kind)
{
    return object_kind_name(kind);
}

/* ---- the doorbell ------------------------------------------------------ */

/* With the tables. A worker that left and joined again is another one. */
static int bell(shd_segment *h)
{
    int fd, rc;

    if (h->bell_fd >= 0 && h->bell_of == h->env.incarnation)
        return h->bell_fd;
    rc = doorbell_open(&h->env, &fd);
    if (rc != SHD_OK)
        return rc;
    if (h->bell_fd >= 0)
        (void)close(h->bell_fd);
    h->bell_fd = fd;
    h->bell_of = h->env.incarnation;
    return fd;
}

int shd_worker_fd(shd_segment *segment)
{
    int rc = handle_writer(segment);

    if (rc != SHD_OK)
        return rc;
    handle_tables_lock();
    rc = bell(segment);
    handle_tables_unlock();
    return rc;
}

int shd_worker_fd_clear(shd_segment *segment)
{
    int fd, rc = handle_reader(segment);

    if (rc != SHD_OK)
        return rc;
    handle_tables_lock();
    fd = segment->bell_fd;
    handle_tables_unlock();
    return fd < 0 ? SHD_OK : doorbell_clear(fd);
}

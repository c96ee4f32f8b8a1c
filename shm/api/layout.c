/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What each byte of a segment's file is for: the segment's own tables as the
 * header places them, then the objects in the order of their extents. Each
 * part ends where the next one begins, and what is nobody's is a part as well,
 * so that the parts are the file, whatever the catalogue says; an object that
 * would overlap the one before it, or contradicts itself, is one part that is
 * said to be damaged.
 */
#include "shm/api/handle.h"
#include "shm/base/error.h"
#include "shm/dict/index.h"
#include "shm/dict/picture.h"
#include "shm/ipc/mailbox.h"
#include "shm/ipc/permits.h"
#include "shm/ipc/queue.h"
#include "shm/ipc/topic.h"

#include "shm/api/gates.h" /* last */

#include <stdlib.h>
#include <string.h>

struct shd_layout {
    struct shd_region *region;
    size_t n, room;
    bool failed; /* no memory for more */
};

/* A part of an object: where it begins; it ends with the next one. */
struct part {
    const char *name;
    uint64_t at, used;
};

#define OBJECT_PARTS_MAX 8

/* The parts in their order; 0: it contradicts itself. */
typedef size_t parts_of(const struct guard_env *env,
                        const struct catalogue_object *o, struct part *part);

/* ---- objects ----------------------------------------------------------- */

static size_t dict_parts(const struct guard_env *env,
                         const struct catalogue_object *o, struct part *part)
{
    const struct segment *s = env->segment;
    struct dict d;
    uint64_t described, first;
    uint32_t grain;
    size_t n = 0;

    if (dict_view(env, o, &d) != SHD_OK)
        return 0;
    described = pages_described(&d.pages);
    grain = index_grain(atomic_load64(&d.pages.bounds->state));
    if (!index_has(&d, grain))
        return 0;
    first = grain == d.grain_first ? index_bytes(&d, grain) : 0;
    part[n++] = (struct part){"header", o->extent_at, sizeof(*d.header)};
    part[n++] = (struct part){"shards", segment_offset(s, d.shard),
                              d.shards * sizeof(*d.shard)};
    if (first != 0)
        part[n++] =
            (struct part){"roots", segment_offset(s, d.roots[grain]), first};
    part[n++] = (struct part){"page map", segment_offset(s, d.pages.map),
                              pages_map_bytes(described)};
    part[n++] = (struct part){"page table", segment_offset(s, d.pages.table),
                              pages_table_bytes(described)};
    part[n++] =
        (struct part){"pages", d.pages.at, picture_owned(&d) * PAGE_BYTES};
    if (first == 0)
        part[n++] = (struct part){"roots", segment_offset(s, d.roots[grain]),
                                  index_bytes(&d, grain)};
    return n;
}

static size_t queue_parts(const struct object *o, struct part *part)
{
    struct queue q;

    if (queue_view(o, &q) != SHD_OK)
        return 0;
    part[0] =
        (struct part){"header", 0, OBJECT_HEADER_BYTES + sizeof(*q.header)};
    part[1] =
        (struct part){"messages", q.cells.at,
                      atomic_load32(&q.cells.header->used) * q.cells.bytes};
    return 2;
}

static size_t topic_parts(const struct object *o, struct part *part)
{
    const struct segment *s = o->env->segment;
    struct topic t;
    struct topic_span span;

    if (topic_view(o, &t) != SHD_OK)
        return 0;
    part[0] =
        (struct part){"header", 0, OBJECT_HEADER_BYTES + sizeof(*t.header)};
    part[1] = (struct part){"ring", segment_offset(s, t.ring),
                            topic_span_kept(&t, &span)
                                ? span.head_at - span.tail_at
                                : 0};
    part[2] = (struct part){"cursors", segment_offset(s, t.cursors),
                            (uint64_t)atomic_load32(&t.header->subscribers) *
                                sizeof(*t.cursors)};
    return 3;
}

static size_t permits_parts(const struct object *o, struct part *part)
{
    const struct segment *s = o->env->segment;
    struct permits p;

    if (permits_view(o, &p) != SHD_OK)
        return 0;
    part[0] =
        (struct part){"header", 0, OBJECT_HEADER_BYTES + sizeof(*p.header)};
    part[1] = (struct part){"permits", segment_offset(s, p.slots),
                            (uint64_t)atomic_load32(&p.header->slots_taken) *
                                sizeof(*p.slots)};
    part[2] = (struct part){"waiters", segment_offset(s, p.waiters),
                            (uint64_t)atomic_load32(&p.header->waiting) *
                                sizeof(*p.waiters)};
    return 3;
}

static size_t mailbox_parts(const struct object *o, struct part *part)
{
    const struct segment *s = o->env->segment;
    struct mailbox b;

    if (mailbox_view(o, &b) != SHD_OK)
        return 0;
    part[0] =
        (struct part){"header", 0, OBJECT_HEADER_BYTES + sizeof(*b.header)};
    part[1] = (struct part){"boxes", segment_offset(s, b.boxes),
                            (uint64_t)b.count * sizeof(*b.boxes)};
    part[2] =
        (struct part){"messages", b.cells.at,
                      atomic_load32(&b.cells.header->used) * b.cells.bytes};
    return 3;
}

/* What a kind says of itself; others are one part between header and bells. */
static const struct {
    uint32_t kind;
    size_t (*parts)(const struct object *o, struct part *part);
} KINDS[] = {
    {SHD_OBJECT_QUEUE, queue_parts},
    {SHD_OBJECT_TOPIC, topic_parts},
    {SHD_OBJECT_LOCK, permits_parts},
    {SHD_OBJECT_SEMAPHORE, permits_parts},
    {SHD_OBJECT_LEADER, permits_parts},
    {SHD_OBJECT_MAILBOX, mailbox_parts},
};

static size_t other_parts(const struct guard_env *env,
                          const struct catalogue_object *c, struct part *part)
{
    struct object o;
    size_t n = 0;
    bool known = false;

    if (object_view(env, c, &o) != SHD_OK)
        return 0;
    for (size_t i = 0; i < sizeof(KINDS) / sizeof(KINDS[0]); i++) {
        if (KINDS[i].kind == c->kind) {
            known = true;
            n = KINDS[i].parts(&o, part);
        }
    }
    if (known && n == 0)
        return 0;
    if (!known) {
        part[n++] = (struct part){"header", 0, OBJECT_HEADER_BYTES};
        part[n++] = (struct part){"own", o.own_at, o.own_bytes};
    }
    part[0].at = c->extent_at;
    part[n++] = (struct part){"bells", segment_offset(env->segment, o.bells),
                              (uint64_t)o.places * o.bell_words * 8};
    return n;
}

/* ---- the list ---------------------------------------------------------- */

static void add(const shd_segment *h, shd_layout *l, uint64_t at, uint64_t end,
                const struct part *part, const struct catalogue_object *o)
{
    struct shd_region *r;

    if (end <= at || l->failed)
        return;
    if (l->n == l->room) {
        size_t room = l->room == 0 ? 64 : 2 * l->room;
        struct shd_region *more = realloc(l->region, room * sizeof(*more));

        if (more == NULL) {
            l->failed = true;
            return;
        }
        l->region = more;
        l->room = room;
    }
    r = &l->region[l->n++];
    memset(r, 0, sizeof(*r));
    r->struct_size = sizeof(*r);
    r->at = at;
    r->bytes = end - at;
    r->used_bytes = part->used < r->bytes ? part->used : r->bytes;
    (void)strncpy(r->part, part->name, sizeof(r->part) - 1);
    if (segment_in_memory(&h->segment, at, r->bytes, &r->memory_bytes) !=
        SHD_OK)
        r->memory_bytes = 0;
    if (o != NULL) {
        r->kind = o->kind;
        r->generation = o->generation;
        memcpy(r->object, o->name, sizeof(r->object));
    }
}

/* Ascending, and inside the object's extent. */
static bool in_order(const struct catalogue_object *o, const struct part *part,
                     size_t n)
{
    uint64_t end = o->extent_at + o->extent_bytes;

    if (n == 0 || part[0].at != o->extent_at)
        return false;
    for (size_t i = 1; i < n; i++)
        if (part[i].at <= part[i - 1].at || part[i].at >= end)
            return false;
    return true;
}

static void add_object(const shd_segment *h, shd_layout *l,
                       const struct catalogue_object *o)
{
    static const struct part damaged = {"damaged", 0, 0};
    uint64_t end = o->extent_at + o->extent_bytes;
    struct part part[OBJECT_PARTS_MAX];
    size_t n = o->kind == SHD_OBJECT_DICT ? dict_parts(&h->env, o, part)
                                          : other_parts(&h->env, o, part);

    if (!in_order(o, part, n)) {
        add(h, l, o->extent_at, end, &damaged, o);
        return;
    }
    for (size_t i = 0; i < n; i++)
        add(h, l, part[i].at, i + 1 < n ? part[i + 1].at : end, &part[i], o);
}

static int by_extent(const void *a, const void *b)
{
    uint64_t x = ((const struct catalogue_object *)a)->extent_at;
    uint64_t y = ((const struct catalogue_object *)b)->extent_at;

    return x < y ? -1 : x > y;
}

/* Copies of the objects by their places, and *damaged: slots that contradict
 * themselves. NULL: no memory. */
static struct catalogue_object *objects(const shd_segment *h, size_t *n,
                                        uint64_t *damaged)
{
    uint32_t max = h->segment.objects_max;
    struct catalogue_object *o = calloc(max, sizeof(*o));

    *n = 0;
    *damaged = 0;
    for (uint32_t i = 0; o != NULL && i < max; i++) {
        int rc = catalogue_at(&h->env, i, &o[*n]);

        *n += rc == SHD_OK;
        *damaged += rc == SHD_CORRUPT;
    }
    if (o != NULL)
        qsort(o, *n, sizeof(*o), by_extent);
    return o;
}

/* How many lie over the one before, and were left out. */
static uint64_t add_objects(const shd_segment *h, shd_layout *l,
                            const struct catalogue_object *o, size_t n)
{
    static const struct part room = {"room", 0, 0};
    uint64_t at = h->segment.extents_at, over = 0;

    for (size_t i = 0; i < n; i++) {
        if (o[i].extent_at < at) {
            over++;
            continue;
        }
        add(h, l, at, o[i].extent_at, &room, NULL);
        add_object(h, l, &o[i]);
        at = o[i].extent_at + o[i].extent_bytes;
    }
    add(h, l, at, h->segment.size, &room, NULL);
    return over;
}

static uint64_t workers(const shd_segment *h)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < h->segment.workers_max; i++)
        n +=
            atomic_load64(&registry_slot_at(&h->segment, i)->incarnation) != 0;
    return n;
}

static uint64_t add_all(const shd_segment *h, shd_layout *l,
                        const struct catalogue_object *o, size_t n,
                        uint64_t damaged)
{
    const struct segment *s = &h->segment;
    uint64_t dicts = 0;

    for (size_t i = 0; i < n; i++)
        dicts += o[i].kind == SHD_OBJECT_DICT;
    const struct part part[] = {
        {"header", 0, SEGMENT_PAGE},
        {"locks", s->guards_at,
         (uint64_t)catalogue_guards(s) * SEGMENT_GUARD_BYTES},
        {"catalogue", s->catalogue_at, (n + damaged) * SEGMENT_OBJECT_BYTES},
        {"workers", s->workers_at, workers(h) * SEGMENT_WORKER_BYTES},
        {"counters", s->counters_at, dicts * SEGMENT_COUNTERS_BYTES},
        {"", s->extents_at, 0}};

    for (size_t i = 0; i + 1 < sizeof(part) / sizeof(part[0]); i++)
        add(h, l, part[i].at, part[i + 1].at, &part[i], NULL);
    return add_objects(h, l, o, n);
}

int shd_layout_get(shd_segment *segment, shd_layout **out)
{
    struct catalogue_object *o;
    uint64_t damaged;
    shd_layout *l;
    size_t n;
    int rc = handle_reader(segment);

    if (rc == SHD_OK && out == NULL)
        rc = error_set(SHD_INVAL, "shd_layout_get: out is NULL");
    if (rc != SHD_OK)
        return rc;
    l = calloc(1, sizeof(*l));
    o = l == NULL ? NULL : objects(segment, &n, &damaged);
    if (o != NULL)
        damaged += add_all(segment, l, o, n, damaged);
    free(o);
    if (o == NULL || l->failed) {
        shd_layout_free(l);
        return error_set(SHD_NOMEM, "no memory for a list of parts");
    }
    *out = l;
    if (damaged == 0)
        return SHD_OK;
    return error_set(SHD_CORRUPT,
                     "%llu slots of the catalogue contradict themselves: what "
                     "they own counts as room",
                     (unsigned long long)damaged);
}

uint64_t shd_layout_count(const shd_layout *layout)
{
    return layout == NULL ? 0 : layout->n;
}

int shd_layout_at(const shd_layout *layout, uint64_t index,
                  struct shd_region *region)
{
    if (layout == NULL || region == NULL ||
        region->struct_size != sizeof(*region))
        return error_set(SHD_INVAL, "shd_layout_at: layout or region is NULL, "
                                    "or its struct_size is not set");
    if (index >= layout->n)
        return SHD_NOTFOUND;
    *region = layout->region[index];
    return SHD_OK;
}

void shd_layout_free(shd_layout *layout)
{
    if (layout == NULL)
        return;
    free(layout->region);
    free(layout);
}

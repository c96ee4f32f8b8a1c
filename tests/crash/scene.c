/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/crash/crash.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t crash_random(struct run *r)
{
    r->random ^= r->random << 13;
    r->random ^= r->random >> 7;
    r->random ^= r->random << 17;
    return r->random;
}

bool crash_is_over(void)
{
    return crash_shared->interrupted ||
           (crash_options.seconds > 0 && time(NULL) >= crash_deadline);
}

/* ---- what went wrong ---------------- */

void crash_at_print(const struct at *at, char *to, size_t size)
{
    size_t n = 0;

    to[0] = '\0';
    for (uint32_t i = 0; i < at->depth && n < size; i++)
        n += (size_t)snprintf(to + n, size - n, "%s%u.%u", i > 0 ? ":" : "",
                              at->k[i], at->way[i]);
}

void crash_say(struct run *r, const char *what)
{
    char at[80];

    if (r->failures++ >= FAILURES_SHOWN)
        return;
    crash_at_print(&r->at, at, sizeof(at));
    printf("    \"%s\" after \"%s\": %s\n"
           "      again: crash --only '%s' --number %u --at %s\n",
           r->operation, r->setup, what, r->c->name, r->n,
           at[0] != '\0' ? at : "0.0");
    fflush(stdout);
}

bool crash_failed_call(struct run *r, const char *call, int rc)
{
    char what[700];

    snprintf(what, sizeof(what), "%s gave %s: %s", call, shd_strerror_name(rc),
             shd_last_error());
    crash_say(r, what);
    return false;
}

/* ---- workers ---------------- */

/* The process becomes that worker, as it was before the operation. */
void crash_become(struct run *r, uint32_t worker)
{
    kernel_run(worker);
    r->world.segment->env.incarnation = r->incarnation[worker];
    r->world.segment->forked = false;
    r->world.dict->dict = r->dict;
}

/* A worker that joined before anything happened, and is alive throughout: its
 * byte is held by a file description of its own. */
static bool enlist(struct run *r, uint32_t worker)
{
    shd_segment *h = r->world.segment;
    uint64_t own = h->env.incarnation;
    struct segment holder = h->segment;
    uint32_t index;

    h->env.incarnation = 0;
    if (shd_worker_join(h, &r->incarnation[worker]) != SHD_OK)
        return false;
    h->env.incarnation = own;
    index = r->incarnation[worker] & 0xffff;
    holder.fd = r->holder;
    kernel_give_byte(index, worker);
    return segment_liveness_unlock(&h->segment, index) == SHD_OK &&
           segment_liveness_lock(&holder, index) == SHD_OK;
}

static bool joins_itself(const struct run *r)
{
    return strncmp(r->operation, "join", 4) == 0;
}

static bool enlist_all(struct run *r)
{
    char link[40];

    snprintf(link, sizeof(link), "/proc/self/fd/%d",
             r->world.segment->segment.fd);
    r->holder = open(link, O_RDWR | O_CLOEXEC);
    if (r->holder < 0 ||
        shd_worker_join(r->world.segment, &r->incarnation[BUILDER]) != SHD_OK)
        return false;
    r->world.incarnation = r->incarnation;
    kernel_forget_bytes();
    kernel_give_byte(r->incarnation[BUILDER] & 0xffff, BUILDER);
    for (uint32_t w = OPERATOR; w <= RECOVERER + LEVELS; w++) {
        if ((w != OPERATOR || !joins_itself(r)) && !enlist(r, w))
            return false;
    }
    return true;
}

/* All but those that died on the way to a state that deep. */
uint32_t crash_alive_after(uint32_t deaths)
{
    uint32_t all = (1u << KERNEL_WORKERS) - 1;

    return all & ~(((1u << deaths) - 1) << OPERATOR);
}

/* ---- building ---------------- */

bool crash_build(struct run *r)
{
    struct shd_segment_options so = {.struct_size = sizeof(so)};
    struct shd_dict_options o = {.struct_size = sizeof(o)};
    struct shd_dict_info info = {.struct_size = sizeof(info)};
    struct segment *s;

    so.size_bytes = (r->c->kib * 2 + 256) * 1024ull;
    so.workers_max = WORKERS_MAX;
    so.objects_max = 4;
    so.locks_max = LOCKS_MAX;
    if (shd_segment_create(NULL, &so, &r->world.segment) != SHD_OK)
        return false;
    s = &r->world.segment->segment;
    s->hash_seed = 7;
    segment_header(s)->hash_seed = 7;
    o.capacity_bytes = r->c->kib * 1024ull;
    o.capacity_max_bytes = r->c->kib * 2048ull;
    o.shards = r->c->shards;
    o.entries_hint = r->c->hint;
    if (shd_dict_open(r->world.segment, "crash", &o, &r->world.dict) !=
            SHD_OK ||
        shd_dict_info(r->world.dict, &info) != SHD_OK)
        return false;
    r->world.fresh_free = info.free_bytes;
    r->image_bytes = s->size;
    r->image = malloc(s->size);
    r->image2 = malloc(s->size);
    /* Images are written over all of it. */
    return r->image != NULL && r->image2 != NULL &&
           segment_commit(s, 0, s->size) == SHD_OK && enlist_all(r);
}

void crash_tear_down(struct run *r)
{
    kernel_simulate(false, false);
    if (r->world.segment != NULL)
        (void)shd_segment_close(r->world.segment);
    if (r->holder > 0)
        (void)close(r->holder);
    for (uint32_t i = 0; i <= LEVELS; i++)
        free(r->level[i].word);
    for (uint32_t i = 0; i < LEVELS; i++)
        free(r->death[i].word);
    free(r->checking.word);
    free(r->again.word);
    free(r->known);
    free(r->recovery_reads.read);
    free(r->check_reads.read);
    for (uint32_t i = 0; i <= WAYS; i++)
        free(r->twin[i].marks.of), free(r->twin[i].marks.except);
    free(r->always);
    free(r->stored);
    recall_free(r->recoveries);
    recall_free(r->checks);
    free(r->image);
    free(r->image2);
}

void crash_keep(const struct run *r, unsigned char *image)
{
    memcpy(image, r->world.segment->segment.base, r->image_bytes);
}

void crash_put_back(const struct run *r, const unsigned char *image)
{
    memcpy(r->world.segment->segment.base, image, r->image_bytes);
}

/* Capacity of the largest dict that can still be made. */
void crash_measure_room(struct run *r)
{
    struct shd_dict_options o = {.struct_size = sizeof(o)};
    shd_dict *d;

    crash_keep(r, r->image);
    for (uint64_t kib = r->c->kib + 256; kib >= 8; kib -= 4) {
        o.capacity_bytes = kib * 1024;
        if (shd_dict_open(r->world.segment, "rest", &o, &d) != SHD_OK)
            continue;
        r->room = o.capacity_bytes;
        (void)shd_dict_close(d);
        break;
    }
    crash_put_back(r, r->image);
}

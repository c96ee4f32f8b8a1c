/* SPDX-License-Identifier: BSD-2-Clause */
/* Damage, before a repair: one word, or one structure, of a dict. */
#include "tests/crash/script_break.h"

#include <string.h>

#include "shm/api/handle.h"
#include "shm/dict/forest.h"
#include "shm/ipc/mailbox.h"
#include "shm/ipc/permits.h"
#include "shm/ipc/queue.h"
#include "shm/ipc/topic.h"

static struct cell *cell_of(struct dict *d, const char *key)
{
    struct place at = dict_place(d, key, strlen(key));
    uint32_t ref = 0;

    if (forest_find(d, &at, key, strlen(key), &ref) != 1)
        return NULL;
    return cell_at(&d->pages, ref, SLAB_CELL_MIN);
}

static void noise(void *to, size_t len)
{
    unsigned char *p = to;

    for (size_t i = 0; i < len; i++)
        p[i] = (unsigned char)(i * 37 + 11);
}

static bool is(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

/* In the entry, or in what it leads to. */
static bool break_entry(struct dict *d, const char *what, const char *key)
{
    struct cell *c = cell_of(d, key);
    struct page *page;

    if (c == NULL)
        return false;
    page = &d->pages.table[pages_number(
        &d->pages, (uint64_t)((unsigned char *)c -
                              (unsigned char *)d->env->segment->base))];
    if (is(what, "lru"))
        c->word[LIST_NEXT] = 12345;
    else if (is(what, "key"))
        *((unsigned char *)c + sizeof(struct entry)) ^= 1;
    else if (is(what, "chain"))
        *entry_chain(&d->pages, c) += 256;
    else if (is(what, "count"))
        entry_list(&d->pages, c)->count = 1u << 30;
    else if (is(what, "list"))
        cell_at(&d->pages, entry_list(&d->pages, c)->first, SLAB_CELL_MIN)
            ->word[CHAIN_NEXT] = 77;
    else if (is(what, "map"))
        memset(page->free_map, 0, 16);
    else if (is(what, "page"))
        noise(page, sizeof(*page));
    else
        return false;
    return true;
}

static bool break_ipc(struct world *w, const char *name)
{
    struct guard_env *env = &w->segment->env;
    struct catalogue_object c;
    struct object o;
    unsigned char *own;

    if (catalogue_find(env, name, &c) != SHD_OK ||
        object_view(env, &c, &o) != SHD_OK)
        return false;
    own = object_own(&o, 0, 64);
    if (own == NULL)
        return false;
    switch (c.kind) {
    case SHD_OBJECT_QUEUE:
        ((struct queue_header *)(void *)own)->ready.first = 12345;
        return true;
    case SHD_OBJECT_TOPIC:
        ((struct topic_header *)(void *)own)->cursors_free = 12345;
        return true;
    case SHD_OBJECT_MAILBOX:
        ((struct mailbox_header *)(void *)own)->cells.used = 12345;
        return true;
    default:
        ((struct permits_header *)(void *)own)->slots_free = 12345;
        return true;
    }
}

bool script_break(struct world *w, const char *what, const char *key)
{
    struct dict *d = &w->dict->dict;
    uint32_t grain = index_grain(atomic_load64(&d->pages.bounds->state));

    if (is(what, "root"))
        *index_root(d, grain, dict_place(d, key, strlen(key)).order) = 0;
    else if (is(what, "roots"))
        memset(d->roots[grain], 0, index_bytes(d, grain) / d->shards);
    else if (is(what, "shard"))
        noise(d->shard, 140);
    else if (is(what, "expiries"))
        d->shard->slab.expiry_root = 1;
    else if (is(what, "garbage"))
        d->shard->garbage = 3;
    else if (is(what, "index"))
        d->pages.bounds->state |= PAGES_STATE_UNSEEN;
    else if (is(what, "bounds"))
        d->header->bounds.limit = 1u << 30;
    else if (is(what, "object"))
        dict_guard(d, 0)->object = 7777;
    else if (is(what, "ipc"))
        return break_ipc(w, key);
    else
        return break_entry(d, what, key);
    return true;
}

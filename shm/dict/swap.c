/* SPDX-License-Identifier: BSD-2-Clause */
/*
 *   before   entry -> old chain           pending -> new chain
 *   after    entry -> new chain           garbage -> old chain
 *
 * Both at once, in one transaction. Of a value that begins in its entry's cell
 * the new end is built, and the old one freed, in that transaction as well;
 * the bytes in the cell are logged, so they must be few.
 *
 * The old chain stays garbage for the next store of such a value, if it is
 * small enough: then neither takes a page, nor gives one back.
 *
 * A reader that copies the old chain without the lock goes on with it while it
 * is garbage, as long as its cells have their numbers: the value it found was
 * there when it began.
 */
#include "shm/dict/swap.h"
#include "shm/base/error.h"
#include "shm/dict/over.h"

/* Bytes of a value in its entry's cell that are logged rather than that the
 * entry takes another cell. */
#define SWAP_PREFIX_MAX (IN_PLACE_WORDS * 8u)
#define SWAP_WORDS                                                            \
    (CHAIN_ONE_WORDS + CHAIN_REUSE_WORDS + SLAB_FREE_BRIEF_WORDS +            \
     IN_PLACE_WORDS + SLAB_EXPIRY_WORDS + 2 * LIST_WORDS + 8u)

static_assert(SWAP_WORDS <= GUARD_UNDO_MAX, "log");

bool swap_fits(const struct attempt *a, const struct item *item)
{
    uint32_t meta, cell, last = item->class + IN_PLACE_LARGER;

    if (a->old == 0 || (item->meta & CELL_CHAINED) == 0 ||
        entry_is_long((uint32_t)item->key_len) ||
        item->prefix > SWAP_PREFIX_MAX)
        return false;
    meta = atomic_load32(&a->entry->cell.meta);
    if (((meta | item->meta) & CELL_KIND_MASK) != 0 ||
        (meta & (CELL_CHAINED | CELL_FLAGS)) !=
            (item->meta & (CELL_CHAINED | CELL_FLAGS)) ||
        (meta & CELL_TYPE_MASK) != SHD_STRING)
        return false;
    cell = slab_cell_bytes(&a->d->pages, dict_owner(a->at.shard), a->old);
    return cell >= slab_class_bytes(item->class) &&
           (last >= SLAB_CLASSES || cell <= slab_class_bytes(last));
}

void swap_will_store(const struct attempt *a)
{
    const struct pages *p = &a->d->pages;
    const uint32_t *chain = entry_chain(p, &a->entry->cell);
    uint32_t ref = chain == NULL ? 0 : atomic_load32(chain);
    uint32_t page = cell_page(p, ref);

    if (page == PAGE_NONE)
        return;
    atomic_will_write(cell_fresh(p, ref));
    atomic_will_write(&p->table[page]);
}

/* Cells of the chain that the value is in, as far as its length tells. */
static uint64_t old_cells(const struct attempt *a)
{
    return chain_pages(atomic_load32(&a->entry->cell.len));
}

/* What the value went on in: freed if it is one cell, else garbage. */
static int let_go(struct attempt *a, struct txn *t, uint32_t ref)
{
    const struct pages *p = &a->d->pages;
    uint32_t owner = dict_owner(a->at.shard);
    struct cell *c = cell_at(p, ref, sizeof(*c));

    if (c == NULL || ref == 0)
        return dict_damaged(a->d, "a chain leads outside");
    a->spare = attempt_spares(a, old_cells(a));
    if (!a->spare && atomic_load32(&c->word[CHAIN_NEXT]) == 0 &&
        slab_frees_briefly(p, owner, ref))
        return slab_free(p, &a->shard->slab, t, owner, ref);
    txn_store32(t, &c->word[CHAIN_OF], 0);
    txn_store32(t, &c->word[CHAIN_GARBAGE], atomic_load32(&a->shard->garbage));
    txn_store32(t, &a->shard->garbage, ref);
    return SHD_OK;
}

/* The words of the entry: all of it but its links and its key. */
static void store_head(struct txn *t, struct entry *e, const struct item *item,
                       uint32_t chain)
{
    uint32_t meta = atomic_load32(&e->cell.meta);
    uint32_t at = entry_value_at(meta, (uint32_t)item->key_len);
    uint64_t *value = (uint64_t *)(void *)((unsigned char *)e + at);
    uint64_t head = item->len << 32 | meta;
    uint64_t expires = item->expires | (uint64_t)item->key_len << 48;

    if (atomic_load64((uint64_t *)(void *)&e->cell.meta) != head)
        txn_store64(t, (uint64_t *)(void *)&e->cell.meta, head);
    if (atomic_load64(&e->key_expires) != expires)
        txn_store64(t, &e->key_expires, expires);
    if ((meta & CELL_FLAGS) != 0)
        txn_store64(t, value - 1, (uint32_t)item->flags);
    txn_store64(t, value, chain | (uint64_t)item->prefix << 32);
    cell_store(t, value + 1, item->value, item->prefix);
}

/* The chain that the value shall go on in: what is pending, or one cell. */
static int new_chain(struct attempt *a, struct txn *t, const struct item *item,
                     uint32_t class, uint32_t *chain)
{
    const struct chain_site site = attempt_site(a, PENDING_ENTRY);

    *chain = atomic_load32(site.pending);
    if (item->prefix == 0)
        return attempt_adopt_chain(a, t, PENDING_ENTRY, a->old);
    *chain =
        chain_reuse_one(&site, t, &item->chain, &a->shard->garbage, a->old);
    return *chain != 0
               ? SHD_OK
               : chain_build_one(&site, t, &item->chain, class, a->old, chain);
}

static int swap(struct attempt *a, const struct item *item, uint32_t tail)
{
    const struct dict *d = a->d;
    uint32_t chain;
    uint32_t *word = entry_chain(&d->pages, &a->entry->cell);
    uint32_t old = word == NULL ? 0 : atomic_load32(word);
    struct txn t;
    int rc;

    attempt_begin(a, &t, SWAP_WORDS);
    rc = new_chain(a, &t, item, tail, &chain);
    if (rc == SHD_OK)
        rc = let_go(a, &t, old);
    if (rc == SHD_OK) {
        store_head(&t, a->entry, item, chain);
        rc = slab_expiry_lower(&d->pages, &a->shard->slab, &t,
                               cell_page(&d->pages, a->old), item->expires);
    }
    if (rc == SHD_OK)
        rc = room_used(d, a->at.shard, &t, a->old);
    return attempt_end(&t, rc);
}

int swap_store(struct attempt *a, const struct item *item, uint32_t *class)
{
    const struct chain_site site = attempt_site(a, PENDING_ENTRY);
    uint32_t tail = 0;
    int rc = SHD_OK;

    if (item->prefix != 0) {
        *class = chain_class(item->chain.second_len);
        tail = attempt_class(a, *class);
        if (!chain_has_one(&site, atomic_load32(&a->shard->garbage),
                           item->chain.second_len))
            rc = slab_prepare(&a->d->pages, &a->shard->slab, tail);
    }
    return rc == SHD_OK ? swap(a, item, tail) : rc;
}

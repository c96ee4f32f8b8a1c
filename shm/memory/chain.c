/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A chain is built from its end: each step fills a fresh cell that points to
 * what is there already and becomes the new head, so that at any moment the
 * `pending` word reaches all that has been taken. Readers cannot reach a
 * pending chain, hence its bytes are filled without a log, and the counter
 * is odd only while the free maps change. They are filled when all cells have
 * been taken: each cell that is taken takes a page by an atomic operation,
 * which would wait until all that was copied before has left the processor.
 *
 * Half of the number of the chain that a cell was built in is in the cell. A
 * reader notes it before it copies the bytes. If the cell is in use and has
 * that number afterwards, it has been the same one all the while, unless 2^32
 * chains were built in between; the counter tells. And if the cell before it,
 * which was the value's, still leads to it, so is this one the value's: or the
 * end of it that has come since, which begins with the same bytes.
 */
#include "shm/memory/chain.h"
#include "shm/base/error.h"

#include <stdio.h>
#include <string.h>

#define BUILD_WORDS (SLAB_ALLOC_WORDS + 5u)

uint64_t chain_pages(uint64_t len)
{
    return (len + CHAIN_DATA_MAX - 1) / CHAIN_DATA_MAX;
}

/* Copies bytes from..from+len of the joined source into the cell. */
static void source_fill(const struct chain_source *s, uint64_t from,
                        unsigned char *cell, uint64_t len)
{
    if (from < s->first_len) {
        uint64_t n = s->first_len - from < len ? s->first_len - from : len;
        uint64_t real = from < s->first_bytes ? s->first_bytes - from : 0;

        if (real > n)
            real = n;
        if (real > 0)
            cell_fill(cell, s->first + from, real);
        cell += n;
        from += n;
        len -= n;
    }
    if (len > 0)
        cell_fill(cell, s->second + (from - s->first_len), len);
}

uint32_t chain_class(uint64_t left)
{
    return slab_class((left - 1) % CHAIN_DATA_MAX + 1 + sizeof(struct cell));
}

/* Links a fresh cell before the pending chain, or begins one with it. */
static int prepend(const struct chain_site *site, struct txn *t, uint32_t ref,
                   struct cell *c)
{
    uint32_t head = atomic_load32(site->pending);
    uint64_t number = atomic_load64(site->built);

    if (head == 0) {
        txn_store64(t, site->built, ++number);
    } else {
        struct cell *old = cell_at(site->pages, head, sizeof(*old));

        if (old == NULL)
            return error_set(SHD_CORRUPT, "chain: a chain being built leads "
                                          "outside its dict");
        txn_store32(t, &old->word[CHAIN_BACK], ref);
        number = atomic_load32(&old->word[CHAIN_NUMBER]);
    }
    atomic_store32(&c->word[CHAIN_NEXT], head);
    atomic_store32(&c->word[CHAIN_BACK], 0);
    atomic_store32(&c->word[CHAIN_OF], 0);
    atomic_store32(&c->word[CHAIN_NUMBER], (uint32_t)number);
    txn_store32(t, site->pending, ref);
    return SHD_OK;
}

int chain_build_step(const struct chain_site *site, uint32_t class,
                     uint64_t *left)
{
    const struct pages *p = site->pages;
    /* All cells but the last are full, so a piece begins at a multiple. */
    uint64_t from = (*left - 1) / CHAIN_DATA_MAX * CHAIN_DATA_MAX;
    uint32_t len = (uint32_t)(*left - from);
    struct txn t;
    struct cell *c;
    uint32_t ref;
    int rc = slab_prepare(p, site->slab, class);

    assert(class >= chain_class(*left));
    if (rc != SHD_OK)
        return rc;
    txn_begin(&t, p->segment, site->guard, BUILD_WORDS);
    rc = slab_alloc(p, site->slab, &t, site->owner, class, PAGE_NONE, &ref);
    if (rc == SHD_OK) {
        c = cell_fresh(p, ref);
        atomic_store32(&c->meta, SHD_STRING | CELL_CHAIN << CELL_KIND_SHIFT);
        atomic_store32(&c->len, len);
        rc = prepend(site, &t, ref, c);
    }
    if (rc != SHD_OK) {
        txn_abort(&t);
        return rc;
    }
    txn_commit(&t);
    *left = from;
    return SHD_OK;
}

/* The first lines of a cell, after which the processor sees by itself that the
 * others will follow; until then it waits for each, for a cell may lie
 * anywhere. */
#define SOON_BYTES 512u
#define LINE_BYTES 64u

static const unsigned char *soon_at(const struct pages *p, uint32_t ref)
{
    return p->segment->base + (uint64_t)ref * SEGMENT_UNIT;
}

static void will_read(const struct pages *p, uint32_t ref)
{
    for (uint32_t i = 0; ref != 0 && i < SOON_BYTES; i += LINE_BYTES)
        atomic_will_read(soon_at(p, ref) + i);
}

static void will_fill(const struct pages *p, uint32_t ref)
{
    for (uint32_t i = 0; ref != 0 && i < SOON_BYTES; i += LINE_BYTES)
        atomic_will_write(soon_at(p, ref) + i);
}

/* One step along a chain that will be freed: the cell's head and its page's
 * descriptor. */
static uint32_t will_free(const struct pages *p, uint32_t ref)
{
    const struct cell *c = cell_at(p, ref, sizeof(*c));
    uint32_t next = c == NULL ? 0 : atomic_load32(&c->word[CHAIN_NEXT]);
    uint32_t page = cell_page(p, next);

    if (page != PAGE_NONE) {
        atomic_will_write(soon_at(p, next));
        atomic_will_write(&p->table[page]);
    }
    return next;
}

int chain_fill(const struct chain_site *site,
               const struct chain_source *source, uint32_t goes)
{
    const struct pages *p = site->pages;
    uint32_t ref = atomic_load32(site->pending);
    uint64_t total = chain_source_len(source), from = 0;

    while (from < total) {
        uint64_t len = total - from;
        struct cell *c;

        if (len > CHAIN_DATA_MAX)
            len = CHAIN_DATA_MAX;
        c = cell_at(p, ref, (uint32_t)(sizeof(*c) + len));
        if (c == NULL)
            return error_set(SHD_CORRUPT, "chain: a chain being built leads "
                                          "outside its dict");
        ref = atomic_load32(&c->word[CHAIN_NEXT]);
        will_fill(p, ref);
        goes = goes == 0 ? 0 : will_free(p, goes);
        /* A crash in here leaves garbage bytes in a cell that will be freed.
         */
        source_fill(source, from, (unsigned char *)(c + 1), len);
        from += len;
    }
    return SHD_OK;
}

int chain_build_one(const struct chain_site *site, struct txn *t,
                    const struct chain_source *source, uint32_t class,
                    uint32_t of, uint32_t *ref)
{
    uint64_t number = atomic_load64(site->built) + 1;
    uint64_t len = chain_source_len(source);
    struct cell *c;
    int rc;

    assert(len <= CHAIN_DATA_MAX && class >= chain_class(len));
    rc = slab_alloc(site->pages, site->slab, t, site->owner, class, PAGE_NONE,
                    ref);
    if (rc != SHD_OK)
        return rc;
    c = (struct cell *)(void *)(site->pages->segment->base +
                                (uint64_t)*ref * SEGMENT_UNIT);
    txn_store64(t, site->built, number);
    atomic_store32(&c->word[CHAIN_NEXT], 0);
    atomic_store32(&c->word[CHAIN_BACK], 0);
    atomic_store32(&c->word[CHAIN_OF], of);
    atomic_store32(&c->word[CHAIN_NUMBER], (uint32_t)number);
    atomic_store32(&c->meta, SHD_STRING | CELL_CHAIN << CELL_KIND_SHIFT);
    atomic_store32(&c->len, (uint32_t)len);
    source_fill(source, 0, (unsigned char *)(c + 1), len);
    return SHD_OK;
}

/* ---- cells that a chain has left ---------------------------------------- */

/* The cell at ref, if it is a chain's that holds `len` bytes, and no larger
 * than a fresh one would be. */
static struct cell *reusable(const struct chain_site *site, uint32_t ref,
                             uint64_t len)
{
    struct cell *c = cell_at(site->pages, ref, sizeof(*c));

    return ref != 0 && c != NULL &&
                   cell_kind(atomic_load32(&c->meta)) == CELL_CHAIN &&
                   slab_cell_bytes(site->pages, site->owner, ref) ==
                       slab_class_bytes(chain_class(len))
               ? c
               : NULL;
}

static uint32_t piece(uint64_t left)
{
    return left < CHAIN_DATA_MAX ? (uint32_t)left : CHAIN_DATA_MAX;
}

static bool has_cells_for(const struct chain_site *site, uint32_t ref,
                          uint64_t len)
{
    for (; len > 0; len -= piece(len)) {
        const struct cell *c = reusable(site, ref, piece(len));

        if (c == NULL)
            return false;
        ref = atomic_load32(&c->word[CHAIN_NEXT]);
    }
    return ref == 0;
}

bool chain_has_one(const struct chain_site *site, uint32_t ref, uint64_t len)
{
    const struct cell *c = reusable(site, ref, len);

    return c != NULL && atomic_load32(&c->word[CHAIN_NEXT]) == 0;
}

/* A number of its own makes each another cell for who was copying it without
 * the lock. They can be reached from the pending word only. */
static int renumber(const struct chain_site *site, uint64_t len,
                    uint64_t number)
{
    uint32_t ref = atomic_load32(site->pending);

    for (; len > 0; len -= piece(len)) {
        struct cell *c = cell_at(site->pages, ref, sizeof(*c));

        if (c == NULL)
            return error_set(SHD_CORRUPT, "chain: a chain being built leads "
                                          "outside its dict");
        atomic_store32(&c->word[CHAIN_NUMBER], (uint32_t)number);
        atomic_store32(&c->len, piece(len));
        ref = atomic_load32(&c->word[CHAIN_NEXT]);
    }
    /* Before the bytes change. */
    atomic_fence_release();
    return 1;
}

int chain_reuse(const struct chain_site *site, uint32_t *garbage, uint64_t len)
{
    uint32_t head = atomic_load32(garbage);
    uint64_t number = atomic_load64(site->built) + 1;
    const struct cell *c;
    struct txn t;

    if (head == 0 || !has_cells_for(site, head, len))
        return 0;
    c = cell_fresh(site->pages, head);
    txn_begin(&t, site->pages->segment, site->guard, 3);
    txn_store64(&t, site->built, number);
    txn_store32(&t, garbage, atomic_load32(&c->word[CHAIN_GARBAGE]));
    txn_store32(&t, site->pending, head);
    txn_commit(&t);
    return renumber(site, len, number);
}

uint32_t chain_reuse_one(const struct chain_site *site, struct txn *t,
                         const struct chain_source *source, uint32_t *garbage,
                         uint32_t of)
{
    uint32_t ref = atomic_load32(garbage);
    uint64_t number = atomic_load64(site->built) + 1;
    uint64_t len = chain_source_len(source);
    struct cell *c = cell_at(site->pages, ref, sizeof(*c));

    if (c == NULL || !chain_has_one(site, ref, len))
        return 0;
    txn_store64(t, site->built, number);
    txn_store32(t, garbage, atomic_load32(&c->word[CHAIN_GARBAGE]));
    /* It is garbage again if the transaction is undone: all of it that counts
     * there is logged. */
    txn_store64(t, (uint64_t *)(void *)&c->word[CHAIN_OF],
                of | (uint64_t)(uint32_t)number << 32);
    txn_store32(t, &c->len, (uint32_t)len);
    atomic_fence_release();
    source_fill(source, 0, (unsigned char *)(c + 1), len);
    return ref;
}

/* ---- reading ------------------------------------------------------------ */

/* The cell and its length, if it can be part of a chain. */
static const struct cell *link_at(const struct pages *p, uint32_t ref,
                                  uint32_t *len)
{
    const struct cell *c = cell_at(p, ref, sizeof(struct cell));

    if (c == NULL)
        return NULL;
    *len = atomic_load32(&c->len);
    if (*len == 0 || *len > cell_room(p, c) - sizeof(struct cell))
        return NULL;
    return c;
}

/* Copies what of one cell is wanted; *ref goes on to the next. */
static int read_cell(const struct pages *p, uint32_t *ref, uint64_t *from,
                     unsigned char **to, uint64_t *len)
{
    uint32_t n, next;
    const struct cell *c = link_at(p, *ref, &n);

    if (c == NULL)
        return SHD_CORRUPT;
    next = atomic_load32(&c->word[CHAIN_NEXT]);
    will_read(p, next);
    if (*from >= n) {
        /* All cells but the last are full: else the next copy would begin,
         * and end, in the middle of a word. */
        if (n % 8 != 0)
            return SHD_CORRUPT;
        *from -= n;
    } else {
        uint64_t take = n - *from < *len ? n - *from : *len;

        cell_copy_out(*to, (const unsigned char *)(c + 1) + *from, take);
        *to += take;
        *len -= take;
        *from = 0;
    }
    *ref = next;
    return SHD_OK;
}

int chain_read(const struct pages *p, uint32_t head, uint64_t from, void *to,
               uint64_t len)
{
    unsigned char *out = to;
    uint32_t ref = head;
    int rc = SHD_OK;

    /* Each turn takes at least one byte off from + len, so it ends. */
    while (len > 0 && rc == SHD_OK)
        rc = read_cell(p, &ref, &from, &out, &len);
    return rc;
}

int chain_slice_copy(const struct pages *p, struct chain_cursor *c,
                     unsigned char **to, uint64_t *len)
{
    int rc = SHD_OK;

    c->cell[0] = c->n == 0 ? 0 : c->cell[c->n];
    c->cell_number[0] = c->n == 0 ? 0 : c->cell_number[c->n];
    for (c->n = 0; c->n<CHAIN_SLICE_CELLS && * len> 0 && rc == SHD_OK;) {
        const struct cell *cell = cell_at(p, c->ref, sizeof(*cell));

        c->cell[++c->n] = c->ref;
        c->cell_number[c->n] =
            cell == NULL ? 0 : atomic_load32(&cell->word[CHAIN_NUMBER]);
        atomic_fence_acquire();
        rc = read_cell(p, &c->ref, &c->from, to, len);
    }
    /* What has been loaded is older than what a read section will load. */
    atomic_fence_acquire();
    return rc;
}

bool chain_slice_valid(const struct pages *p, uint32_t owner, uint64_t built,
                       const struct chain_cursor *c)
{
    const struct cell *before = NULL;

    if (built - c->built >= UINT32_MAX)
        return false;
    if (c->cell[0] == 0 && c->n > 0 && c->cell_number[1] != c->number)
        return false;
    for (uint32_t i = c->cell[0] == 0; i <= c->n; i++) {
        const struct cell *cell = cell_at(p, c->cell[i], sizeof(*cell));

        if (cell == NULL || slab_cell_bytes(p, owner, c->cell[i]) == 0 ||
            cell_kind(atomic_load32(&cell->meta)) != CELL_CHAIN ||
            atomic_load32(&cell->word[CHAIN_NUMBER]) != c->cell_number[i] ||
            (before != NULL &&
             atomic_load32(&before->word[CHAIN_NEXT]) != c->cell[i]))
            return false;
        before = cell;
    }
    return true;
}

int chain_compare(const struct pages *p, uint32_t head, const void *with,
                  uint64_t len)
{
    const unsigned char *b = with;
    uint32_t ref = head;

    while (len > 0) {
        uint32_t n;
        const struct cell *c = link_at(p, ref, &n);
        int order;

        if (c == NULL)
            return 2;
        if (n > len)
            n = (uint32_t)len;
        order = cell_compare(c + 1, b, n);
        if (order != 0)
            return order;
        b += n;
        len -= n;
        ref = atomic_load32(&c->word[CHAIN_NEXT]);
    }
    return 0;
}

int chain_equal(const struct pages *p, uint32_t head, uint64_t from,
                const void *with, uint64_t len)
{
    const unsigned char *b = with;
    uint32_t ref = head;

    while (len > 0) {
        uint32_t n;
        const struct cell *c = link_at(p, ref, &n);

        if (c == NULL)
            return 2;
        if (from >= n) {
            if (n % 8 != 0)
                return 2;
            from -= n;
        } else {
            uint64_t take = n - from < len ? n - from : len;

            if (cell_compare((const unsigned char *)(c + 1) + from, b, take) !=
                0)
                return 0;
            b += take;
            len -= take;
            from = 0;
        }
        ref = atomic_load32(&c->word[CHAIN_NEXT]);
    }
    return 1;
}

int chain_last(const struct pages *p, uint32_t head, uint64_t cells_max,
               uint32_t *last, uint32_t *before)
{
    uint32_t ref = head;

    *before = 0;
    while (cells_max-- > 0) {
        uint32_t n, next;
        const struct cell *c = link_at(p, ref, &n);

        if (c == NULL)
            return SHD_CORRUPT;
        next = atomic_load32(&c->word[CHAIN_NEXT]);
        *last = ref;
        if (next == 0)
            return SHD_OK;
        *before = ref;
        ref = next;
    }
    return SHD_CORRUPT;
}

int chain_check(const struct pages *p, uint32_t owner, uint32_t head,
                uint32_t of, uint64_t total, uint64_t *cells, char *report,
                size_t size)
{
    uint32_t back = 0, ref = head;
    const char *fault = NULL;

    while (total > 0 && fault == NULL) {
        uint32_t n;
        const struct cell *c = link_at(p, ref, &n);

        if (c == NULL ||
            slab_cell_bytes(p, owner, ref) < n + sizeof(struct cell))
            fault = "leads to no cell in use that holds its bytes";
        else if (cell_kind(c->meta) != CELL_CHAIN)
            fault = "leads to a cell of another kind";
        else if (c->word[CHAIN_BACK] != back ||
                 c->word[CHAIN_OF] != (back == 0 ? of : 0))
            fault = "has a wrong link back";
        else if (n > total || (n < total && n != CHAIN_DATA_MAX))
            fault = "has a cell of a wrong length";
        else {
            total -= n;
            ++*cells;
            back = ref;
            ref = c->word[CHAIN_NEXT];
        }
    }
    if (fault == NULL && ref != 0)
        fault = "goes on past its length";
    if (fault == NULL)
        return SHD_OK;
    snprintf(report, size, "chain: the chain at %u %s", head, fault);
    return SHD_CORRUPT;
}

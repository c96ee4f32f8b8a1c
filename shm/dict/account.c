/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages are the unit of truth: whatever moves meanwhile, each page is counted
 * once, as it was at some moment. What a cell holds is told by the cell; whose
 * it is, is not: a node, or a cell of a chain, may be of an entry that has
 * expired or is garbage. So the garbage and then all pages are looked through
 * first for such entries, and what they own is remembered, chains by their
 * number (memory/chain.h) and nodes by their cells; then the pages are
 * counted.
 */
#include "shm/dict/account.h"
#include "shm/base/clock.h"
#include "shm/base/error.h"
#include "shm/dict/index.h"
#include "shm/dict/lease.h"

#include <stdlib.h>
#include <string.h>

/* Times a page may change hands under our eyes before it counts as free. */
#define TURNS_MAX 16
/* Nodes and pieces of garbage followed in one read section. What is more
 * counts as alive. */
#define FOLLOW_MAX 4096u
/* Between the parts of an extent; and of memory pages that are needed in part:
 * the map's last, the table's first and last, and one that did not fit beside
 * the table it needs. */
#define GAP_MAX 16u
#define PADDING_MAX (4 * PAGE_BYTES)
/* Of the first array of roots, if it is not in use, and of the other's end. */
#define PADDING_MORE (3 * PAGE_BYTES)

enum state { LIVE, EXPIRED, GARBAGE };

/* What is known not to be alive: sorted when it is complete. */
struct known {
    uint64_t *item; /* key << 2 | state */
    size_t n, room;
    bool failed;
};

/* Where the bytes of cells in use are. */
enum part { P_LIVE, P_EXPIRED, P_GARBAGE, P_ENTRY, P_LIST, P_CHAIN, P_END };
#define PARTS (P_END + 1)

struct page_sum {
    uint64_t part[PARTS];
    uint64_t used, live, entries, expired;
    uint32_t class;
};

struct look {
    const struct dict *d;
    uint64_t now;
    struct known known;
    bool collecting; /* else counting */
    uint32_t followed;
    struct page_sum page;
    struct shd_dict_account *sum;
    struct account_cells *live;
};

/* ---- what is not alive ------------------------------------------------ */

static uint64_t chain_key(uint32_t shard, uint32_t number)
{
    return 1ull << 60 | (uint64_t)shard << 32 | number;
}

static void remember(struct look *l, uint64_t key, enum state state)
{
    struct known *k = &l->known;

    if (k->n == k->room) {
        size_t room = k->room == 0 ? 1024 : 2 * k->room;
        uint64_t *item = realloc(k->item, room * sizeof(*item));

        if (item == NULL) {
            k->failed = true;
            return;
        }
        k->item = item;
        k->room = room;
    }
    k->item[k->n++] = key << 2 | state;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static enum state state_of(const struct known *k, uint64_t key)
{
    size_t low = 0, high = k->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (k->item[middle] >> 2 < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low < k->n && k->item[low] >> 2 == key
               ? (enum state)(k->item[low] & 3)
               : LIVE;
}

/* All numbers its cells have: what was appended has another one. */
static void remember_chain(struct look *l, uint32_t shard, uint32_t head,
                           enum state state)
{
    uint32_t ref = head, last = 0;

    while (ref != 0 && l->followed++ < FOLLOW_MAX) {
        const struct cell *c = cell_at(&l->d->pages, ref, sizeof(*c));
        uint32_t number;

        if (c == NULL)
            return;
        number = atomic_load32(&c->word[CHAIN_NUMBER]);
        if (ref == head || number != last)
            remember(l, chain_key(shard, number), state);
        last = number;
        ref = atomic_load32(&c->word[CHAIN_NEXT]);
    }
}

static void remember_nodes(struct look *l, uint32_t shard, uint32_t at,
                           uint32_t ref, enum state state)
{
    const struct pages *p = &l->d->pages;

    while (at != 0 && at != ref && l->followed++ < FOLLOW_MAX) {
        struct cell *c = cell_at(p, at, SLAB_CELL_MIN);

        if (c == NULL)
            return;
        remember(l, at, state);
        if (lease_of(c) != 0)
            remember(l, lease_of(c), state);
        if ((atomic_load32(&c->meta) & CELL_CHAINED) != 0) {
            const uint32_t *chain = entry_chain(p, c);

            if (chain != NULL)
                remember_chain(l, shard, atomic_load32(chain), state);
        }
        at = atomic_load32(&c->word[CHAIN_NEXT]);
    }
}

/* What an entry owns beside its own cell. */
static void remember_owned(struct look *l, uint32_t shard, struct cell *c,
                           uint32_t ref, enum state state)
{
    uint32_t meta = atomic_load32(&c->meta);
    const struct entry *e = (const struct entry *)(const void *)c;

    if (entry_has_chain(meta, entry_key_len(atomic_load64(&e->key_expires)))) {
        const uint32_t *chain = entry_chain(&l->d->pages, c);

        if (chain != NULL)
            remember_chain(l, shard, atomic_load32(chain), state);
    }
    if ((meta & CELL_TYPE_MASK) == SHD_LIST) {
        const struct entry_list *list = entry_list(&l->d->pages, c);

        if (list == NULL)
            return;
        remember_nodes(l, shard, atomic_load32(&list->first), ref, state);
        remember_nodes(l, shard, atomic_load32(&list->leased), ref, state);
    }
}

static void collect_garbage(struct look *l, uint32_t shard)
{
    const struct shard *s = &l->d->shard[shard];
    const struct pages *p = &l->d->pages;
    uint32_t ref = atomic_load32(&s->garbage);

    for (int i = 0; i < 2; i++)
        remember_chain(l, shard, atomic_load32(&s->pending[i]), GARBAGE);
    while (ref != 0 && l->followed++ < FOLLOW_MAX) {
        struct cell *c = cell_at(p, ref, SLAB_CELL_MIN);

        if (c == NULL)
            return;
        remember(l, ref, GARBAGE);
        /* The first cell of a chain has lost its number, the next has it. */
        if (cell_kind(atomic_load32(&c->meta)) == CELL_CHAIN)
            remember_chain(l, shard, atomic_load32(&c->word[CHAIN_NEXT]),
                           GARBAGE);
        else if (cell_kind(atomic_load32(&c->meta)) == CELL_ENTRY)
            remember_owned(l, shard, c, ref, GARBAGE);
        else if ((atomic_load32(&c->meta) & CELL_CHAINED) != 0 &&
                 entry_chain(p, c) != NULL)
            remember_chain(l, shard, atomic_load32(entry_chain(p, c)),
                           GARBAGE);
        ref = atomic_load32(&c->word[CHAIN_GARBAGE]);
    }
}

static bool has_expired(const struct look *l, const struct cell *c)
{
    const struct entry *e = (const struct entry *)(const void *)c;
    uint64_t expires = atomic_load64(&e->key_expires) & ENTRY_EXPIRES_MASK;

    return expires != 0 && expires <= l->now;
}

/* ---- one cell --------------------------------------------------------- */

/* How much of an entry's or a node's own cell is used, and how much of that is
 * the user's. */
static uint32_t own_bytes(const struct pages *p, const struct cell *c,
                          uint32_t meta, uint64_t *payload)
{
    const struct entry *e = (const struct entry *)(const void *)c;
    uint32_t type = meta & CELL_TYPE_MASK, key_len = 0;
    uint32_t value = 8, at = sizeof(struct cell);
    bool is_long = false;

    if (cell_kind(meta) == CELL_ENTRY) {
        key_len = entry_key_len(atomic_load64(&e->key_expires));
        is_long = entry_is_long(key_len);
        at = entry_value_at(meta, key_len);
    }
    *payload = is_long ? 0 : key_len;
    if ((meta & CELL_CHAINED) != 0) {
        uint32_t prefix = entry_prefix(p, c, at);

        if (prefix == UINT32_MAX)
            prefix = 0;
        *payload += prefix;
        return at + (is_long ? 0 : 8) + prefix;
    }
    if (lease_is(meta)) {
        *payload = 0;
        return sizeof(struct lease);
    }
    if (type == SHD_LIST)
        return at + (uint32_t)sizeof(struct entry_list);
    if (type == SHD_STRING)
        value = atomic_load32(&c->len);
    *payload += value;
    return value > PAGE_BYTES ? PAGE_BYTES : at + value;
}

static enum state cell_state(const struct look *l, uint32_t shard,
                             uint32_t ref, const struct cell *c, uint32_t kind)
{
    enum state s = state_of(&l->known, ref);

    if (s == LIVE && kind == CELL_CHAIN)
        s = state_of(&l->known,
                     chain_key(shard, atomic_load32(&c->word[CHAIN_NUMBER])));
    if (s == LIVE && kind == CELL_ENTRY && has_expired(l, c))
        s = EXPIRED;
    return s;
}

static void count_cell(struct look *l, uint32_t shard, uint32_t ref,
                       const struct cell *c, uint32_t bytes)
{
    static const enum part heads[] = {P_ENTRY, P_LIST, P_CHAIN, P_END};
    struct page_sum *s = &l->page;
    uint32_t meta = atomic_load32(&c->meta), used;
    uint32_t kind = cell_kind(meta);
    enum state state = cell_state(l, shard, ref, c, kind);
    uint64_t payload;

    s->used++;
    if (kind == CELL_ENTRY) {
        s->entries += state == LIVE;
        s->expired += state == EXPIRED;
    }
    if (state != LIVE) {
        s->part[state == EXPIRED ? P_EXPIRED : P_GARBAGE] += bytes;
        return;
    }
    s->live++;
    if (kind == CELL_CHAIN) {
        payload = atomic_load32(&c->len);
        used = payload > PAGE_BYTES ? PAGE_BYTES
                                    : (uint32_t)(sizeof(*c) + payload);
    } else {
        used = own_bytes(&l->d->pages, c, meta, &payload);
    }
    /* Torn, or damaged, which `check` tells. */
    if (used > bytes)
        used = bytes;
    if (payload > used)
        payload = used;
    s->part[P_LIVE] += payload;
    s->part[heads[kind]] += used - payload;
    s->part[P_END] += bytes - used;
}

/* ---- pages ------------------------------------------------------------ */

static void look_at_page(struct look *l, uint32_t shard, uint32_t n)
{
    const struct pages *p = &l->d->pages;
    uint32_t class = page_class(&p->table[n]), at = 0, ref;

    if (class >= SLAB_CLASSES)
        return;
    l->page.class = class;
    while ((ref = slab_next_used(p, n, &at)) != 0) {
        struct cell *c = cell_at(p, ref, SLAB_CELL_MIN);

        if (c == NULL)
            return;
        if (!l->collecting)
            count_cell(l, shard, ref, c, slab_class_bytes(class));
        else if (cell_kind(atomic_load32(&c->meta)) == CELL_ENTRY &&
                 has_expired(l, c))
            remember_owned(l, shard, c, ref, EXPIRED);
    }
}

/* One look at a page of a shard (PAGE_NONE: at its garbage), as it was at one
 * moment. 1, or 0: it is another's by now. */
static int section(struct look *l, uint32_t shard, uint32_t n)
{
    const struct dict *d = l->d;
    const size_t known = l->known.n;
    struct reading r;
    int rc;

    reading_begin(&r, d->env, dict_guard(d, shard));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        l->known.n = known;
        l->followed = 0;
        memset(&l->page, 0, sizeof(l->page));
        rc = 1;
        if (!dict_enter(d, shard))
            rc = SHD_GONE;
        else if (n == PAGE_NONE)
            collect_garbage(l, shard);
        else if (atomic_load32(&d->pages.table[n].owner) != dict_owner(shard))
            rc = 0;
        else
            look_at_page(l, shard, n);
    } while (!reading_done(&r));
    return rc == SHD_GONE ? dict_gone_error(d) : rc;
}

static int add_page(struct look *l, uint32_t shard)
{
    struct shd_dict_account *a = l->sum;
    const struct page_sum *s = &l->page;
    uint64_t cells, bytes;

    if (s->class >= SLAB_CLASSES)
        return dict_damaged(l->d, "a page has no such size class");
    bytes = slab_class_bytes(s->class);
    cells = PAGE_BYTES / bytes;
    a->live_bytes += s->part[P_LIVE];
    a->expired_bytes += s->part[P_EXPIRED];
    a->garbage_bytes += s->part[P_GARBAGE];
    a->entry_bytes += s->part[P_ENTRY];
    a->list_bytes += s->part[P_LIST];
    a->chain_bytes += s->part[P_CHAIN];
    a->rounding_bytes += s->part[P_END];
    a->free_cells_bytes += (cells - s->used) * bytes;
    a->page_tail_bytes += PAGE_BYTES - cells * bytes;
    a->entries_live += s->entries;
    a->entries_expired += s->expired;
    a->class_pages[s->class]++;
    a->class_used_cells[s->class] += s->used;
    a->class_free_cells[s->class] += cells - s->used;
    l->live[shard].cells[s->class] += s->live;
    return SHD_OK;
}

static int look_at(struct look *l, uint32_t n)
{
    const struct dict *d = l->d;

    for (int turn = 0; turn < TURNS_MAX; turn++) {
        uint32_t owner = atomic_load32(&d->pages.table[n].owner);
        int rc;

        if (owner == 0)
            break;
        if (owner > d->shards)
            return dict_damaged(d, "a page has an owner that is no shard");
        rc = section(l, owner - 1, n);
        if (rc < 0)
            return rc;
        if (rc == 1)
            return l->collecting ? SHD_OK : add_page(l, owner - 1);
    }
    if (!l->collecting)
        l->sum->free_pages_bytes += PAGE_BYTES;
    return SHD_OK;
}

static int look_at_all(struct look *l)
{
    int rc = SHD_OK;

    l->collecting = true;
    for (uint32_t i = 0; i < l->d->shards && rc >= 0; i++)
        rc = section(l, i, PAGE_NONE);
    for (uint32_t n = 0; n < l->sum->pages && rc >= 0; n++)
        rc = look_at(l, n);
    if (rc < 0)
        return rc;
    if (l->known.failed)
        return error_set(SHD_NOMEM, "no memory for a list of what expired");
    if (l->known.n > 0)
        qsort(l->known.item, l->known.n, sizeof(*l->known.item), compare);
    l->collecting = false;
    rc = SHD_OK;
    for (uint32_t n = 0; n < l->sum->pages && rc == SHD_OK; n++)
        rc = look_at(l, n);
    return rc;
}

/* ---- the whole -------------------------------------------------------- */

/* They change together, under the first shard's lock. */
static int capacity_and_pages(const struct dict *d, uint64_t *capacity,
                              uint64_t *pages, uint64_t *grain)
{
    struct reading r;
    int rc;

    reading_begin(&r, d->env, dict_guard(d, 0));
    do {
        rc = reading_try(&r);
        if (rc != SHD_OK)
            return rc;
        rc = dict_enter(d, 0) ? SHD_OK : SHD_GONE;
        if (rc != SHD_OK)
            continue;
        *capacity = dict_capacity(d);
        *pages = pages_count(&d->pages);
        *grain = atomic_load64(&d->header->grain);
    } while (!reading_done(&r));
    return rc == SHD_GONE ? dict_gone_error(d) : rc;
}

int account_index(const struct dict *d, struct shd_dict_account *a)
{
    const struct segment *s = d->env->segment;
    uint64_t first = index_bytes(d, d->grain_first);
    uint64_t at = segment_offset(s, d->header), max = d->pages.max;
    uint64_t capacity = 0, pages = 0, grain = 0, parts, most = PADDING_MAX;
    int rc = capacity_and_pages(d, &capacity, &pages, &grain);
    const struct {
        const void *part;
        uint64_t bytes;
        uint64_t room; /* up to the next part; what is over has no memory */
        uint64_t *into;
    } part[] = {
        {d->header, sizeof(struct dict_header), sizeof(struct dict_header),
         &a->header_bytes},
        {d->shard, d->shards * sizeof(struct shard),
         d->shards * sizeof(struct shard), &a->shards_bytes},
        {d->roots[d->grain_first], grain == d->grain_first ? first : 0, first,
         &a->roots_bytes},
        {d->pages.map, pages_map_bytes(pages), pages_map_bytes(max),
         &a->map_bytes},
        {d->pages.table, pages_table_bytes(pages), pages_table_bytes(max),
         &a->table_bytes},
    };

    if (rc != SHD_OK)
        return rc;
    parts = pages * PAGE_BYTES;
    for (size_t i = 0; i < sizeof(part) / sizeof(part[0]); i++) {
        uint64_t begin = segment_offset(s, part[i].part);

        if (begin < at || begin - at >= GAP_MAX)
            return dict_damaged(d, "the parts of its index overlap, or there "
                                   "is something between them");
        *part[i].into = part[i].bytes;
        parts += part[i].bytes;
        at = begin + part[i].room;
    }
    if (!index_has(d, grain))
        return dict_damaged(d, "its index is said to be what it is not");
    if (grain != d->grain_first) {
        a->roots_bytes = index_bytes(d, (uint32_t)grain);
        parts += a->roots_bytes;
        most += PADDING_MORE;
    }
    a->marks_bytes = pages * sizeof(d->pages.table->marks);
    a->table_bytes -= a->marks_bytes;
    a->capacity_bytes = (capacity + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    a->pages = pages;
    a->padding_bytes = a->capacity_bytes - parts;
    if (parts > a->capacity_bytes || a->padding_bytes >= most)
        return dict_damaged(d, "its parts are not as long as its capacity");
    return SHD_OK;
}

uint64_t account_sum(const struct shd_dict_account *a)
{
    return a->live_bytes + a->expired_bytes + a->garbage_bytes +
           a->entry_bytes + a->list_bytes + a->chain_bytes +
           a->rounding_bytes + a->free_cells_bytes + a->free_pages_bytes +
           a->page_tail_bytes + a->header_bytes + a->shards_bytes +
           a->map_bytes + a->table_bytes + a->roots_bytes + a->marks_bytes +
           a->padding_bytes;
}

void account_add(struct account_cells *cells, const struct item *item)
{
    uint64_t chain = chain_source_len(&item->chain);

    cells->cells[item->class]++;
    if (chain > 0) {
        cells->cells[SLAB_CLASSES - 1] += (chain - 1) / CHAIN_DATA_MAX;
        cells->cells[chain_class(chain)]++;
    }
}

uint64_t account_pages_needed(const struct dict *d,
                              const struct account_cells *live)
{
    uint64_t sum = 0;

    for (uint32_t s = 0; s < d->shards; s++) {
        for (uint32_t c = 0; c < SLAB_CLASSES; c++) {
            uint64_t in_page = PAGE_BYTES / slab_class_bytes(c);

            sum += (live[s].cells[c] + in_page - 1) / in_page;
        }
    }
    return sum;
}

/* The largest value of a one-byte key whose cells a shard has left when
 * everything alive has moved together. */
static uint64_t left_over(const struct account_cells *live)
{
    for (uint32_t c = SLAB_CLASSES - 1; c-- > 0;) {
        if (live->cells[c] % (PAGE_BYTES / slab_class_bytes(c)) != 0)
            return slab_class_bytes(c) - sizeof(struct entry) - 8;
    }
    return 0;
}

/* For whichever shard the key may be of. */
static uint64_t safe_value_max(const struct dict *d, uint64_t pages,
                               uint64_t needed,
                               const struct account_cells *live)
{
    uint64_t least = UINT64_MAX;

    if (needed < pages)
        return dict_value_max_of(pages - needed, 1);
    for (uint32_t s = 0; s < d->shards; s++) {
        uint64_t left = left_over(&live[s]);

        least = left < least ? left : least;
    }
    return least;
}

int account_take(const struct dict *d, struct shd_dict_account *a,
                 struct account_cells *live)
{
    struct look l = {.d = d, .now = clock_now_ms(), .sum = a, .live = live};
    int rc;

    memset(a, 0, sizeof(*a));
    if (live == NULL)
        l.live = calloc(d->shards, sizeof(*live));
    else
        memset(live, 0, d->shards * sizeof(*live));
    if (l.live == NULL)
        return error_set(SHD_NOMEM, "no memory for a table of shards");
    rc = account_index(d, a);
    if (rc == SHD_OK)
        rc = look_at_all(&l);
    if (rc == SHD_OK) {
        a->classes = SLAB_CLASSES;
        for (uint32_t c = 0; c < SLAB_CLASSES; c++)
            a->class_cell_bytes[c] = slab_class_bytes(c);
        a->pages_needed = account_pages_needed(d, l.live);
        a->value_max_bytes = dict_value_max(d, 1);
        a->safe_value_max_bytes =
            safe_value_max(d, a->pages, a->pages_needed, l.live);
    }
    free(l.known.item);
    if (live == NULL)
        free(l.live);
    return rc;
}

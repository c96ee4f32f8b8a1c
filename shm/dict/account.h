/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/account.h - where every byte of a dict is, and what still fits.
 *
 * LOCK   none: a page at a time in a read section, so that each page is
 *        counted as it was at one moment, and the sum is always the dict's
 *        capacity. Beside writers what is counted early may have moved since.
 * CRASH  nothing shared is written.
 * COST   two looks at every page; for the operator, not for the hot path.
 *
 * WHAT FITS. A cell of the smallest class that holds it is taken by
 *
 *   an entry    32 + key padded to 8 (over 1024 bytes: 16, and the padded key
 *               opens a chain) + 8 with flags + value (a list: 16)
 *   an element  24 + value
 *   a value     whose cell would be over 512 bytes, in a dict of 64 pages and
 *               more: by two cells, if they are a twentieth smaller than one:
 *               what fits into the first beside the entry and 8, and the rest
 *               + 24
 *   a chain     of what does not fit into 4096: cells of 4096 for each 4072
 *               bytes, and one for what is left + 24; its owner keeps 8
 *
 * and the cells of one class and one shard share whole pages. So a shard needs
 * ceil(cells of the class / cells in a page) pages for each class, and the
 * guarantees are:
 *
 *   a plain store   succeeds when its own cells, in a page each, are no more
 *                   than the dict's pages, whatever the dict holds: SHD_TOOBIG
 *                   says that they are more
 *   a safe store,   succeeds when the pages needed for all that is alive (an
 *   a push          old value of the key included) and for the item are no
 *                   more than the dict's: account_pages_needed(). It may also
 *                   succeed when they are, in a cell larger than it needs,
 *                   which counts as what it is from then on.
 *
 * Garbage and expired entries count for nothing: their room is taken first.
 * Beside other workers that take pages all the time a store may give up after
 * 64 rounds, with SHD_NOMEM.
 */
#ifndef SHD_DICT_ACCOUNT_H
#define SHD_DICT_ACCOUNT_H

#include "shm/dict/entry.h"

/* Cells of live entries, by shard and class. */
struct account_cells {
    uint64_t cells[SLAB_CLASSES];
};

/* `live`, if not NULL, has d->shards elements. SHD_NOMEM: this process has no
 * memory for the list of what has expired. SHD_CORRUPT, SHD_BUSY, SHD_GONE. */
int account_take(const struct dict *d, struct shd_dict_account *account,
                 struct account_cells *live);

/* Adds the cells of an item that has been shaped (item_shape). */
void account_add(struct account_cells *cells, const struct item *item);

/* The pages that those cells need. */
uint64_t account_pages_needed(const struct dict *d,
                              const struct account_cells *live);

/* The bytes of the extent before its pages, part by part; what is left of them
 * is padding. SHD_CORRUPT: the parts overlap, or leave more than that. */
int account_index(const struct dict *d, struct shd_dict_account *account);

/* The sum of all parts. */
uint64_t account_sum(const struct shd_dict_account *account);

#endif

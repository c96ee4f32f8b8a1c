/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/resize.h - another capacity for a dict that is in use.
 *
 * OWNS   the second half of the dict's header: the pages' limit, how many are
 *        described, the capacity, the grain of its index, the count of
 *        resizes, `unsettled`.
 * HOLDS  limit <= described <= pages_max, committed <= described; while the
 *        dict is settled limit == described, nobody owns a page from there on,
 *        and the index is of the grain that is said, in the only array of
 *        roots that has memory. capacity and grain are what the limit was made
 *        from.
 * LOCK   the words change in transactions on shard 0's guard, and memory above
 *        the limit is given back under it. Everything else is done with the
 *        lock of the shard it is done to; never two at once.
 * CRASH  after any death the dict is sound, and a resize, by anybody, to
 *        whatever capacity, goes on where the dead one stopped.
 * COST   a hold of a lock moves what is in one page at most, or 64 entries from
 *        one root to another, or describes or gives back 16 to 256 MiB of
 *        pages, or 4 MiB of roots: about a millisecond.
 *
 * Two designs were drawn. In the other one a dict was a row of extents, and
 * growing added one: no bound on growth, nothing reserved. But every reference
 * that is followed is checked against the pages of its dict, and so each step
 * of each look-up would have searched the row. With one extent that check is
 * one comparison; address room costs nothing (64 GiB of it in the default
 * segment), and the bound is an option.
 *
 * Nobody owns a resize: there is no owner word whose owner could die. The
 * limit is a word that anybody may change; each change counts up `resizes`,
 * and who is still at work for an older count stops at its next lock. What
 * is left to do can be seen from the pages themselves.
 */
#ifndef SHD_DICT_RESIZE_H
#define SHD_DICT_RESIZE_H

#include "shm/dict/dict.h"

/* As shd_dict_resize. */
int resize_dict(const struct dict *d, uint64_t capacity_bytes);

/* Is the index of that grain, and not on its way to it? */
bool resize_index_is(const struct dict *d, uint32_t grain);

/* The words against each other, under shard 0's lock or in its read section.
 */
int resize_check(const struct dict *d, char *report, size_t size);

#endif

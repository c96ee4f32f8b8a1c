/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/move.h - moving a cell to another page of its class.
 *
 * HOLDS  whatever led to the old cell leads to the new one: a tree, the LRU
 *        list, the neighbours in a list or a chain, what it owns.
 * LOCK   the shard's lock is held; nothing is on the shard's garbage.
 * CRASH  one transaction: the cell is here or there.
 * COST   O(1) but for finding an entry's parent in its tree.
 */
#ifndef SHD_DICT_MOVE_H
#define SHD_DICT_MOVE_H

#include "shm/dict/entry.h"

/* Moves the cell at ref, which lies in `page`. With may_claim a free page is
 * taken for it if need be. SHD_NOMEM: no other page of its class has a free
 * cell (and none is free). */
int move_cell(const struct dict *d, uint32_t shard, uint32_t ref,
              uint32_t page, bool may_claim);

#endif

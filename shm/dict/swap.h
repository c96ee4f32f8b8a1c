/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/swap.h - a long value over another: the entry stays where it is, in the
 * tree and in its cell, and gets another chain.
 *
 * LOCK   the shard's is held.
 * CRASH  one transaction, for a chain of several cells behind the one that has
 *        left it pending: the old value or the new one, and the other chain is
 *        freed or garbage.
 * COST   beside the new chain's: a store of the entry's head, of the bytes of
 *        the value in its cell, and of the LRU list as for any store in place.
 */
#ifndef SHD_DICT_SWAP_H
#define SHD_DICT_SWAP_H

#include "shm/dict/attempt.h"

/* Can it be done so? After attempt_look_up. */
bool swap_fits(const struct attempt *a, const struct item *item);

/* Asks for the lines that swap_store will write to, beside the new chain's. */
void swap_will_store(const struct attempt *a);

/* A value that begins in its entry's cell gets its other cell here; a longer
 * chain hangs on the shard's pending word. SHD_NOMEM: of *class there is
 * none. */
int swap_store(struct attempt *a, const struct item *item, uint32_t *class);

#endif

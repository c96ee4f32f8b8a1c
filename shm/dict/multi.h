/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/multi.h - many keys at a time: their memory is asked for in advance.
 *
 * A get of a key that is in no cache waits for its root, then for its node,
 * then for its value, one after the other. For a batch of keys the processor
 * can wait for all roots at once, then for all nodes.
 *
 * OWNS   nothing; what it loads is a hint.
 * LOCK   none. Whatever it meets may be torn or gone: every link is checked
 *        before it is followed, and nothing that was loaded is used for more
 *        than the next address to ask for.
 * CRASH  nothing shared is written.
 * COST   a few ns a key, and the waits of a batch overlap.
 */
#ifndef SHD_DICT_MULTI_H
#define SHD_DICT_MULTI_H

#include "shm/dict/dict.h"

/* More do not make it faster: a processor has about as many line fill
 * buffers. */
#define MULTI_BATCH 32u

/* Asks for what a read of each key will touch. at[i] gets its place, unless
 * it is no key that can be stored (NULL, empty, too long). n is at most
 * MULTI_BATCH. */
void multi_fetch(const struct dict *d, const void *const *keys,
                 const size_t *lens, uint32_t n, struct place *at);

/* The same for what a store of each will touch: also its page's descriptor
 * and its neighbours in the LRU list. */
void multi_fetch_to_change(const struct dict *d, const void *const *keys,
                           const size_t *lens, uint32_t n);

#endif

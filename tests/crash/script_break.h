/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/crash/script_break.h - damage for script.h.
 *   break WHAT [KEY]   overwrites
 *     root     the root of KEY's tree      roots    all roots
 *     shard    the first shard's head      bounds   the limit of its pages
 *     expiries the root of the expiries    garbage  the list of garbage
 *     object   what the lock is for
 *     lru      a link of KEY's entry       key      a byte of it
 *     chain    where its value goes on     count    that of a list
 *     list     a link of one               map      the free map of its page
 *     page     the descriptor of its page
 *     ipc      a word of the queue, lock, topic ... of the name KEY, by which
 *              its check sees that it is damaged
 */
#ifndef SHD_TESTS_CRASH_SCRIPT_BREAK_H
#define SHD_TESTS_CRASH_SCRIPT_BREAK_H

#include "tests/crash/script.h"

/* False: there is no such thing. */
bool script_break(struct world *w, const char *what, const char *key);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz/locks.h - the guard by itself: its lock word, its log, its read sections.
 *
 * OWNS   for the time of a call the last two guards of the segment, if they are
 *        nobody's: one to work on, and one whose memory is the data under it.
 *        They are as they were afterwards.
 * HOLDS  as long as nobody interferes: a lock is had by one; a transaction that
 *        was cut off anywhere is wholly done or wholly not, for who recovers it
 *        and for who reads past it. Whatever interferes: an answer.
 */
#ifndef SHD_FUZZ_LOCKS_H
#define SHD_FUZZ_LOCKS_H

#include "tests/wild/play.h"

void locks_op(struct play *p);

/* The two, zeroed, for somebody else; false: they are somebody's. */
bool locks_take(struct play *p, struct guard **guard, struct guard **memory);
void locks_give_back(void);

#endif

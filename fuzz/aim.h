/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz/aim.h - damage to what an operation is about to go by, and then that
 * operation.
 *
 * OWNS   the dict "tall", whose entries and leases are in one tree each: it is
 *        made by aim_create(), before the segment is kept.
 * HOLDS  an entry is chosen, from there some links are followed, and one field
 *        of where they lead to gets another value; the operation is on the
 *        entry's own key.
 */
#ifndef SHD_FUZZ_AIM_H
#define SHD_FUZZ_AIM_H

#include "tests/wild/play.h"

void aim_create(struct play *p);

/* `damages`: else nothing is damaged, and only the operation is done. */
void aim_op(struct play *p, bool damages);

#endif

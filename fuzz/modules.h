/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz/modules.h - what lies below a dict, called by itself.
 *
 * OWNS   for the time of a call, the guards that locks_take() has given, and the
 *        objects "a" .. "d" of the catalogue.
 * HOLDS  as long as nobody interferes: a tree is balanced, and has what was put
 *        in and not taken out, after deaths too; the catalogue is sound.
 */
#ifndef SHD_FUZZ_MODULES_H
#define SHD_FUZZ_MODULES_H

#include "tests/wild/play.h"

/* memory/tree.c */
void modules_tree(struct play *p);

/* memory/catalogue.c. `beside`: who interferes. */
void modules_catalogue(struct play *p, struct play *beside, bool damages);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz/fields.h - damage by the layout: one field of something that is there,
 * which gets a value that its kind of field could have.
 *
 * OWNS   nothing; the bytes that it draws come from the play.
 * HOLDS  what it looks at to find its way may be damaged already. */
#ifndef SHD_FUZZ_FIELDS_H
#define SHD_FUZZ_FIELDS_H

#include "tests/wild/play.h"

/* One field of a cell, a page, a shard, a dict, the catalogue or a guard. */
void fields_damage(struct play *p);

/* A field of that cell, with what it has in its body; of the descriptor of that
 * page; of the root there; a word of that shard. */
void fields_damage_cell(struct play *p, const struct dict *d, uint32_t ref);
void fields_damage_page(struct play *p, const struct dict *d, uint32_t page);
void fields_damage_root(struct play *p, const struct dict *d, uint64_t order);
void fields_damage_shard(struct play *p, const struct dict *d, uint32_t shard);

/* In the log of a guard whose holder died: claims, or releases, with tags that
 * are right. */
void fields_forge_claims(struct play *p);

#endif

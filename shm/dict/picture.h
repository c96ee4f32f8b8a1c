/* SPDX-License-Identifier: BSD-2-Clause */
/* dict/picture.h - what each page of a dict is used for.
 *
 * LOCK   none, and no read section either: a page is as its words say at that
 *        moment, so half of an operation in flight, or of one that a death cut
 *        off, may show. That is why it works whoever holds the locks, and on
 *        what is damaged; and why nothing but a picture is made of it.
 * CRASH  nothing is changed.
 * COST   a look at the page's descriptor, and at each of its cells in use.
 */
#ifndef SHD_DICT_PICTURE_H
#define SHD_DICT_PICTURE_H

#include "shm/dict/entry.h"

/* As shd_dict_pages. */
int picture_pages(const struct dict *d, uint64_t first, struct shd_page *page,
                  uint32_t max, uint32_t *count);

/* Pages that belong to shards just now, as the shards say. */
uint64_t picture_owned(const struct dict *d);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* ipc/remake.h - the last rung of a repair: an object that no check believes is
 * replaced by a new one, empty.
 *
 * OWNS   nothing.
 * HOLDS  the new one has the old one's name, kind and properties, as far as
 *        these can be believed; else the size that the catalogue has, and
 *        defaults. Numbers that only grow (tokens, events, messages) go on
 *        after the old one's.
 * LOCK   those of catalogue_create and catalogue_destroy, one after the other.
 * CRASH  one store puts the new one in the old one's place: who dies before
 *        leaves the old one, which the next repair finds. Only where there is
 *        no room for both the old one goes first; who dies then leaves none of
 *        that name, to be made by whoever opens it and may.
 * COST   that of destroying and making it.
 */
#ifndef SHD_IPC_REMAKE_H
#define SHD_IPC_REMAKE_H

#include "shm/ipc/object.h"

/* Who has the old one open gets SHD_GONE; who waits at it is woken.
 * SHD_UNSUPPORTED: there is no such kind. As catalogue_create. */
int remake_object(const struct guard_env *env,
                  const struct catalogue_object *c);

#endif

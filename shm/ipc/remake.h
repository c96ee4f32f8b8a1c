/* SPDX-License-Identifier: BSD-2-Clause */
/* ipc/remake.h - the last rung of a repair: an object that no check believes is
 * destroyed and made again, empty.
 *
 * OWNS   nothing.
 * HOLDS  the new one has the old one's name, kind and properties, as far as
 *        these can be believed; else the size that the catalogue has, and
 *        defaults. Numbers that only grow (tokens, events, messages) go on
 *        after the old one's.
 * LOCK   those of catalogue_destroy and catalogue_create, one after the other.
 * CRASH  who dies in between leaves no object of that name: it is then made by
 *        whoever opens it and may.
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

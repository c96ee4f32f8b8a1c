/* SPDX-License-Identifier: BSD-2-Clause */
/* worker/doorbell.h - one descriptor a worker, which others make readable.
 *
 * A datagram socket in the abstract namespace, named by a random number that
 * stands in the worker's slot: who may look into the segment can ring, and
 * nobody else knows where. Ringing sends an empty datagram and never waits; a
 * full socket has been rung already, a dead worker's is not there.
 *
 * OWNS   the doorbell word of the caller's slot.
 * LOCK   opening: the registry's guard, taken here. Ringing: none.
 * CRASH  the kernel removes the socket with its process.
 * COST   a ring is a system call or two, about 1 us.
 */
#ifndef SHD_WORKER_DOORBELL_H
#define SHD_WORKER_DOORBELL_H

#include "shm/guard/guard.h"

/* A new socket, published in the slot of env->incarnation. */
int doorbell_open(const struct guard_env *env, int *fd);

/* Reads all that has been sent to it. */
int doorbell_clear(int fd);

/* Rings for the worker in slot `index`, if it has a bell. */
void doorbell_ring(const struct guard_env *env, uint32_t index);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* worker/roster.h - what becomes of workers between joining and leaving.
 *
 * OWNS   the words phase and heartbeat_ms of the slots; the header's words
 *        generation and supervisor.
 * HOLDS  a generation that was given is never given again, and is above that
 *        of every worker there was then.
 * LOCK   the registry's guard, taken here; the heartbeat and looking: none.
 * CRASH  each change is one transaction. A heartbeat is one store of one
 *        word, which nothing depends on but how old it is.
 * COST   a heartbeat some 10 ns, in a cache line of the worker's own.
 *
 * A heartbeat that comes late, when its worker has left and another has the
 * slot, lets that one seem alive for once.
 */
#ifndef SHD_WORKER_ROSTER_H
#define SHD_WORKER_ROSTER_H

#include "shm/worker/registry.h"

/* env's own worker is alive and well. Nothing if it is not registered. */
void roster_beat(const struct guard_env *env);

/* ms since the last heartbeat in that copy of a slot; -1: there was none. */
int64_t roster_silent_ms(const struct registry_slot *slot);

/* SHD_NOTFOUND: there is no such worker (any more). */
int roster_set_phase(const struct guard_env *env, uint64_t incarnation,
                     uint32_t phase);

/* A new generation. SHD_FULL: after 2^32 - 1 of them. */
int roster_next_generation(const struct guard_env *env, uint32_t *generation);

/* Marks those with a logical id and a generation below this one as draining;
 * *marked tells how many were not before. */
int roster_drain(const struct guard_env *env, uint32_t generation,
                 uint32_t *marked);

/* Notes who supervises: for people, and for asking it to hand over. */
int roster_set_supervisor(const struct guard_env *env, uint64_t incarnation);
uint64_t roster_supervisor(const struct guard_env *env);

/* A pidfd that is proved to be of that worker's process: what is done through
 * it cannot meet another that has its number. SHD_NOTFOUND: it is gone.
 * SHD_NAMESPACE: its number means nothing here. SHD_CORRUPT, SHD_SYS. */
int roster_process(const struct guard_env *env, uint64_t incarnation,
                   int *pidfd);

#endif

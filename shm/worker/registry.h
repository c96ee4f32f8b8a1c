/* SPDX-License-Identifier: BSD-2-Clause */
/* worker/registry.h - who works on the segment, and who has died.
 *
 * OWNS   the table of worker slots and their liveness bytes.
 * HOLDS  a slot in use was locked (segment_liveness_lock) by its process
 *        before it was published; so a slot in use whose byte is free belongs
 *        to a dead worker: that, and never a timeout, is the proof.
 * LOCK   the registry's guard (GUARD_REGISTRY), taken here. Looking: none.
 * CRASH  a slot is in use wholly or not at all; reap may be cut off anywhere
 *        and run again by anybody.
 *
 * An incarnation is counter << 16 | slot: it grows for ever and finds its
 * slot without a search.
 */
#ifndef SHD_WORKER_REGISTRY_H
#define SHD_WORKER_REGISTRY_H

#include "shm/guard/guard.h"

struct registry_slot {
    uint64_t incarnation;   /*  0 0: the slot is free */
    uint64_t pid_namespace; /*  8 */
    uint64_t start_time;    /* 16 clock ticks since boot, /proc/self/stat */
    uint64_t joined_ms;     /* 24 wall clock */
    uint32_t pid;           /* 32 */
    int32_t worker_id;      /* 36 -1: none */
    uint32_t generation;    /* 40 */
    uint32_t restarts;      /* 44 of its logical id in its generation */
    char name[32];          /* 48 NUL-terminated */
    uint32_t phase;         /* 80 SHD_PHASE_ */
    uint32_t reserved;      /* 84 */
    uint64_t doorbell;      /* 88 names its socket (worker/doorbell.h); 0:
                               it has none */
    struct guard_wait wait; /* 96 where its threads wait for what is meant
                               for this worker alone */
    uint8_t pad1[24];       /* 104 */
    /* Stored by the worker itself, without a lock: worker/roster.h. */
    uint64_t heartbeat_ms; /* 128 monotonic; 0: it has never beaten */
    uint64_t died;         /* 136 the last one here that was found dead */
    uint8_t pad2[48];      /* 144 */
};
static_assert(offsetof(struct registry_slot, heartbeat_ms) == 128, "layout");
static_assert(sizeof(struct registry_slot) == SEGMENT_WORKER_BYTES, "layout");

/* What a process says of itself. */
struct registry_self {
    int32_t worker_id;
    uint32_t generation;
    uint32_t restarts;
    uint32_t phase;
    char name[32];
};

/* Slot number index; it must be below workers_max. */
struct registry_slot *registry_slot_at(const struct segment *s,
                                       uint32_t index);

/* The number of a worker's slot: it may be another's by now, or past the end
 * where the incarnation is damaged. */
uint32_t registry_index(uint64_t incarnation);

/* When that process (0: this one) began, in clock ticks since boot. SHD_SYS: there is no
 * such process, or no /proc. */
int registry_start_time(pid_t pid, uint64_t *ticks);

/* Guard 0 and the table of a segment that is being created. */
int registry_initialize(struct segment *s);

/* Registers this process; env->incarnation is set by the caller from *out.
 * Slots of dead workers are reaped when no free one is left. SHD_FULL. */
int registry_join(const struct guard_env *env,
                  const struct registry_self *self, uint64_t *out);

/* Frees env->incarnation's slot and its liveness byte. */
int registry_leave(const struct guard_env *env);

/* Is that worker gone, left or proved dead? env's own is not. */
bool registry_is_dead(const struct guard_env *env, uint64_t incarnation);

/* Is that worker to come to an end? No system call, no lock. */
bool registry_is_draining(const struct guard_env *env, uint64_t incarnation);

/* Is there a slot whose worker is gone? One look at each, no lock. */
bool registry_has_dead(const struct guard_env *env);

/* A consistent copy of a slot; *dead tells its liveness. SHD_NOTFOUND: free.
 * SHD_INVAL: past the end. */
int registry_at(const struct guard_env *env, uint32_t index,
                struct registry_slot *copy, bool *dead);

/* The place of the worker in slot `index`, or NULL past the end. */
struct guard_wait *registry_wait(const struct segment *s, uint32_t index);

/* The doorbell word of a slot, 0: none; and env's own. SHD_INVAL: env is no
 * registered worker any more. */
uint64_t registry_doorbell(const struct segment *s, uint32_t index);
int registry_set_doorbell(const struct guard_env *env, uint64_t number);

/* Recovers every guard a dead worker held, frees the slots of the dead, and
 * wakes all waiters of all guards and workers. `guards`: how many are in use.
 * Call it without a lock. */
int registry_reap(const struct guard_env *env, uint32_t guards,
                  uint32_t *reaped);

int registry_check(const struct guard_env *env, char *report, size_t size);

#endif

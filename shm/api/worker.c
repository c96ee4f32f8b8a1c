/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/api/handle.h"
#include "shm/api/holds.h"
#include "shm/api/lease.h"
#include "shm/base/error.h"
#include "shm/ipc/object.h"
#include "shm/worker/roster.h"

#include "shm/api/gates.h" /* last */

#include <errno.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

int shd_worker_join(shd_segment *segment, uint64_t *incarnation)
{
    int rc = handle_writer(segment);

    if (rc == SHD_OK && incarnation != NULL)
        *incarnation = atomic_load64(&segment->env.incarnation);
    return rc;
}

int shd_worker_info(shd_segment *segment, uint32_t index,
                    struct shd_worker_info *info)
{
    struct registry_slot slot;
    bool dead;
    int rc = handle_reader(segment);

    if (rc != SHD_OK)
        return rc;
    if (info == NULL || info->struct_size != sizeof(*info))
        return error_set(SHD_INVAL,
                         "info is NULL, or its struct_size is not %zu",
                         sizeof(*info));
    rc = registry_at(&segment->env, index, &slot, &dead);
    if (rc != SHD_OK)
        return rc;
    memset(info, 0, sizeof(*info));
    info->struct_size = sizeof(*info);
    info->state = dead ? SHD_WORKER_DEAD : SHD_WORKER_ALIVE;
    info->incarnation = slot.incarnation;
    info->pid_namespace = slot.pid_namespace;
    info->start_time = slot.start_time;
    info->joined_ms = slot.joined_ms;
    info->pid = slot.pid;
    info->worker_id = slot.worker_id;
    info->generation = slot.generation;
    info->locks_held = holds_locks(&segment->segment, slot.incarnation);
    info->phase = slot.phase;
    info->restarts = slot.restarts;
    info->silent_ms = roster_silent_ms(&slot);
    info->supervisor = !dead && roster_supervisor(&segment->env) ==
                                    slot.incarnation;
    memcpy(info->name, slot.name, sizeof(info->name));
    return SHD_OK;
}

int shd_worker_is_alive(shd_segment *segment, uint64_t incarnation)
{
    int rc = handle_reader(segment);

    return rc == SHD_OK ? !registry_is_dead(&segment->env, incarnation) : rc;
}

int shd_reap(shd_segment *segment, uint32_t *reaped)
{
    uint32_t n = 0;
    int swept, given;
    int rc = handle_reader(segment);

    if (rc != SHD_OK)
        return rc;
    if (!segment->segment.writable)
        return error_set(SHD_READONLY, "the segment is attached read-only");
    /* With the tables: this process's own locks do not show as another's
     * would, so a slot that a thread is just taking would seem dead. */
    handle_tables_lock();
    rc = registry_reap(&segment->env, catalogue_guards(&segment->segment), &n);
    handle_tables_unlock();
    if (reaped != NULL)
        *reaped = n;
    /* What a stopped worker's lock keeps from being destroyed now can wait
     * for the next reap. */
    swept = catalogue_sweep(&segment->env);
    if (rc == SHD_OK && swept != SHD_BUSY)
        rc = swept;
    /* And what the dead held of queues, locks ..., and of lists. */
    given = object_reap_all(&segment->env);
    if (rc == SHD_OK)
        rc = given;
    given = lease_reap_all(&segment->env);
    return rc == SHD_OK ? given : rc;
}

int shd_worker_leave(shd_segment *segment)
{
    int rc = handle_reader(segment);

    if (rc != SHD_OK)
        return rc;
    handle_tables_lock();
    rc = handle_leave(segment);
    handle_tables_unlock();
    return rc;
}

/* ---- between joining and leaving ---------------------------------------- */

int shd_worker_beat(shd_segment *segment)
{
    int rc = handle_writer(segment);

    if (rc == SHD_OK)
        roster_beat(&segment->env);
    return rc;
}

int shd_worker_set_phase(shd_segment *segment, uint64_t incarnation,
                         uint32_t phase)
{
    int rc = handle_writer(segment);

    if (rc != SHD_OK)
        return rc;
    if (phase > SHD_PHASE_DRAINING)
        return error_set(SHD_INVAL, "there is no phase %u", phase);
    if (incarnation == 0)
        incarnation = atomic_load64(&segment->env.incarnation);
    return roster_set_phase(&segment->env, incarnation, phase);
}

int shd_worker_signal(shd_segment *segment, uint64_t incarnation, int signal)
{
    int pidfd;
    int rc = handle_reader(segment);

    if (rc == SHD_OK)
        rc = roster_process(&segment->env, incarnation, &pidfd);
    if (rc != SHD_OK)
        return rc;
    if (pidfd_send_signal(pidfd, signal, NULL, 0) != 0)
        rc = errno == ESRCH    ? error_set(SHD_NOTFOUND, "the worker is gone")
             : errno == EINVAL ? error_set(SHD_INVAL, "there is no signal %d",
                                           signal)
                               : error_errno("sending a signal");
    (void)close(pidfd);
    return rc;
}

int shd_worker_hold(shd_segment *segment, uint64_t incarnation,
                    uint32_t index, struct shd_hold *hold)
{
    int rc = handle_reader(segment);

    if (rc != SHD_OK)
        return rc;
    if (hold == NULL || hold->struct_size != sizeof(*hold))
        return error_set(SHD_INVAL,
                         "hold is NULL, or its struct_size is not %zu",
                         sizeof(*hold));
    return holds_at(&segment->env, incarnation, index, hold);
}

int shd_generation_next(shd_segment *segment, uint32_t *generation)
{
    int rc = handle_writer(segment);

    if (rc == SHD_OK && generation == NULL)
        rc = error_set(SHD_INVAL, "generation is NULL");
    return rc == SHD_OK ? roster_next_generation(&segment->env, generation)
                        : rc;
}

int shd_generation_drain(shd_segment *segment, uint32_t generation,
                         uint32_t *marked)
{
    uint32_t n = 0;
    int rc = handle_writer(segment);

    if (rc == SHD_OK)
        rc = roster_drain(&segment->env, generation, &n);
    if (marked != NULL)
        *marked = n;
    return rc;
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "shm/api/handle.h"
#include "shm/base/error.h"
#include "shm/ipc/object.h"

#include <string.h>

int shd_worker_join(shd_segment *segment, uint64_t *incarnation)
{
    int rc = handle_writer(segment);

    if (rc == SHD_OK && incarnation != NULL)
        *incarnation = atomic_load64(&segment->env.incarnation);
    return rc;
}

static uint32_t locks_held(const struct segment *s, uint64_t incarnation)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < catalogue_guards(s); i++)
        n += guard_holder(guard_at(s, i)) == incarnation;
    return n;
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
    info->locks_held = locks_held(&segment->segment, slot.incarnation);
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
    /* And what the dead held of queues, locks ... */
    given = object_reap_all(&segment->env);
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

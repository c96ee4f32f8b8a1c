/* SPDX-License-Identifier: BSD-2-Clause */
/* The kinds of objects: what each does for a check and for a reap. */
#include "shm/ipc/mailbox.h"
#include "shm/ipc/object.h"
#include "shm/ipc/permits.h"
#include "shm/ipc/queue.h"
#include "shm/ipc/topic.h"

static const struct object_kind KINDS[] = {
    {SHD_OBJECT_QUEUE, queue_check, queue_reap},
    {SHD_OBJECT_TOPIC, topic_check, topic_reap},
    {SHD_OBJECT_LOCK, permits_check, permits_reap},
    {SHD_OBJECT_SEMAPHORE, permits_check, permits_reap},
    {SHD_OBJECT_LEADER, permits_check, permits_reap},
    {SHD_OBJECT_MAILBOX, mailbox_check, mailbox_reap},
    {0, NULL, NULL},
};

static const char *const NAMES[] = {
    [SHD_OBJECT_DICT] = "dict",       [SHD_OBJECT_QUEUE] = "queue",
    [SHD_OBJECT_TOPIC] = "topic",     [SHD_OBJECT_LOCK] = "lock",
    [SHD_OBJECT_MAILBOX] = "mailbox", [SHD_OBJECT_SEMAPHORE] = "semaphore",
    [SHD_OBJECT_LEADER] = "leader",
};

const char *object_kind_name(uint32_t kind)
{
    if (kind >= sizeof(NAMES) / sizeof(NAMES[0]) || NAMES[kind] == NULL)
        return "unknown";
    return NAMES[kind];
}

const struct object_kind *object_kind(uint32_t kind)
{
    for (const struct object_kind *k = KINDS; k->kind != 0; k++)
        if (k->kind == kind)
            return k;
    return NULL;
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuzz/robust_here.h"

#include <pthread.h>
#include <string.h>

static int forks_error;

/* Workers that are no processes have no forks. */
#define pthread_atfork(before, parent, child) ((void)(child), forks_error)

/* Who a thread is it has asked the kernel once, and keeps to itself. */
#include "shm/guard/robust.c"

void robust_here_become(uint32_t tid, struct robust_list_head *head)
{
    self.tid = tid;
    self.head = head;
}

void robust_here_forget(int error)
{
    forks_error = error;
    fork_once = (pthread_once_t)PTHREAD_ONCE_INIT;
    memset(&self, 0, sizeof(self));
}

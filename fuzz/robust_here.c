/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuzz/robust_here.h"

/* Who a thread is it has asked the kernel once, and keeps to itself. */
#include "shm/guard/robust.c"

void robust_here_become(uint32_t tid, struct robust_list_head *head)
{
    self.tid = tid;
    self.head = head;
}

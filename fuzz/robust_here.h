/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz/robust_here.h - guard/robust.c, by workers that are no threads. */
#ifndef SHD_FUZZ_ROBUST_HERE_H
#define SHD_FUZZ_ROBUST_HERE_H

#include <linux/futex.h>
#include <stdint.h>

/* From now on the caller is the thread of that id, whose lock in question is
 * told there. 0: it is itself again. */
void robust_here_become(uint32_t tid, struct robust_list_head *head);

/* The next call asks who it is, as a thread's first one does, and is told so
 * (or an error number) where libc is to look after forks. */
void robust_here_forget(int error);

#endif

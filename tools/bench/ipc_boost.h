/* SPDX-License-Identifier: BSD-2-Clause */
/* tools/bench/ipc_boost.h - what ipc_boost.cpp gives to ipc.c. */
#ifndef SHD_BENCH_IPC_BOOST_H
#define SHD_BENCH_IPC_BOOST_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A queue of `count` messages of up to `size` bytes; NULL: it failed. */
void *boost_make(const char *name, size_t count, size_t size);

/* 1: done. 0: not without waiting. -1: failed. */
int boost_send(void *q, const void *data, size_t len, int wait);
int boost_receive(void *q, void *data, size_t size, int wait);
void boost_drop(const char *name);

#ifdef __cplusplus
}
#endif
#endif

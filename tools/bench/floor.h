/* SPDX-License-Identifier: BSD-2-Clause */
/* tools/bench/floor.h - what the machine itself costs, as a line of JSON. */
#ifndef SHD_BENCH_FLOOR_H
#define SHD_BENCH_FLOOR_H

int floor_print(void);

#endif

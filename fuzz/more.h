/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz/more.h - beyond tests/wild/play.h: dicts of all forms, long values,
 * reading and saving all there is. */
#ifndef SHD_FUZZ_MORE_H
#define SHD_FUZZ_MORE_H

#include "tests/wild/play.h"

void more_op(struct play *p);

#endif

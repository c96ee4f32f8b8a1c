/* SPDX-License-Identifier: BSD-2-Clause */
/* base/error.h - codes to sentences, and the detail of a thread's last error.
 * OWNS  one buffer a thread, private memory; nothing shared.
 */
#ifndef SHD_BASE_ERROR_H
#define SHD_BASE_ERROR_H

#include "shm/shdict.h"

/* Remembers a sentence with the details for shd_last_error(), and returns
 * code. errno is kept. The hot path never calls it. */
int error_set(int code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* error_set(SHD_PERM or SHD_NOMEM or SHD_SYS by errno, "what: strerror"). */
int error_errno(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif

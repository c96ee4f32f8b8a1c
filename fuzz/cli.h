/* SPDX-License-Identifier: BSD-2-Clause */
/* fuzz/cli.h - the `shdict` command as a call.
 *
 * OWNS   its standard input and output, which are memory; its exits, which come
 *        back here; the files it may touch: those of one directory of our own,
 *        and descriptors. Everything else is EACCES: open, unlink, rename,
 *        link. It starts no process, waits for nothing, sends no signal.
 * HOLDS  after a call nothing is open and no file is left. What a verb that
 *        ends by exit() had allocated leaks, as it does in a process.
 */
#ifndef SHD_FUZZ_CLI_H
#define SHD_FUZZ_CLI_H

#include <stddef.h>

#include "shm/shdict.h"

/* Its exit status; *out gets what it wrote (free it), NUL-terminated. */
int cli_run(int argc, char **argv, const void *in, size_t in_len, char **out,
            size_t *out_len);

/* The command attaches to that segment, by the number of its descriptor, at
 * once: the process has it already. */
void cli_holds(shd_segment *segment);

/* The process is in the command. */
int cli_is_running(void);

#endif

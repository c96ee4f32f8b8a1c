/* SPDX-License-Identifier: BSD-2-Clause */
/* guard/undone.h - reading past a writer that is stuck, on a read-only
 * attachment.
 *
 * A writer that was stopped, or died with nobody there to recover, leaves its
 * guard's sequence counter odd. Who cannot change the segment undoes what is
 * in the log in pages of its own: the attachment is mapped privately, so a
 * page that is written to becomes a copy, and giving the copy back makes the
 * file show through again.
 *
 * OWNS   nothing shared; one undoing at a time in a process.
 * HOLDS  between enter and leave the process sees the guard's data as it was
 *        before the transaction; leave tells whether the writer stood still.
 * LOCK   a process-private mutex between enter and leave, never waited for: a
 *        child of fork may find it taken for ever.
 * CRASH  nothing shared is written.
 */
#ifndef SHD_GUARD_UNDONE_H
#define SHD_GUARD_UNDONE_H

#include "shm/guard/guard.h"

struct undone;

/* Odd between enter and leave. A page that is copied may hold words of other
 * guards, which do not follow the file meanwhile: so a read section of this
 * process counts only if this has been even and the same throughout. */
extern uint64_t undone_epoch __attribute__((visibility("hidden")));

/* NULL: the writer moves, the log cannot be believed, or this process has no
 * memory. */
struct undone *undone_enter(const struct segment *s, struct guard *g);

/* True if the writer has not moved since enter. */
bool undone_leave(struct undone *u);

#endif

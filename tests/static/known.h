/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/static/known.h - macros of libc that cppcheck does not know. */
#define TAILQ_FOREACH(var, head, field)                                       \
    for ((var) = ((head)->tqh_first); (var); (var) = ((var)->field.tqe_next))

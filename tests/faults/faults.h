/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/faults/faults.h - a case is a function that runs in a process of its
 * own, named as a sentence; it fails by fail().
 */
#ifndef SHD_TESTS_FAULTS_FAULTS_H
#define SHD_TESTS_FAULTS_FAULTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "shm/shdict.h"

#define SKIPPED 77

struct fault_case {
    const char *name;
    void (*run)(void);
};

extern const struct fault_case INJECTED[], STARVED[], CROWDED[];

_Noreturn void fail(const char *format, ...)
    __attribute__((format(printf, 1, 2)));
_Noreturn void skip(const char *why);

/* Fails unless rc is code. */
void expect_rc(int rc, int code, const char *what);
#define EXPECT(call, code) expect_rc(call, code, #call)

/* A name of this run's own, removed at its end. */
const char *segment_name(void);

void set_segment_name(const char *path);

/* Options of a segment of this many MiB, with few tables. */
struct shd_segment_options options_of(uint64_t mib);
shd_segment *make_segment(uint64_t mib);
shd_dict *make_dict(shd_segment *s, const char *name, uint64_t bytes);

/* Every invariant, by an attachment of its own. */
void expect_sound(void);

int store(shd_dict *d, unsigned key, size_t len);
int look(shd_dict *d, unsigned key);

/* Descriptors and mappings this process has. */
unsigned open_descriptors(void);
unsigned open_mappings(void);

/* In a child: 0 .. 255, or dies; the parent gets what it exits with, or -signal. */
int child_result(pid_t pid);

#endif

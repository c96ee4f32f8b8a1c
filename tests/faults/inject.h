/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/faults/inject.h - makes the n-th system call that can fail, fail.
 *
 * libinject.so stands in front of libc's functions. In a program that links it
 * inject_arm() says which; else the variable INJECT_NTH does, for the first
 * program that is started with it and none of its children.
 */
#ifndef SHD_TESTS_FAULTS_INJECT_H
#define SHD_TESTS_FAULTS_INJECT_H

#define INJECT_API __attribute__((visibility("default")))

/* From now on the nth call (1: the next) fails; 0: none. */
INJECT_API void inject_arm(unsigned nth);

/* The name of the function that was made to fail since, NULL: none yet. */
INJECT_API const char *inject_hit(void);

/* What CLOCK_REALTIME is off by from now on. */
INJECT_API void inject_wall_clock(long long seconds);

#endif

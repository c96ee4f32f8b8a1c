/* SPDX-License-Identifier: BSD-2-Clause */
/* tests/model/ipc.h - a queue, a topic, a mailbox beside naive ones.
 *
 * OWNS   a segment, workers that are no processes and die between two
 *        operations (their liveness byte is let go of), random numbers.
 * HOLDS  every result, and what can be looked at afterwards, is that of a
 *        model that keeps arrays and walks them: to the byte, the number, the
 *        order, the count. Nothing waits; time stands still but for `advance`.
 */
#ifndef SHD_TESTS_MODEL_IPC_H
#define SHD_TESTS_MODEL_IPC_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/shdict.h"

#define IPC_WORKERS 6u /* alive at a time */
#define IPC_POOL (1u << 17)

struct ipc_worker {
    uint64_t incarnation;
    int fd; /* that holds its byte */
};

struct ipc {
    const char *name; /* of the configuration */
    const char *doing;
    uint64_t seed, ops_asked, random, op;
    shd_segment *segment;
    unsigned char pool[IPC_POOL]; /* messages are slices of it */
    struct ipc_worker worker[IPC_WORKERS];
    uint32_t who; /* that acts now */
    uint64_t deaths;
};

uint64_t ipc_below(struct ipc *x, uint64_t n);
bool ipc_one_in(struct ipc *x, uint64_t n);

__attribute__((noreturn, format(printf, 2, 3))) void
ipc_fail(const struct ipc *x, const char *format, ...);
void ipc_expect(const struct ipc *x, int got, int wanted);
void ipc_same(const struct ipc *x, const char *what, uint64_t got,
              uint64_t wanted);

/* Another of the workers acts. */
void ipc_switch(struct ipc *x);
uint64_t ipc_self(const struct ipc *x);
bool ipc_lives(const struct ipc *x, uint64_t incarnation);

/* One of them dies, who does not act, and another takes its place. Gives the
 * incarnation of the dead. */
uint64_t ipc_death(struct ipc *x);

/* As the library tells it. */
uint64_t ipc_now(void);
void ipc_advance(struct ipc *x);

/* A slice of the pool. */
uint32_t ipc_slice(struct ipc *x, size_t len);
size_t ipc_length(struct ipc *x, size_t longest);

/* Each configuration: that many operations, and all that is checked at the end.
 */
struct ipc_config {
    const char *name;
    void (*run)(struct ipc *x, uint64_t ops);
    unsigned share; /* of all operations, in thousandths */
};
extern const struct ipc_config IPC_CONFIGS[]; /* ends with one of no name */

_Noreturn void ipc_run(const struct ipc_config *c, uint64_t seed,
                       uint64_t ops_asked);

void ipc_queue(struct ipc *x, uint64_t ops);
void ipc_queue_leases_end(struct ipc *x, uint64_t ops);
void ipc_topic(struct ipc *x, uint64_t ops);
void ipc_topic_lossless(struct ipc *x, uint64_t ops);
void ipc_mailbox(struct ipc *x, uint64_t ops);

#endif

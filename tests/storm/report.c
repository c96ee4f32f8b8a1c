/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/storm/parent.h"

#include <inttypes.h>
#include <stdio.h>

static void print_histogram(const char *what, const struct histogram *h,
                            uint32_t worst)
{
    printf("  %-22s p50 %.1f us, p99 %.1f us, p99.9 %.1f us, max %.2f ms "
           "(%s)\n", what, (double)histogram_quantile(h, 0.5) / 1e3,
           (double)histogram_quantile(h, 0.99) / 1e3,
           (double)histogram_quantile(h, 0.999) / 1e3,
           (double)h->max_ns / 1e6, KIND_NAMES[worst]);
}

/* Every stall over the limit is told; the storm fails if more than the limit
 * is left of one when the time is taken off that another worker, perhaps the
 * lock's holder, was put aside in its operation meanwhile. */
bool report_judge(void)
{
    struct meter *meters[SLOTS_MAX + 2];
    bool good = true;

    for (uint32_t i = 0; i < storm.workers; i++)
        meters[i] = &storm.journal->slot[i].meter;
    meters[storm.workers] = &parent_meter;
    /* Many operations in one: it explains, and is not judged. */
    meters[storm.workers + 1] = &storm.journal->resizer;
    for (uint32_t i = 0; i <= storm.workers; i++) {
        /* One every 20 ms at most, and audits come often. */
        if (meters[i]->episodes > METER_EPISODES) {
            printf("    too many long operations to be kept\n");
            good = false;
        }
        for (unsigned n = 0; n < METER_EPISODES; n++) {
            const struct episode *e = &meters[i]->episode[n];
            uint64_t explained;

            if (e->cut != 0 || e->stall_ns <= STALL_LIMIT_NS)
                continue;
            explained = meter_explained((const struct meter *const *)meters,
                                        storm.workers + 2, e);
            printf("    %s stalled %.1f ms (limit %u); another worker was "
                   "put aside for %.1f ms meanwhile\n", KIND_NAMES[e->kind],
                   (double)e->stall_ns / 1e6, STALL_LIMIT_NS / 1000000,
                   (double)explained / 1e6);
            if (e->stall_ns > explained + STALL_LIMIT_NS)
                good = false;
        }
    }
    for (uint32_t i = 0; i < storm.workers + 2; i++)
        meter_forget_episodes(meters[i]);
    return good;
}

static void print_recovery(void)
{
    const struct histogram *h = &storm.journal->recovery;

    if (!supervised)
        return;
    printf("  %-22s p50 %.1f us, p99 %.1f us, max %.2f ms, of %" PRIu64
           " deaths\n  %-22s (others met the rest first, or the supervisor "
           "itself was dead)\n",
           "SIGKILL to recovery", (double)histogram_quantile(h, 0.5) / 1e3,
           (double)histogram_quantile(h, 0.99) / 1e3,
           (double)h->max_ns / 1e6, h->count, "");
}

void report_stalls(void)
{
    struct histogram wall = {0}, stall = {0};
    uint32_t worst_wall = 0, worst_stall = 0;

    for (uint32_t i = 0; i <= storm.workers; i++) {
        const struct meter *m = i < storm.workers
                                    ? &storm.journal->slot[i].meter
                                    : &parent_meter;

        if (m->wall.max_ns > wall.max_ns)
            worst_wall = m->worst_wall_kind;
        if (m->stall.max_ns > stall.max_ns)
            worst_stall = m->worst_stall_kind;
        histogram_merge(&wall, &m->wall);
        histogram_merge(&stall, &m->stall);
    }
    print_histogram("wall time", &wall, worst_wall);
    print_histogram("stall", &stall, worst_stall);
    print_recovery();
    printf("  %-22s %.2f ms (wall time)\n", "longest cut off by kill",
           (double)tally.longest_cut_ns / 1e6);
    printf("  The stall, which is judged, is wall time in an operation less "
           "the time that the\n  scheduler gave to other processes while "
           "this one could run (schedstat);\n  over %u ms also less the time "
           "that another worker was put aside like that in the\n  middle of "
           "an operation, perhaps with the lock.\n",
           STALL_LIMIT_NS / 1000000);
}

static void print_cut_kinds(void)
{
    uint64_t cut[KINDS] = {0};

    for (uint32_t i = 0; i < storm.workers; i++) {
        for (unsigned k = 0; k < KINDS; k++)
            cut[k] += storm.journal->slot[i].cut_kinds[k];
    }
    printf("  %-22s", "  cut off");
    for (unsigned k = 1, n = 0; k < KINDS; k++) {
        if (cut[k] == 0)
            continue;
        printf("%s %" PRIu64 " %s", n % 5 == 0 && n > 0
                                    ? ",\n                        "
                                    : n > 0 ? "," : "",
               cut[k], KIND_NAMES[k]);
        n++;
    }
    printf("\n");
}

static void row(const char *what, uint64_t n, const char *more)
{
    printf("  %-22s %" PRIu64 "%s%s\n", what, n, *more ? " " : "", more);
}

void report_kills(double took_s)
{
    struct shd_segment_info info = {.struct_size = sizeof(info)};
    uint64_t ops = 0;

    for (uint32_t i = 0; i < storm.workers; i++)
        ops += storm.journal->slot[i].ops;
    must(shd_segment_info(storm.segment, &info), "segment_info");
    printf("  %-22s %" PRIu64 " in %.1f s, %" PRIu64 " of them by a timer of "
           "the kernel's\n", "kills", tally.kills, took_s, tally.by_timer);
    row("  in an operation", tally.in_operation, "");
    row("  with a lock", info.recoveries,
        "inside a critical section: the next one recovered");
    row("  waiting", tally.waiting, "asleep before a lock (of those seen)");
    row("  recovering", tally.recovering, "in a recovery of a dead one's lock");
    row("  reaping", tally.reaping, "");
    row("  starting", tally.starting, "before they had registered");
    printf("  %-22s %" PRIu64 " (%" PRIu64 " done)\n", "  resizing",
           tally.resizing, storm.journal->resizes);
    row("  supervising", tally.supervising, "");
    print_cut_kinds();
    printf("  %-22s %" PRIu64 ", %" PRIu64 " by the parent\n",
           "workers reaped", info.deaths, tally.reaped);
    printf("  %-22s %" PRIu64 ", %" PRIu64 " of them by exec\n",
           "workers started", tally.starts, tally.execs);
    printf("  %-22s %" PRIu64 ", %" PRIu64 " audits\n", "operations", ops,
           tally.audits);
    printf("  %-22s %" PRIu64 " keys as acknowledged; %" PRIu64 " list "
           "elements, %" PRIu64 " lost with %" PRIu64 " deaths in a pop\n",
           "verified", audit_totals.keys, audit_totals.elements,
           audit_totals.elements_lost, audit_totals.pops_open);
    printf("  %-22s %" PRIu64 " acknowledged, %" PRIu64 " more counted, of "
           "%" PRIu64 " in flight at deaths\n", "counters",
           audit_totals.counts, audit_totals.counts_extra,
           audit_totals.counts_open);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For the unit suites under SHDICT_WRITE_PROTECT (tests/protect/run). They
 * reach past the public functions: they damage what they want to see named,
 * and call the floors below. Such a store of their own is let through, on its
 * page, and only while the thread is in no call of the library; what faults
 * in a call has lost the right to write there, and dies of it.
 */
#include "shm/segment/protect.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u

/* A segment is what is shared and can only be read. */
static bool is_protected(uintptr_t at)
{
    FILE *f = fopen("/proc/self/maps", "re");
    unsigned long from, to;
    bool found = false;
    char line[512], how[8];

    while (f != NULL && !found && fgets(line, sizeof(line), f) != NULL)
        found = sscanf(line, "%lx-%lx %7s", &from, &to, how) == 3 &&
                at >= from && at < to && strcmp(how, "r--s") == 0;
    if (f != NULL)
        (void)fclose(f);
    return found;
}

static void fault(int signal_number, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr;
    void *page = (void *)(at & ~(uintptr_t)(PAGE - 1));

    (void)context;
    if (!protect_is_inside() && info->si_code == SEGV_PKUERR &&
        pkey_mprotect(page, PAGE, PROT_READ | PROT_WRITE, 0) == 0)
        return;
    if (!protect_is_inside() && info->si_code == SEGV_ACCERR &&
        is_protected(at) && mprotect(page, PAGE, PROT_READ | PROT_WRITE) == 0)
        return;
    /* Again, and for good. */
    (void)signal(signal_number, SIG_DFL);
}

static __attribute__((constructor)) void let_own_stores_through(void)
{
    const char *asked = getenv("SHDICT_WRITE_PROTECT");
    struct sigaction how = {.sa_sigaction = fault,
                            .sa_flags = SA_SIGINFO | SA_NODEFER};

    if (asked != NULL && strcmp(asked, "0") != 0)
        (void)sigaction(SIGSEGV, &how, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* A server of a peer: started for the run, and ended with it. */
#ifndef SHD_BENCH_SERVER_H
#define SHD_BENCH_SERVER_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Starts it, and waits until its socket is there: its process, or -1. */
static inline pid_t server_start(char *const *argv, const char *socket)
{
    struct stat st;
    pid_t parent = getpid(), pid = fork();

    if (pid == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
            _exit(127);
        execvp(argv[0], argv);
        perror(argv[0]);
        _exit(127);
    }
    for (int i = 0; pid > 0 && i < 3000; i++) {
        if (stat(socket, &st) == 0)
            return pid;
        if (waitpid(pid, NULL, WNOHANG) == pid)
            return -1;
        usleep(10000);
    }
    return -1;
}

#endif

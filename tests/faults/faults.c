/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * faults [PART-OF-A-NAME] - what runs out, is taken away or interrupts: the
 * documented error, nothing lost, and the segment sound afterwards. Each case
 * runs in a process of its own. See tests/faults/run.
 */
#include "tests/faults/faults.h"

#include <dirent.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

static char name[64];

void fail(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    printf("    ");
    vprintf(format, ap);
    printf("\n");
    va_end(ap);
    fflush(stdout);
    _exit(1);
}

void skip(const char *why)
{
    printf("    skipped: %s\n", why);
    fflush(stdout);
    _exit(SKIPPED);
}

void expect_rc(int rc, int code, const char *what)
{
    if (rc != code)
        fail("%s: %s (%s), not %s", what, shd_strerror_name(rc),
             shd_last_error(), shd_strerror_name(code));
}

const char *segment_name(void)
{
    return name;
}

void set_segment_name(const char *path)
{
    snprintf(name, sizeof(name), "%s", path);
}

struct shd_segment_options options_of(uint64_t mib)
{
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .size_bytes = mib << 20,
                                    .workers_max = 64,
                                    .objects_max = 16,
                                    .locks_max = 64};

    return o;
}

shd_segment *make_segment(uint64_t mib)
{
    struct shd_segment_options o = options_of(mib);
    shd_segment *s;

    EXPECT(shd_segment_create(name, &o, &s), SHD_OK);
    return s;
}

shd_dict *make_dict(shd_segment *s, const char *dict, uint64_t bytes)
{
    struct shd_dict_options o = {.struct_size = sizeof(o),
                                 .capacity_bytes = bytes,
                                 .capacity_max_bytes = 4 * bytes};
    shd_dict *d;

    EXPECT(shd_dict_open(s, dict, &o, &d), SHD_OK);
    return d;
}

void expect_sound(void)
{
    struct shd_segment_options o = {.struct_size = sizeof(o),
                                    .flags = SHD_ATTACH_READONLY};
    char report[300];
    shd_segment *s;
    int rc;

    EXPECT(shd_segment_attach(name, &o, &s), SHD_OK);
    rc = shd_segment_check(s, report, sizeof(report));
    if (rc != SHD_OK)
        fail("check: %s: %s", shd_strerror_name(rc), report);
    EXPECT(shd_segment_close(s), SHD_OK);
}

static size_t key_of(char key[24], unsigned n)
{
    return (size_t)snprintf(key, 24, "key %u", n);
}

int store(shd_dict *d, unsigned n, size_t len)
{
    static char value[1 << 17];
    char key[24];

    memset(value, (int)('a' + n % 26), len);
    return shd_set(d, key, key_of(key, n), value, len, 0);
}

/* Its bytes must be those of store(). */
int look(shd_dict *d, unsigned n)
{
    static char value[1 << 17];
    struct shd_value v;
    char key[24];
    int rc = shd_get(d, key, key_of(key, n), value, sizeof(value), &v);

    for (size_t i = 0; rc == SHD_OK && i < v.len; i++) {
        if (value[i] != (char)('a' + n % 26))
            fail("key %u: its value has another's bytes", n);
    }
    return rc;
}

unsigned open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    if (d == NULL)
        fail("no /proc/self/fd");
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

unsigned open_mappings(void)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512];
    unsigned n = 0;

    if (f == NULL)
        fail("no /proc/self/maps");
    while (fgets(line, sizeof(line), f) != NULL)
        n += strstr(line, "/dev/shm/") != NULL ||
             strstr(line, "memfd:shdict") != NULL;
    fclose(f);
    return n;
}

int child_result(pid_t pid)
{
    int status;

    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        fail("fork or wait: %m");
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- running them ------------------------------------------------------- */

static unsigned passed, failed;

static void run_all(const struct fault_case *c, const char *only)
{
    for (; c->name != NULL; c++) {
        if (only != NULL && strstr(c->name, only) == NULL)
            continue;
        snprintf(name, sizeof(name), "faults-%d", (int)getpid());
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(300);
            c->run();
            fflush(stdout);
            _exit(0);
        }
        int result = child_result(pid);
        int rc = shd_segment_destroy(name);
        (void)rc;
        passed += result == 0;
        failed += result != 0 && result != SKIPPED;
        printf("%s  %s", result == 0         ? "ok  "
                         : result == SKIPPED ? "skip"
                                             : "FAIL",
               c->name);
        if (result < 0)
            printf(" (signal %d)", -result);
        printf("\n");
    }
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : NULL;

    run_all(INJECTED, only);
    run_all(STARVED, only);
    run_all(CROWDED, only);
    printf("%u passed, %u failed\n", passed, failed);
    return failed != 0 || passed == 0;
}

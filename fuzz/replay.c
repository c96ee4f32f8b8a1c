/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A main for a target, instead of libFuzzer's: runs each file that is named,
 * and each one in a directory that is named. For compilers that have no
 * libFuzzer, and to see one input again in a debugger.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static unsigned long inputs;

/* Where no sanitizer brings them, and the target has none. */
#define HOOK(n)                                                               \
    void __sanitizer_cov_store##n(void *p);                                   \
    __attribute__((weak)) void __sanitizer_cov_store##n(void *p)              \
    {                                                                         \
        (void)p;                                                              \
    }                                                                         \
    void __sanitizer_cov_load##n(void *p);                                    \
    __attribute__((weak)) void __sanitizer_cov_load##n(void *p)               \
    {                                                                         \
        (void)p;                                                              \
    }
HOOK(1)
HOOK(2)
HOOK(4)
HOOK(8)
HOOK(16)

static int run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = NULL;
    long size;

    if (f == NULL || fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) < 0 ||
        fseek(f, 0, SEEK_SET) != 0) {
        perror(path);
        if (f != NULL)
            fclose(f);
        return 1;
    }
    /* Exactly as long as it is: a byte too many is seen. */
    data = malloc((size_t)size + (size == 0));
    if (data == NULL || fread(data, 1, (size_t)size, f) != (size_t)size) {
        perror(path);
        fclose(f);
        free(data);
        return 1;
    }
    fclose(f);
    fprintf(stderr, "%s\n", path);
    (void)LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
    inputs++;
    return 0;
}

static int run_directory(const char *path, DIR *d)
{
    const struct dirent *e;
    char name[4096];
    int bad = 0;

    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
        bad |= run_file(name);
    }
    return bad;
}

int main(int argc, char **argv)
{
    int bad = 0;

    if (LLVMFuzzerInitialize != NULL)
        (void)LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) {
        DIR *d;

        if (argv[i][0] == '-') /* libFuzzer's options mean nothing here */
            continue;
        d = opendir(argv[i]);
        bad |= d != NULL ? run_directory(argv[i], d) : run_file(argv[i]);
        if (d != NULL)
            closedir(d);
    }
    printf("%lu inputs\n", inputs);
    return bad;
}

/* What the programs here share: checks that say what was expected and what was found, and a directory that goes
 * away at the end. Each program ends with `return checked();`. */
#ifndef CHECK_H
#define CHECK_H

#include <dqlite.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int check_failures;
static int check_count;
static char check_root[128];

/* The programs run against the C library as well; what that crashes on is left out then. */
static inline int is_ours(void)
{
    return strstr(dqlite_version_string, "@rs") != NULL;
}

static inline void check_int(const char *file, int line, const char *what, long long expected, long long found)
{
    check_count += 1;
    if (expected != found) {
        check_failures += 1;
        fprintf(stderr, "%s:%d: %s: expected %lld, found %lld\n", file, line, what, expected, found);
    }
}

static inline void check_text(const char *file, int line, const char *what, const char *expected, const char *found)
{
    check_count += 1;
    if (found == NULL || strcmp(expected, found) != 0) {
        check_failures += 1;
        fprintf(stderr, "%s:%d: %s: expected '%s', found '%s'\n", file, line, what, expected,
                found == NULL ? "NULL" : found);
    }
}

static inline void check_prefix(const char *file, int line, const char *what, const char *expected, const char *found)
{
    check_count += 1;
    if (found == NULL || strncmp(expected, found, strlen(expected)) != 0) {
        check_failures += 1;
        fprintf(stderr, "%s:%d: %s: expected '%s...', found '%s'\n", file, line, what, expected,
                found == NULL ? "NULL" : found);
    }
}

#define INT(what, expected, found) check_int(__FILE__, __LINE__, what, (long long)(expected), (long long)(found))
#define TEXT(what, expected, found) check_text(__FILE__, __LINE__, what, expected, found)
#define PREFIX(what, expected, found) check_prefix(__FILE__, __LINE__, what, expected, found)

/* A new empty directory; the string lives until the next call with the same name. */
static inline char *directory(const char *name)
{
    static char path[256];
    if (check_root[0] == '\0') {
        const char *base = getenv("TMPDIR");
        snprintf(check_root, sizeof check_root, "%s/dqlite-ffi-XXXXXX", base != NULL ? base : "/tmp");
        if (mkdtemp(check_root) == NULL) {
            perror(check_root);
            exit(2);
        }
    }
    snprintf(path, sizeof path, "%s/%s", check_root, name);
    if (mkdir(path, 0700) != 0) {
        perror(path);
        exit(2);
    }
    return strdup(path);
}

static inline void write_file(const char *dir, const char *name, const void *bytes, size_t len)
{
    char path[1024];
    FILE *file;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    file = fopen(path, "wb");
    if (file == NULL || fwrite(bytes, 1, len, file) != len || fclose(file) != 0) {
        perror(path);
        exit(2);
    }
}

static inline int exists(const char *dir, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static inline int remove_one(const char *path, const struct stat *stat, int type, struct FTW *place)
{
    (void)stat;
    (void)type;
    (void)place;
    return remove(path);
}

static inline int checked(void)
{
    if (check_root[0] != '\0') {
        nftw(check_root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
    if (check_failures > 0) {
        fprintf(stderr, "%d of %d checks failed\n", check_failures, check_count);
        return 1;
    }
    printf("%d checks\n", check_count);
    return 0;
}

#endif

/* The library loaded at run time, as plug-ins do it, and told to go again: it stays, because its threads may. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    void *library = dlopen(argc > 1 ? argv[1] : "libdqlite.so.0", RTLD_NOW | RTLD_LOCAL);
    int (*version)(void);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    *(void **)&version = dlsym(library, "dqlite_version_number");
    if (version == NULL || version() < 11800) {
        fprintf(stderr, "no version\n");
        return 1;
    }
    if (dlclose(library) != 0) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    if (version() < 11800) {
        return 1;
    }
    printf("loaded and closed\n");
    return 0;
}

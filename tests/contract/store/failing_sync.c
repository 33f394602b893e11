/* Makes fdatasync and fsync fail with EIO, after doing them, while the file named by FAIL_SYNC_SWITCH exists. With
 * FAIL_SYNC_ONCE set each failure removes that file, so that the next sync works. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int failing(void) {
    const char *file = getenv("FAIL_SYNC_SWITCH");
    if (!file || access(file, F_OK) != 0) return 0;
    return getenv("FAIL_SYNC_ONCE") == NULL || unlink(file) == 0;
}

#define FAILING(name)                                            \
    int name(int fd) {                                           \
        static int (*real)(int);                                 \
        if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, #name); \
        int result = real(fd);                                   \
        if (result == 0 && failing()) {                          \
            errno = EIO;                                         \
            return -1;                                           \
        }                                                        \
        return result;                                           \
    }

FAILING(fdatasync)
FAILING(fsync)

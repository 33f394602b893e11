/* Faults at the calls that write to a server's disk, under the folder $FAULT_UNDER, as told by the shared memory that is
 * the file $FAULT_CONTROL (see shim.py, which has the same layout). Preloaded into the server; costs nothing while off. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, KILL_BEFORE, KILL_HALF, KILL_AFTER, FAIL, FAIL_HALF, FAIL_AFTER, SHORT };
enum { WRITE = 1, SYNC = 2, TRUNCATE = 4, UNLINK = 8, CREATE = 16 };
enum { DATABASE = 1, LOG = 2, BYTES = 4 };

struct control {
    int32_t mode;  /* what happens */
    int32_t calls; /* to which calls: WRITE | ... */
    int32_t files; /* on which files: DATABASE | ... */
    int32_t skip;  /* so many of them pass first */
    int32_t times; /* then so many are struck; the rest pass again */
    int32_t error; /* errno of FAIL* */
    int32_t seen;  /* calls that came by */
    int32_t struck;
};

static struct control *control;
static const char *under;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULT_CONTROL");
    under = getenv("FAULT_UNDER");
    int fd = path && under ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (found != MAP_FAILED) control = found;
}

static int kind_of(const char *path) {
    size_t length = strlen(under);
    if (strncmp(path, under, length) != 0) return 0;
    path += length;
    if (strncmp(path, "/bytes", 6) == 0) return BYTES;
    if (strstr(path, "-shm")) return 0;
    if (strstr(path, "-wal")) return LOG;
    return strstr(path, "upload.sqlite3") ? DATABASE : 0;
}

static int kind_of_fd(int fd) {
    char link[40], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return kind_of(path);
}

/* What is to happen to this call; OFF for nearly all. Never changes errno. */
static int fate(int call, int kind) {
    if (!(control->files & kind)) return OFF;
    __atomic_add_fetch(&control->seen, 1, __ATOMIC_SEQ_CST);
    if (__atomic_sub_fetch(&control->skip, 1, __ATOMIC_SEQ_CST) >= 0) return OFF;
    if (__atomic_sub_fetch(&control->times, 1, __ATOMIC_SEQ_CST) < 0) return OFF;
    __atomic_add_fetch(&control->struck, 1, __ATOMIC_SEQ_CST);
    if (control->mode == KILL_BEFORE) kill(getpid(), SIGKILL), pause();
    return control->mode;
}

static int wanted(int call) { return control && control->mode != OFF && (control->calls & call); }

static int fate_of_fd(int call, int fd) {
    int before = errno;
    int found = wanted(call) ? fate(call, kind_of_fd(fd)) : OFF;
    errno = before;
    return found;
}

static int fate_of_path(int call, const char *path) {
    return wanted(call) ? fate(call, kind_of(path)) : OFF;
}

/* Of a name in an open folder. */
static int fate_in(int call, int folder, const char *path) {
    return folder == AT_FDCWD || *path == '/' ? fate_of_path(call, path) : fate_of_fd(call, folder);
}

static long ended(int how, long result) {
    if (how == KILL_AFTER || how == KILL_HALF) kill(getpid(), SIGKILL), pause();
    if (how == FAIL_AFTER || how == FAIL_HALF) {
        errno = control->error;
        return -1;
    }
    return result;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAILS(how)               \
    if (how == FAIL) {           \
        errno = control->error;  \
        return -1;               \
    }
/* Not all of it; at least a byte, else a caller may try for ever. */
#define PART(how, size) ((how == KILL_HALF || how == FAIL_HALF || how == SHORT) && size > 1 ? size / 2 : size)

#define PWRITE(name, offset_type)                                                \
    ssize_t name(int fd, const void *data, size_t size, offset_type offset) {    \
        static __typeof__(&name) real;                                           \
        if (!real) real = REAL(name);                                            \
        int how = fate_of_fd(WRITE, fd);                                         \
        FAILS(how)                                                               \
        return ended(how, real(fd, data, PART(how, size), offset));              \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t size) {
    static __typeof__(&write) real;
    if (!real) real = REAL(write);
    int how = fate_of_fd(WRITE, fd);
    FAILS(how)
    return ended(how, real(fd, data, PART(how, size)));
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    static __typeof__(&writev) real;
    if (!real) real = REAL(writev);
    int how = fate_of_fd(WRITE, fd);
    FAILS(how)
    if (how == OFF || count == 0 || PART(how, pieces[0].iov_len) == pieces[0].iov_len)
        return ended(how, real(fd, pieces, count));
    struct iovec part = {pieces[0].iov_base, pieces[0].iov_len / 2};
    return ended(how, real(fd, &part, 1));
}

#define SYNCING(name)                        \
    int name(int fd) {                       \
        static __typeof__(&name) real;       \
        if (!real) real = REAL(name);        \
        int how = fate_of_fd(SYNC, fd);      \
        FAILS(how)                           \
        return ended(how, real(fd));         \
    }
SYNCING(fsync)
SYNCING(fdatasync)

#define TRUNCATING(name, offset_type)            \
    int name(int fd, offset_type size) {         \
        static __typeof__(&name) real;           \
        if (!real) real = REAL(name);            \
        int how = fate_of_fd(TRUNCATE, fd);      \
        FAILS(how)                               \
        return ended(how, real(fd, size));       \
    }
TRUNCATING(ftruncate, off_t)
TRUNCATING(ftruncate64, off64_t)

int unlink(const char *path) {
    static __typeof__(&unlink) real;
    if (!real) real = REAL(unlink);
    int how = fate_of_path(UNLINK, path);
    FAILS(how)
    return ended(how, real(path));
}

int unlinkat(int folder, const char *path, int flags) {
    static __typeof__(&unlinkat) real;
    if (!real) real = REAL(unlinkat);
    int how = fate_in(UNLINK, folder, path);
    FAILS(how)
    return ended(how, real(folder, path, flags));
}

int mkdir(const char *path, mode_t mode) {
    static __typeof__(&mkdir) real;
    if (!real) real = REAL(mkdir);
    int how = fate_of_path(CREATE, path);
    FAILS(how)
    return ended(how, real(path, mode));
}

#define OPENING(name)                                                             \
    int name(const char *path, int flags, ...) {                                  \
        static __typeof__(&name) real;                                            \
        if (!real) real = REAL(name);                                             \
        va_list rest;                                                             \
        va_start(rest, flags);                                                    \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                             \
        int how = flags & O_CREAT ? fate_of_path(CREATE, path) : OFF;             \
        FAILS(how)                                                                \
        return ended(how, real(path, flags, mode));                               \
    }
OPENING(open)
OPENING(open64)

#define OPENING_IN(name)                                                          \
    int name(int folder, const char *path, int flags, ...) {                      \
        static __typeof__(&name) real;                                            \
        if (!real) real = REAL(name);                                             \
        va_list rest;                                                             \
        va_start(rest, flags);                                                    \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                             \
        int how = flags & O_CREAT ? fate_in(CREATE, folder, path) : OFF;          \
        FAILS(how)                                                                \
        return ended(how, real(folder, path, flags, mode));                       \
    }
OPENING_IN(openat)
OPENING_IN(openat64)

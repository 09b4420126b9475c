/* Counts the calls of the C library on what lies below one folder. The n-th one fails, does its
   work and reports a failure all the same, writes half of what it is given, or is the last one
   before the process is killed.
   Loaded with LD_PRELOAD; tests/faults/calls.py arms it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { COUNT, FAIL, FAIL_AFTER, FAIL_FROM, HALF, KILL };

static char folder[PATH_MAX];
static int armed, mode, at, code, count;
static char ours[4096];   /* 1 for each descriptor of a file below the folder */
static char names[65536]; /* the calls so far, each followed by a space */

void arm(const char *new_folder, int new_mode, int new_at, int new_code) {
    strncpy(folder, new_folder, PATH_MAX - 1);
    mode = new_mode, at = new_at, code = new_code, count = 0, armed = 1;
    names[0] = 0;
}

const char *disarm(void) {
    armed = 0;
    return names;
}

static int below(const char *path) { return armed && !strncmp(path, folder, strlen(folder)); }

static int open_below(int file) {
    return armed && file >= 0 && file < (int)sizeof ours && ours[file];
}

static int next(const char *name) {
    if (strlen(names) + strlen(name) + 2 < sizeof names) strcat(strcat(names, name), " ");
    int number = count++;
    if (mode == FAIL_FROM) return number >= at ? FAIL : COUNT;
    if (number != at) return COUNT;
    return mode;
}

static long done(int action, long result) {
    if (action == KILL) kill(getpid(), SIGKILL);
    if (action != FAIL_AFTER || result < 0) return result;
    errno = code;
    return -1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define CALL(name, is_ours, ...)                  \
    do {                                          \
        __typeof__(&name) real = REAL(name);      \
        if (!(is_ours)) return real(__VA_ARGS__); \
        int action = next(#name);                 \
        if (action == FAIL) {                     \
            errno = code;                         \
            return -1;                            \
        }                                         \
        return done(action, real(__VA_ARGS__));   \
    } while (0)

static int noted(int file, int is_ours) {
    if (file >= 0 && file < (int)sizeof ours) ours[file] = (char)is_ours;
    return file;
}

static int open_counted(const char *name, int (*real)(const char *, int, ...), const char *path,
                        int flags, mode_t permissions) {
    if (!below(path)) return noted(real(path, flags, permissions), 0);
    int action = next(name);
    if (action == FAIL) {
        errno = code;
        return -1;
    }
    return (int)done(action, noted(real(path, flags, permissions), 1));
}

#define OPEN(name)                                                      \
    int name(const char *path, int flags, ...) {                        \
        va_list rest;                                                   \
        va_start(rest, flags);                                          \
        mode_t permissions = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                   \
        return open_counted("open", REAL(name), path, flags, permissions); \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int file, const void *data, size_t size) {
    if (open_below(file) && mode == HALF && count == at && size > 1) {
        next("write");
        return REAL(write)(file, data, size / 2);
    }
    CALL(write, open_below(file), file, data, size);
}

int close(int file) {
    int is_ours = open_below(file);
    int action = is_ours ? next("close") : COUNT;
    noted(file, 0);
    int result = REAL(close)(file); /* a close that fails has closed all the same */
    return (int)done(action == FAIL ? FAIL_AFTER : action, result);
}

/* advice fails with a number, not with errno */
int posix_fadvise64(int file, off64_t from, off64_t size, int advice) {
    int action = open_below(file) ? next("posix_fadvise") : COUNT;
    if (action == FAIL) return code;
    return (int)done(action, REAL(posix_fadvise64)(file, from, size, advice)) ? code : 0;
}
int posix_fadvise(int file, off_t from, off_t size, int advice) {
    return posix_fadvise64(file, from, size, advice);
}

int fsync(int file) { CALL(fsync, open_below(file), file); }
int fdatasync(int file) { CALL(fdatasync, open_below(file), file); }
int rename(const char *from, const char *to) { CALL(rename, below(to), from, to); }
int link(const char *from, const char *to) { CALL(link, below(to), from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    CALL(linkat, below(to), a, from, b, to, flags);
}
int unlink(const char *path) { CALL(unlink, below(path), path); }
int mkdir(const char *path, mode_t permissions) { CALL(mkdir, below(path), path, permissions); }

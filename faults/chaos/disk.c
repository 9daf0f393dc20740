/* Preloaded into the processes of `troth chaos`: makes writes and syncs of one file fail or take long, on demand.

   A file of the same name in the folder TROTH_CHAOS_DISK is the demand, also for the write-ahead log beside it:
   "full" (writes give ENOSPC), "sync" (syncs give EIO), or "slow MS" (syncs take MS milliseconds more). */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void demanded(int fd, char *text, size_t size)
{
    char link[64], path[4096], demand[8192];
    const char *folder = getenv("TROTH_CHAOS_DISK");
    int before = errno;
    text[0] = 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = folder ? readlink(link, path, sizeof path - 1) : -1;
    if (length > 0) {
        path[length] = 0;
        if (length > 4 && strcmp(path + length - 4, "-wal") == 0)
            path[length - 4] = 0;
        const char *name = strrchr(path, '/');
        snprintf(demand, sizeof demand, "%s/%s", folder, name ? name + 1 : path);
        int file = open(demand, O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            ssize_t got = read(file, text, size - 1);
            text[got > 0 ? got : 0] = 0;
            close(file);
        }
    }
    errno = before;
}

static int sync_fails(int fd)
{
    char text[32];
    demanded(fd, text, sizeof text);
    if (strncmp(text, "slow ", 5) == 0) {
        long ms = atol(text + 5);
        struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    return strcmp(text, "sync") == 0;
}

static int is_full(int fd)
{
    char text[32];
    demanded(fd, text, sizeof text);
    return strcmp(text, "full") == 0;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define FAIL(error) do { errno = error; return -1; } while (0)

int fdatasync(int fd)
{
    REAL(fdatasync);
    if (sync_fails(fd)) FAIL(EIO);
    return real(fd);
}

int fsync(int fd)
{
    REAL(fsync);
    if (sync_fails(fd)) FAIL(EIO);
    return real(fd);
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    REAL(write);
    if (is_full(fd)) FAIL(ENOSPC);
    return real(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at)
{
    REAL(pwrite);
    if (is_full(fd)) FAIL(ENOSPC);
    return real(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at)
{
    REAL(pwrite64);
    if (is_full(fd)) FAIL(ENOSPC);
    return real(fd, bytes, count, at);
}

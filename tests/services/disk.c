/* A disk of the tests, put between a Redis and its append-only file (LD_PRELOAD).
 *
 * KILLICK_DISK names a folder. Every successful fsync or fdatasync of a file *.aof adds a line "<size> <path>" to
 * <folder>/synced: how long the file was when the call began, which is what a power cut would have left of it.
 * While <folder>/full exists, the disk is full: the first write to such a file is cut short, as it is on a real
 * disk, and all that follow fail with ENOSPC.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Fills in the file's path; 0 where it is not an append-only file, or no disk of the tests is wanted. */
static int is_log(int fd, char *path)
{
    char link[64];
    if (getenv("KILLICK_DISK") == NULL) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 4) return 0;
    path[length] = 0;
    return strcmp(path + length - 4, ".aof") == 0;
}

static int is_full(void)
{
    char flag[PATH_MAX];
    snprintf(flag, sizeof flag, "%s/full", getenv("KILLICK_DISK"));
    return access(flag, F_OK) == 0;
}

static void note(const char *path, long long size)
{
    char name[PATH_MAX], line[PATH_MAX + 32];
    snprintf(name, sizeof name, "%s/synced", getenv("KILLICK_DISK"));
    int length = snprintf(line, sizeof line, "%lld %s\n", size, path);
    int fd = open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return;
    syscall(SYS_write, fd, line, (size_t)length);
    close(fd);
}

static int sync_and_note(long call, int fd)
{
    char path[PATH_MAX];
    struct stat before;
    int watched = is_log(fd, path) && fstat(fd, &before) == 0;
    int failed = (int)syscall(call, fd);
    if (watched && !failed) {
        int kept = errno;
        note(path, (long long)before.st_size);
        errno = kept;
    }
    return failed;
}

int fsync(int fd) { return sync_and_note(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_and_note(SYS_fdatasync, fd); }

ssize_t write(int fd, const void *from, size_t size)
{
    static int cut; /* whether the disk has taken its last bytes */
    char path[PATH_MAX];
    int kept = errno;
    int watched = is_log(fd, path);
    int full = watched && is_full();
    errno = kept;
    if (watched && !full) cut = 0;
    if (full && (cut || size < 2)) {
        errno = ENOSPC;
        return -1;
    }
    if (full) {
        cut = 1;
        size /= 2;
    }
    return syscall(SYS_write, fd, from, size);
}

/* What the libraries share that are loaded before the C library: the directory that is meant, and the names by which one call
 * goes. Whoever includes this says `is_on()`, and what `opened`, `renameat2`, `unlinkat` and `mkdirat` do. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static size_t root_length;

static int is_on(void);
static int opened(int dir, const char *path, int flags, mode_t mode);

static void fail(const char *what) {
  dprintf(2, "campaign shim: %s: so the program ends here\n", what);
  _exit(97);
}

static void take_root(const char *dir) {
  root_length = strlen(dir);
  if (root_length >= sizeof root) fail("the directory's path is too long");
  memcpy(root, dir, root_length + 1);
}

/* A file for what is told, out of the way of the program's own. */
static int open_apart(const char *file) {
  int low = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  int apart = fcntl(low, F_DUPFD_CLOEXEC, 900);
  if (apart < 0) fail("the file cannot be opened that is told everything");
  syscall(SYS_close, low);
  return apart;
}

static const char *below_root(const char *whole) {
  return strncmp(whole, root, root_length) || whole[root_length] != '/' ? NULL : whole + root_length + 1;
}

/* The path below the directory, or NULL where it is elsewhere. */
static const char *below(int dir, const char *path, char *whole) {
  if (!is_on()) return NULL;
  if (path[0] == '/') {
    snprintf(whole, PATH_MAX, "%s", path);
  } else {
    char link[64], at[PATH_MAX];
    snprintf(link, sizeof link, dir == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dir);
    ssize_t length = readlink(link, at, sizeof at - 1);
    if (length < 0) return NULL;
    at[length] = 0;
    if (snprintf(whole, PATH_MAX, "%s/%s", at, path) >= PATH_MAX) fail("a path is too long");
  }
  return below_root(whole);
}

static mode_t mode_of(int flags, va_list rest) {
  return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;
}

#define OPEN(name, dir, ...) \
  int name(__VA_ARGS__ const char *path, int flags, ...) { \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = mode_of(flags, rest); \
    va_end(rest); \
    return opened(dir, path, flags, mode); \
  }
OPEN(openat, dir, int dir,)
OPEN(openat64, dir, int dir,)
OPEN(open, AT_FDCWD)
OPEN(open64, AT_FDCWD)
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int renameat2(int dir, const char *path, int other_dir, const char *other, unsigned flags);
int renameat(int dir, const char *path, int other_dir, const char *other) {
  return renameat2(dir, path, other_dir, other, 0);
}
int rename(const char *path, const char *other) { return renameat2(AT_FDCWD, path, AT_FDCWD, other, 0); }
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
  struct stat found;
  return unlinkat(AT_FDCWD, path, !lstat(path, &found) && S_ISDIR(found.st_mode) ? AT_REMOVEDIR : 0);
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) { return pwrite(fd, bytes, length, at); }
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

/* Copies are made by writes then. */
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t length, unsigned flags) {
  (void)from, (void)from_at, (void)to, (void)to_at, (void)length, (void)flags;
  errno = ENOSYS;
  return -1;
}
ssize_t sendfile(int to, int from, off_t *at, size_t length) {
  (void)to, (void)from, (void)at, (void)length;
  errno = ENOSYS;
  return -1;
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t length) { return sendfile(to, from, at, length); }

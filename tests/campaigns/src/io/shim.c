/* Makes one call of a process fail that changes a file below a directory, or makes one durable. Loaded before the C
 * library (LD_PRELOAD), so the program under test is the real one.
 *
 *   CAMPAIGN_ROOT      the directory, without a slash at its end
 *   CAMPAIGN_TOLD      the file that is told what was made to fail, and at the end how many calls there were
 *   CAMPAIGN_FAULT     none, eio, enospc, short, full or sync
 *   CAMPAIGN_FAULT_AT  which call of those that the kind counts, from 1 on
 *
 *   eio, enospc  any change: of bytes, of a length, of names; what removes something fails with EIO
 *   short        a write of bytes: half of them are written, and that is what it returns
 *   full         every change that needs room, from that one on
 *   sync         an fsync or fdatasync fails with EIO, and what was written since the last that succeeded is taken back,
 *                as where the kernel has dropped the pages that it could not write; the next one succeeds
 *
 * Calls are counted and made to fail under one mutex. */
#include "shim.h"

enum fault { NONE, EIO_ONCE, ENOSPC_ONCE, SHORT, FULL, SYNC };
static const char *const names[] = {"none", "eio", "enospc", "short", "full", "sync"};

/* What a write or a truncation replaced. */
struct before {
  struct before *next;
  ino_t inode;
  off_t at, length;
  size_t count;
  char bytes[];
};

static pthread_mutex_t alone = PTHREAD_MUTEX_INITIALIZER;
static int told = -1;
static enum fault fault;
static long fault_at, changes, writes, syncs;
static struct before *unsynced;

static int is_on(void) { return told >= 0; }

static void tell(const char *what, const char *where) {
  char line[PATH_MAX + 128];
  int length = snprintf(line, sizeof line, "%s %s\n", what, where);
  if (told >= 0 && syscall(SYS_write, told, line, length) != length) fail("nobody is told");
}

__attribute__((constructor)) static void begin(void) {
  const char *dir = getenv("CAMPAIGN_ROOT"), *file = getenv("CAMPAIGN_TOLD"), *kind = getenv("CAMPAIGN_FAULT");
  const char *at = getenv("CAMPAIGN_FAULT_AT");
  if (!dir || !file || !kind) return;
  take_root(dir);
  for (size_t n = 0; n < sizeof names / sizeof *names; n++)
    if (!strcmp(kind, names[n])) fault = n;
  fault_at = at ? atol(at) : 0;
  told = open_apart(file);
}

__attribute__((destructor)) static void end(void) {
  if (told < 0) return;
  pthread_mutex_lock(&alone);
  char counts[128];
  snprintf(counts, sizeof counts, "changes %ld\nwrites %ld\nsyncs %ld", changes, writes, syncs);
  tell(counts, "");
  pthread_mutex_unlock(&alone);
}

/* --- what is meant ------------------------------------------------------------------------------------------------- */

/* The path of an open file or directory below the directory, or NULL. */
static const char *meant(int fd, char *whole, struct stat *found) {
  char link[64];
  if (told < 0 || fd <= 2 || fd == told || fstat(fd, found)) return NULL;
  if (!S_ISREG(found->st_mode) && !S_ISDIR(found->st_mode)) return NULL;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, whole, PATH_MAX - 1);
  if (length < 0) return NULL;
  whole[length] = 0;
  return below_root(whole);
}

enum change { GROWS, REPLACES, REMOVES };

/* What a change fails with; 0 where it does not. */
static int due(enum change change, const char *what, const char *where) {
  changes++;
  int is_it = fault == FULL ? changes >= fault_at && change == GROWS : changes == fault_at;
  if (!is_it || (fault != EIO_ONCE && fault != ENOSPC_ONCE && fault != FULL)) return 0;
  int error = fault == EIO_ONCE || change == REMOVES ? EIO : ENOSPC;
  static int is_told;
  char line[64];
  snprintf(line, sizeof line, "failed %s %s", error == EIO ? "EIO" : "ENOSPC", what);
  if (!is_told++) tell(line, where);
  return error;
}

/* --- taking back --------------------------------------------------------------------------------------------------- */

static void remember(int fd, const struct stat *found, off_t at, size_t count) {
  if (fault != SYNC) return;
  size_t there = found->st_size > at ? found->st_size - at : 0;
  count = count < there ? count : there;
  struct before *before = malloc(sizeof *before + count);
  if (!before) fail("no memory");
  *before = (struct before){unsynced, found->st_ino, at, found->st_size, count};
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  int reader = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
  if (reader < 0 || syscall(SYS_pread64, reader, before->bytes, count, at) != (ssize_t)count) fail("a file cannot be read");
  syscall(SYS_close, reader);
  unsynced = before;
}

/* What a file held before, from the last change to the first, or nothing more of it. */
static void forget(int fd, ino_t inode, int take_back) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  int writer = take_back ? syscall(SYS_openat, AT_FDCWD, link, O_WRONLY | O_CLOEXEC) : -1;
  for (struct before **at = &unsynced; *at;) {
    struct before *before = *at;
    if (before->inode != inode) {
      at = &before->next;
      continue;
    }
    if (take_back && writer >= 0) {
      if (syscall(SYS_pwrite64, writer, before->bytes, before->count, before->at) != (ssize_t)before->count ||
          syscall(SYS_ftruncate, writer, before->length))
        fail("a write cannot be taken back");
    }
    *at = before->next;
    free(before);
  }
  if (writer >= 0) syscall(SYS_close, writer);
}

/* --- names --------------------------------------------------------------------------------------------------------- */

static int opened(int dir, const char *path, int flags, mode_t mode) {
  char whole[PATH_MAX];
  const char *name = flags & O_CREAT ? below(dir, path, whole) : NULL;
  if (name) {
    pthread_mutex_lock(&alone);
    struct stat found;
    int is_there = !fstatat(dir, path, &found, 0);
    int error = due(is_there ? REPLACES : GROWS, "open", name);
    pthread_mutex_unlock(&alone);
    if (error) {
      errno = error;
      return -1;
    }
  }
  return syscall(SYS_openat, dir, path, flags, mode);
}

/* Whether a change of names may happen. */
static int may(enum change change, const char *what, int dir, const char *path) {
  char whole[PATH_MAX];
  const char *name = below(dir, path, whole);
  if (!name) return 1;
  pthread_mutex_lock(&alone);
  int error = due(change, what, name);
  pthread_mutex_unlock(&alone);
  if (error) errno = error;
  return !error;
}

int renameat2(int dir, const char *path, int other_dir, const char *other, unsigned flags) {
  return may(REPLACES, "rename", other_dir, other) ? syscall(SYS_renameat2, dir, path, other_dir, other, flags) : -1;
}
int unlinkat(int dir, const char *path, int flags) {
  return may(REMOVES, flags & AT_REMOVEDIR ? "rmdir" : "unlink", dir, path) ? syscall(SYS_unlinkat, dir, path, flags)
                                                                             : -1;
}
int mkdirat(int dir, const char *path, mode_t mode) {
  return may(GROWS, "mkdir", dir, path) ? syscall(SYS_mkdirat, dir, path, mode) : -1;
}

/* --- bytes --------------------------------------------------------------------------------------------------------- */

/* A write at an offset, or at the file's own cursor where that is -1. */
static ssize_t counted_write(int fd, const void *bytes, size_t length, off_t at) {
  char whole[PATH_MAX];
  struct stat found;
  const char *name = meant(fd, whole, &found);
  if (!name) return at < 0 ? syscall(SYS_write, fd, bytes, length) : syscall(SYS_pwrite64, fd, bytes, length, at);
  pthread_mutex_lock(&alone);
  fstat(fd, &found);
  int appends = at < 0 && fcntl(fd, F_GETFL) & O_APPEND;
  off_t begin = at >= 0 ? at : appends ? found.st_size : lseek(fd, 0, SEEK_CUR);
  int grows = begin + (off_t)length > found.st_size;
  int error = due(grows ? GROWS : REPLACES, "write", name);
  writes++;
  if (!error && fault == SHORT && writes == fault_at && length > 1) {
    tell("failed short write", name);
    length /= 2;
  }
  ssize_t written = -1;
  if (!error) {
    remember(fd, &found, begin, length);
    written = at < 0 ? syscall(SYS_write, fd, bytes, length) : syscall(SYS_pwrite64, fd, bytes, length, at);
    error = errno;
  }
  pthread_mutex_unlock(&alone);
  if (written < 0) errno = error;
  return written;
}

ssize_t write(int fd, const void *bytes, size_t length) { return counted_write(fd, bytes, length, -1); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return counted_write(fd, bytes, length, at); }

/* A caller has to go on after a part was written. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
  char whole[PATH_MAX];
  struct stat found;
  if (!meant(fd, whole, &found)) return syscall(SYS_writev, fd, parts, count);
  for (int at = 0; at < count; at++)
    if (parts[at].iov_len) return write(fd, parts[at].iov_base, parts[at].iov_len);
  return 0;
}

int ftruncate(int fd, off_t length) {
  char whole[PATH_MAX];
  struct stat found;
  const char *name = meant(fd, whole, &found);
  if (!name) return syscall(SYS_ftruncate, fd, length);
  pthread_mutex_lock(&alone);
  fstat(fd, &found);
  int error = due(length > found.st_size ? GROWS : REPLACES, "ftruncate", name), result = -1;
  if (!error) {
    remember(fd, &found, length, found.st_size > length ? found.st_size - length : 0);
    result = syscall(SYS_ftruncate, fd, length);
    error = errno;
  }
  pthread_mutex_unlock(&alone);
  if (result) errno = error;
  return result;
}

/* --- durability ---------------------------------------------------------------------------------------------------- */

static int counted_sync(int fd, long call) {
  char whole[PATH_MAX];
  struct stat found;
  const char *name = meant(fd, whole, &found);
  if (!name) return syscall(call, fd);
  pthread_mutex_lock(&alone);
  int is_it = ++syncs == fault_at && fault == SYNC;
  if (is_it) tell("failed EIO fsync", name);
  if (S_ISREG(found.st_mode)) forget(fd, found.st_ino, is_it);
  pthread_mutex_unlock(&alone);
  if (is_it) {
    errno = EIO;
    return -1;
  }
  return syscall(call, fd);
}
int fsync(int fd) { return counted_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return counted_sync(fd, SYS_fdatasync); }

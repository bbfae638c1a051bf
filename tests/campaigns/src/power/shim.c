/* Records every change that a process makes to files below a directory, with what it says on its standard output, in
 * one order. Loaded before the C library (LD_PRELOAD), so the program under test is the real one.
 *
 *   CAMPAIGN_ROOT     the directory, without a slash at its end
 *   CAMPAIGN_TRACE    the file that the records are appended to
 *   CAMPAIGN_KILL_AT  after how many records the process kills itself, or
 *   CAMPAIGN_KILL_AT_NAME  after how many records that change names, or
 *   CAMPAIGN_KILL_AT_PATH  after the first rename to, or making of, a directory or file whose path has this in it
 *
 * A change is made and recorded under one mutex, so the order of records is the order of changes. An fsync has two
 * records, before and after it, and only what was recorded before the first is made durable by the second: it does not
 * hold the mutex. Where the process is killed, it is between two records, so what is recorded is what happened.
 *
 * What the model does not know (links, shared mappings and the like) ends the program: nothing escapes in silence.
 *
 * A record: kind u8, flag u8, u16 zero, lengths of two paths and of the data u32 x 3, inode u64, number u64; then the
 * paths below the directory and the data. All little-endian. */
#include "shim.h"
#include <signal.h>

enum kind { BEGIN, CREATE, TRUNCATE, WRITE, RENAME, UNLINK, MKDIR, RMDIR, SYNC_BEGIN, SYNC_END, SAID };

struct record {
  uint8_t kind, flag;
  uint16_t zero;
  uint32_t path, other, data;
  uint64_t inode, number;
};

static pthread_mutex_t alone = PTHREAD_MUTEX_INITIALIZER;
static dev_t device;
static int trace = -1;
static uint64_t syncs;
static long kill_at, kill_at_name;
static const char *kill_at_path;

static int is_on(void) { return trace >= 0; }

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, #name)

static long number_of(const char *name) {
  const char *value = getenv(name);
  return value ? atol(value) : 0;
}

static void append(enum kind kind, uint8_t flag, uint64_t inode, uint64_t number, const char *path, const char *other,
                   const void *data, size_t length) {
  struct record head = {kind, flag, 0, path ? strlen(path) : 0, other ? strlen(other) : 0, length, inode, number};
  struct iovec parts[4] = {
      {&head, sizeof head}, {(void *)path, head.path}, {(void *)other, head.other}, {(void *)data, length}};
  size_t total = sizeof head + head.path + head.other + length;
  if (syscall(SYS_writev, trace, parts, 4) != (ssize_t)total) fail("the trace cannot be written");
  const char *made = kind == RENAME ? other : kind == MKDIR ? path : NULL;
  if (kill_at_path && made && strstr(made, kill_at_path)) kill(getpid(), SIGKILL);
  int is_name = kind == CREATE || kind == RENAME || kind == UNLINK || kind == MKDIR || kind == RMDIR;
  if ((kill_at && --kill_at == 0) || (is_name && kill_at_name && --kill_at_name == 0)) kill(getpid(), SIGKILL);
}

__attribute__((constructor)) static void begin(void) {
  const char *dir = getenv("CAMPAIGN_ROOT"), *file = getenv("CAMPAIGN_TRACE");
  if (!dir || !file) return;
  take_root(dir);
  struct stat found;
  if (stat(root, &found)) fail("the directory is not there");
  device = found.st_dev;
  trace = open_apart(file);
  kill_at = number_of("CAMPAIGN_KILL_AT");
  kill_at_name = number_of("CAMPAIGN_KILL_AT_NAME");
  kill_at_path = getenv("CAMPAIGN_KILL_AT_PATH");
  append(BEGIN, 0, found.st_ino, 0, NULL, NULL, NULL, 0);
}

/* A process that ends while another of its threads works: what that thread changed has been recorded by now, and it
 * changes nothing more. */
__attribute__((destructor)) static void end(void) {
  if (trace >= 0) pthread_mutex_lock(&alone);
}

/* Whether changes of this file are recorded: those of any on the directory's device; the reader knows which are below. */
static int is_recorded(int fd, struct stat *found) {
  return trace >= 0 && fd > 2 && fd != trace && !fstat(fd, found) && found->st_dev == device;
}

/* --- names --------------------------------------------------------------------------------------------------------- */

static int opened(int dir, const char *path, int flags, mode_t mode) {
  char whole[PATH_MAX];
  const char *name = flags & (O_CREAT | O_TRUNC) ? below(dir, path, whole) : NULL;
  if (!name || (flags & O_TMPFILE) == O_TMPFILE) return syscall(SYS_openat, dir, path, flags, mode);
  pthread_mutex_lock(&alone);
  struct stat before, after;
  int was_there = !fstatat(dir, path, &before, 0);
  int fd = syscall(SYS_openat, dir, path, flags, mode);
  int fault = errno;
  if (fd >= 0 && !fstat(fd, &after)) {
    if (!was_there) append(CREATE, 0, after.st_ino, 0, name, NULL, NULL, 0);
    if (was_there && flags & O_TRUNC && before.st_size) append(TRUNCATE, 0, after.st_ino, 0, NULL, NULL, NULL, 0);
  }
  pthread_mutex_unlock(&alone);
  errno = fault;
  return fd;
}

int renameat2(int dir, const char *path, int other_dir, const char *other, unsigned flags) {
  REAL(renameat2);
  char whole[PATH_MAX], other_whole[PATH_MAX];
  const char *from = below(dir, path, whole), *to = below(other_dir, other, other_whole);
  if (!from && !to) return real(dir, path, other_dir, other, flags);
  if (!from || !to || flags) fail("a rename that leaves the directory, or exchanges");
  pthread_mutex_lock(&alone);
  int result = real(dir, path, other_dir, other, flags);
  int fault = errno;
  if (!result) append(RENAME, 0, 0, 0, from, to, NULL, 0);
  pthread_mutex_unlock(&alone);
  errno = fault;
  return result;
}
int unlinkat(int dir, const char *path, int flags) {
  REAL(unlinkat);
  char whole[PATH_MAX];
  const char *name = below(dir, path, whole);
  if (!name) return real(dir, path, flags);
  pthread_mutex_lock(&alone);
  int result = real(dir, path, flags);
  int fault = errno;
  if (!result) append(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, 0, name, NULL, NULL, 0);
  pthread_mutex_unlock(&alone);
  errno = fault;
  return result;
}
int mkdirat(int dir, const char *path, mode_t mode) {
  REAL(mkdirat);
  char whole[PATH_MAX];
  const char *name = below(dir, path, whole);
  if (!name) return real(dir, path, mode);
  pthread_mutex_lock(&alone);
  struct stat made;
  int result = real(dir, path, mode);
  int fault = errno;
  if (!result && !fstatat(dir, path, &made, 0)) append(MKDIR, 0, made.st_ino, 0, name, NULL, NULL, 0);
  pthread_mutex_unlock(&alone);
  errno = fault;
  return result;
}

/* --- bytes --------------------------------------------------------------------------------------------------------- */

static ssize_t said(int fd, const void *bytes, size_t length) {
  pthread_mutex_lock(&alone);
  ssize_t written = syscall(SYS_write, fd, bytes, length);
  int fault = errno;
  if (written > 0) append(SAID, 0, 0, 0, NULL, NULL, bytes, written);
  pthread_mutex_unlock(&alone);
  errno = fault;
  return written;
}

ssize_t write(int fd, const void *bytes, size_t length) {
  struct stat found;
  if (trace >= 0 && fd == 1) return said(fd, bytes, length);
  if (!is_recorded(fd, &found) || !S_ISREG(found.st_mode)) return syscall(SYS_write, fd, bytes, length);
  pthread_mutex_lock(&alone);
  fstat(fd, &found);
  int appends = fcntl(fd, F_GETFL) & O_APPEND;
  off_t at = appends ? found.st_size : lseek(fd, 0, SEEK_CUR);
  ssize_t written = syscall(SYS_write, fd, bytes, length);
  int fault = errno;
  if (written > 0) append(WRITE, 0, found.st_ino, at, NULL, NULL, bytes, written);
  pthread_mutex_unlock(&alone);
  errno = fault;
  return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
  struct stat found;
  if (!is_recorded(fd, &found)) return syscall(SYS_pwrite64, fd, bytes, length, at);
  pthread_mutex_lock(&alone);
  ssize_t written = syscall(SYS_pwrite64, fd, bytes, length, at);
  int fault = errno;
  if (written > 0) append(WRITE, 0, found.st_ino, at, NULL, NULL, bytes, written);
  pthread_mutex_unlock(&alone);
  errno = fault;
  return written;
}

/* A caller has to go on after a part was written. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
  struct stat found;
  if (!(trace >= 0 && fd == 1) && !is_recorded(fd, &found)) return syscall(SYS_writev, fd, parts, count);
  for (int at = 0; at < count; at++)
    if (parts[at].iov_len) return write(fd, parts[at].iov_base, parts[at].iov_len);
  return 0;
}

int ftruncate(int fd, off_t length) {
  struct stat found;
  if (!is_recorded(fd, &found)) return syscall(SYS_ftruncate, fd, length);
  pthread_mutex_lock(&alone);
  fstat(fd, &found);
  int result = syscall(SYS_ftruncate, fd, length);
  int fault = errno;
  if (!result && found.st_size != length) append(TRUNCATE, 0, found.st_ino, length, NULL, NULL, NULL, 0);
  pthread_mutex_unlock(&alone);
  errno = fault;
  return result;
}

/* --- durability ---------------------------------------------------------------------------------------------------- */

static int synced(int fd, long call, uint8_t data_only) {
  struct stat found;
  if (!is_recorded(fd, &found)) return syscall(call, fd);
  pthread_mutex_lock(&alone);
  uint64_t number = (uint64_t)getpid() << 32 | ++syncs;
  append(SYNC_BEGIN, data_only, found.st_ino, number, NULL, NULL, NULL, 0);
  pthread_mutex_unlock(&alone);
  int result = syscall(call, fd);
  int fault = errno;
  if (!result) {
    pthread_mutex_lock(&alone);
    append(SYNC_END, data_only, found.st_ino, number, NULL, NULL, NULL, 0);
    pthread_mutex_unlock(&alone);
  }
  errno = fault;
  return result;
}
int fsync(int fd) { return synced(fd, SYS_fsync, 0); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync, 1); }

/* --- what is not modelled ------------------------------------------------------------------------------------------ */

ssize_t splice(int from, off64_t *from_at, int to, off64_t *to_at, size_t length, unsigned flags) {
  (void)from, (void)from_at, (void)to, (void)to_at, (void)length, (void)flags;
  errno = EINVAL;
  return -1;
}

#define REFUSED(name, ...) \
  int name(__VA_ARGS__) { \
    fail(#name); \
    return -1; \
  }
REFUSED(truncate, const char *path __attribute__((unused)), off_t length __attribute__((unused)))
REFUSED(truncate64, const char *path __attribute__((unused)), off64_t length __attribute__((unused)))
REFUSED(link, const char *path __attribute__((unused)), const char *other __attribute__((unused)))
REFUSED(symlink, const char *path __attribute__((unused)), const char *other __attribute__((unused)))
REFUSED(linkat, int dir __attribute__((unused)), const char *path __attribute__((unused)),
        int other_dir __attribute__((unused)), const char *other __attribute__((unused)),
        int flags __attribute__((unused)))
REFUSED(fallocate, int fd __attribute__((unused)), int mode __attribute__((unused)), off_t at __attribute__((unused)),
        off_t length __attribute__((unused)))
REFUSED(fallocate64, int fd __attribute__((unused)), int mode __attribute__((unused)),
        off64_t at __attribute__((unused)), off64_t length __attribute__((unused)))
REFUSED(posix_fallocate, int fd __attribute__((unused)), off_t at __attribute__((unused)),
        off_t length __attribute__((unused)))
REFUSED(posix_fallocate64, int fd __attribute__((unused)), off64_t at __attribute__((unused)),
        off64_t length __attribute__((unused)))

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
  (void)fd, (void)parts, (void)count, (void)at;
  fail("pwritev");
  return -1;
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return pwritev(fd, parts, count, at); }

void *mmap(void *where, size_t length, int protection, int flags, int fd, off_t at) {
  struct stat found;
  if (flags & MAP_SHARED && protection & PROT_WRITE && is_recorded(fd, &found)) fail("a shared mapping for writing");
  return (void *)syscall(SYS_mmap, where, length, protection, flags, fd, at);
}
void *mmap64(void *where, size_t length, int protection, int flags, int fd, off64_t at) {
  return mmap(where, length, protection, flags, fd, at);
}

/* Gives a process a clock that is wrong and a disk that is full. Loaded before the C library (LD_PRELOAD), so the program
 * under test is the real one.
 *
 *   CAMPAIGN_MACHINE  a file of two numbers (i64, of this machine's byte order), which may change at any time:
 *                     by how many milliseconds the clock is ahead;
 *                     how many bytes the disk has room for: -1 as many as are wanted; -2 none, not even in place of
 *                     others, as where nothing is written in place (copy on write).
 *
 * As on a disk, bytes take room where a file grows, and give it back where it shrinks or goes. Of a write that finds too
 * little room the first part is written. Standard output and error are on another disk. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct machine {
  _Atomic int64_t ahead_ms, room;
};
static struct machine *machine;

enum { ENOUGH = -1, NOTHING_AT_ALL = -2 };

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("CAMPAIGN_MACHINE");
  int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
  void *mapped = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *machine, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) _exit(98);
  machine = mapped;
  syscall(SYS_close, fd);
}

/* --- the clock ----------------------------------------------------------------------------------------------------- */

static int64_t ahead_ms(void) { return machine ? atomic_load(&machine->ahead_ms) : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
  int result = (int)syscall(SYS_clock_gettime, clock, now);
  if (result || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE && clock != CLOCK_TAI)) return result;
  int64_t ms = ahead_ms(), ns = now->tv_nsec + ms % 1000 * 1000000;
  now->tv_sec += ms / 1000 + (ns < 0 ? -1 : ns / 1000000000);
  now->tv_nsec = ns < 0 ? ns + 1000000000 : ns % 1000000000;
  return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *kept) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (kept) *kept = exact.tv_sec;
  return exact.tv_sec;
}

/* --- the disk ------------------------------------------------------------------------------------------------------ */

static int is_limited(void) { return machine && atomic_load(&machine->room) != ENOUGH; }

static void give_back(int64_t bytes) {
  if (!machine) return;
  int64_t room = atomic_load(&machine->room);
  while (room >= 0 && !atomic_compare_exchange_weak(&machine->room, &room, room + bytes)) continue;
}

/* How many bytes of a write find room, which they take. */
static size_t fitting(int fd, off_t at, size_t length) {
  struct stat found;
  if (fd <= 2 || !is_limited() || fstat(fd, &found) || !S_ISREG(found.st_mode)) return length;
  if (at < 0) at = fcntl(fd, F_GETFL) & O_APPEND ? found.st_size : lseek(fd, 0, SEEK_CUR);
  int64_t within = at < found.st_size ? found.st_size - at : 0;
  int64_t needed = (int64_t)length > within ? (int64_t)length - within : 0;
  int64_t room = atomic_load(&machine->room), taken;
  do {
    if (room == NOTHING_AT_ALL) return 0;
    if (room == ENOUGH) return length;
    taken = needed < room ? needed : room;
  } while (!atomic_compare_exchange_weak(&machine->room, &room, room - taken));
  return length - (size_t)(needed - taken);
}

static int full(void) {
  errno = ENOSPC;
  return -1;
}

ssize_t write(int fd, const void *bytes, size_t length) {
  size_t fits = fitting(fd, -1, length);
  return length && !fits ? full() : syscall(SYS_write, fd, bytes, fits);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
  size_t fits = fitting(fd, at, length);
  return length && !fits ? full() : syscall(SYS_pwrite64, fd, bytes, fits, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) { return pwrite(fd, bytes, length, at); }

/* A caller has to go on after a part was written. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
  if (fd <= 2 || !is_limited()) return syscall(SYS_writev, fd, parts, count);
  for (int at = 0; at < count; at++)
    if (parts[at].iov_len) return write(fd, parts[at].iov_base, parts[at].iov_len);
  return 0;
}

int ftruncate(int fd, off_t length) {
  struct stat found;
  if (fstat(fd, &found)) return -1;
  int result = (int)syscall(SYS_ftruncate, fd, length);
  if (!result && length < found.st_size) give_back(found.st_size - length);
  return result;
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

int fallocate(int fd, int mode, off_t at, off_t length) {
  return is_limited() ? full() : (int)syscall(SYS_fallocate, fd, mode, at, length);
}
int fallocate64(int fd, int mode, off64_t at, off64_t length) { return fallocate(fd, mode, at, length); }

/* How many bytes go with a name. */
static int64_t going(int dir, const char *path) {
  struct stat found;
  int is_there = is_limited() && !fstatat(dir, path, &found, AT_SYMLINK_NOFOLLOW);
  return is_there && S_ISREG(found.st_mode) && found.st_nlink == 1 ? found.st_size : 0;
}

int unlinkat(int dir, const char *path, int flags) {
  int64_t bytes = going(dir, path);
  int result = (int)syscall(SYS_unlinkat, dir, path, flags);
  if (!result) give_back(bytes);
  return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int rename(const char *path, const char *other) {
  int64_t bytes = going(AT_FDCWD, other);
  int result = (int)syscall(SYS_renameat2, AT_FDCWD, path, AT_FDCWD, other, 0);
  if (!result) give_back(bytes);
  return result;
}

/* Copies are made by writes where there is little room. */
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t length, unsigned flags) {
  if (!is_limited()) return syscall(SYS_copy_file_range, from, from_at, to, to_at, length, flags);
  errno = ENOSYS;
  return -1;
}
ssize_t sendfile(int to, int from, off_t *at, size_t length) {
  if (!is_limited()) return syscall(SYS_sendfile, to, from, at, length);
  errno = ENOSYS;
  return -1;
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t length) { return sendfile(to, from, at, length); }

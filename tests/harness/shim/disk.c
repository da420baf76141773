/* Stands between a process and its files: counts syncs, and can make the disk full. Loaded with LD_PRELOAD by the harness, so that
 * it needs neither privileges nor a file system of its own. HEYUAN_DISK_SHIM names a file of two 64-bit numbers that both sides map:
 * the syncs so far, and whether writes fail with ENOSPC. Standard streams and sockets are left alone. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static struct { uint64_t syncs, full; } nowhere, *shared = (void *)&nowhere;

__attribute__((constructor)) static void map_shared(void) {
  const char *path = getenv("HEYUAN_DISK_SHIM");
  int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *page = mmap(0, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (page != MAP_FAILED) shared = page;
  close(file);
}

static int refused(int file) {
  struct stat status;
  if (!__atomic_load_n(&shared->full, __ATOMIC_SEQ_CST) || file <= 2) return 0;
  if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) return 0;
  errno = ENOSPC;
  return 1;
}

static int synced(long result) {
  /* After the call: what a reader of the count sees has reached the disk. */
  __atomic_add_fetch(&shared->syncs, 1, __ATOMIC_SEQ_CST);
  return (int)result;
}

int fsync(int file) { return synced(syscall(SYS_fsync, file)); }
int fdatasync(int file) { return synced(syscall(SYS_fdatasync, file)); }

ssize_t write(int file, const void *bytes, size_t length) {
  return refused(file) ? -1 : syscall(SYS_write, file, bytes, length);
}
ssize_t writev(int file, const struct iovec *pieces, int count) {
  return refused(file) ? -1 : syscall(SYS_writev, file, pieces, count);
}
ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset) {
  return refused(file) ? -1 : syscall(SYS_pwrite64, file, bytes, length, offset);
}
ssize_t pwrite(int file, const void *bytes, size_t length, off_t offset) {
  return refused(file) ? -1 : syscall(SYS_pwrite64, file, bytes, length, offset);
}

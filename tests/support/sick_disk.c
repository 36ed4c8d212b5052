/* To be put before the C library by LD_PRELOAD: reads and writes of some files take long, or do not end, as on a sick disk.
 *
 *   SICK_DISK_PATH    part of the path of the files that are sick
 *   SICK_DISK_CALLS   which calls on them: read, write, sync, or several, separated by commas
 *   SICK_DISK_WHILE   only as long as this file exists
 *   SICK_DISK_BYTES   only calls on so many bytes or more
 *   SICK_DISK_MS      how much longer each takes; without it, it ends when SICK_DISK_WHILE is gone
 *   SICK_DISK_RANK    only in this rank of mpirun or srun
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static void sleep_ms(long ms) {
  const struct timespec duration = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&duration, NULL);
}

static int is_sick(int descriptor, const char* call, size_t size_bytes) {
  const char* path = getenv("SICK_DISK_PATH");
  const char* calls = getenv("SICK_DISK_CALLS");
  const char* only_while = getenv("SICK_DISK_WHILE");
  const char* only_rank = getenv("SICK_DISK_RANK");
  if (path == NULL || calls == NULL || only_while == NULL || strstr(calls, call) == NULL) return 0;
  const char* least_bytes = getenv("SICK_DISK_BYTES");
  if (least_bytes != NULL && size_bytes < strtoul(least_bytes, NULL, 10)) return 0;
  if (only_rank != NULL) {
    const char* rank = getenv("OMPI_COMM_WORLD_RANK");
    if (rank == NULL) rank = getenv("PMIX_RANK");
    if (rank == NULL || strcmp(rank, only_rank) != 0) return 0;
  }
  char link[64];
  char target[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, target, sizeof target - 1);
  if (length < 0) return 0;
  target[length] = 0;
  return strstr(target, path) != NULL && access(only_while, F_OK) == 0;
}

static void suffer(int descriptor, const char* call, size_t size_bytes) {
  if (!is_sick(descriptor, call, size_bytes)) return;
  const char* ms = getenv("SICK_DISK_MS");
  if (ms != NULL) {
    sleep_ms(atol(ms));
  } else {
    while (access(getenv("SICK_DISK_WHILE"), F_OK) == 0) sleep_ms(10);
  }
}

typedef ssize_t (*Read)(int, void*, size_t, off_t);
typedef ssize_t (*Write)(int, const void*, size_t, off_t);
typedef int (*Sync)(int);

/* off_t has 64 bits on the systems that this is built for, so both names are one call. */
ssize_t pread(int descriptor, void* buffer, size_t size_bytes, off_t offset) {
  suffer(descriptor, "read", size_bytes);
  return ((Read)dlsym(RTLD_NEXT, "pread"))(descriptor, buffer, size_bytes, offset);
}
ssize_t pread64(int descriptor, void* buffer, size_t size_bytes, off_t offset) { return pread(descriptor, buffer, size_bytes, offset); }

ssize_t pwrite(int descriptor, const void* bytes, size_t size_bytes, off_t offset) {
  suffer(descriptor, "write", size_bytes);
  return ((Write)dlsym(RTLD_NEXT, "pwrite"))(descriptor, bytes, size_bytes, offset);
}
ssize_t pwrite64(int descriptor, const void* bytes, size_t size_bytes, off_t offset) {
  return pwrite(descriptor, bytes, size_bytes, offset);
}

int fdatasync(int descriptor) {
  suffer(descriptor, "sync", 0);
  return ((Sync)dlsym(RTLD_NEXT, "fdatasync"))(descriptor);
}

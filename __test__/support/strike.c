/*
 * Loaded into a process before libc (LD_PRELOAD): sees everything that it does to files below STRIKE_BELOW, numbered from
 * 1, and ends it with SIGKILL at number STRIKE_AT. A write has two numbers, before it and after half of it. Each is
 * noted in STRIKE_LOG, if that is set. The trainer's thread reads STRIKE_MEMINFO for /proc/meminfo, if that is set.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long count = 0;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_below(const char *path) {
  const char *below = getenv("STRIKE_BELOW");
  return below != NULL && path != NULL && strstr(path, below) != NULL;
}

static int is_fd_below(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return is_below(path);
}

static void point(const char *what) {
  pthread_mutex_lock(&lock);
  count++;
  const char *log = getenv("STRIKE_LOG"), *at = getenv("STRIKE_AT");
  if (log != NULL) {
    int fd = REAL(open)(log, O_WRONLY | O_APPEND | O_CREAT, 0644);
    dprintf(fd, "%ld %s\n", count, what);
    close(fd);
  }
  if (at != NULL && atol(at) == count) kill(getpid(), SIGKILL);
  pthread_mutex_unlock(&lock);
}

/* Another file for /proc/meminfo, but only for the thread that copies what is saved. */
static const char *answered(const char *path) {
  const char *meminfo = getenv("STRIKE_MEMINFO");
  char thread[16] = "";
  if (meminfo == NULL || path == NULL || strcmp(path, "/proc/meminfo") != 0) return path;
  pthread_getname_np(pthread_self(), thread, sizeof thread);
  return strcmp(thread, "trainer") == 0 ? meminfo : path;
}

#define OPEN(name)                                                    \
  int name(const char *path, int flags, ...) {                        \
    mode_t mode = 0;                                                  \
    if (flags & O_CREAT) {                                            \
      va_list rest;                                                   \
      va_start(rest, flags);                                          \
      mode = va_arg(rest, mode_t);                                    \
      va_end(rest);                                                   \
    }                                                                 \
    if ((flags & O_CREAT) && is_below(path)) point("create");         \
    return REAL(name)(answered(path), flags, mode);                   \
  }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *bytes, size_t length) {
  if (!is_fd_below(fd)) return REAL(write)(fd, bytes, length);
  point("write");
  if (length < 2) return REAL(write)(fd, bytes, length);
  ssize_t first = REAL(write)(fd, bytes, length / 2);
  if (first < 0) return first;
  point("half of a write");
  ssize_t rest = REAL(write)(fd, (const char *)bytes + first, length - first);
  return rest < 0 ? rest : first + rest;
}

#define ON_FD(type, name, what, parameters, ...)    \
  type name parameters {                            \
    if (is_fd_below(fd)) point(what);               \
    return REAL(name)(__VA_ARGS__);                 \
  }
ON_FD(int, fsync, "sync", (int fd), fd)
ON_FD(int, fdatasync, "sync", (int fd), fd)
ON_FD(int, ftruncate, "truncate", (int fd, off_t length), fd, length)
ON_FD(ssize_t, pwrite, "write", (int fd, const void *bytes, size_t length, off_t at), fd, bytes, length, at)
ON_FD(ssize_t, pwrite64, "write", (int fd, const void *bytes, size_t length, off64_t at), fd, bytes, length, at)
ON_FD(ssize_t, writev, "write", (int fd, const struct iovec *parts, int n), fd, parts, n)

#define ON_PATH(name, what, parameters, ...)  \
  int name parameters {                       \
    if (is_below(path)) point(what);          \
    return REAL(name)(__VA_ARGS__);           \
  }
ON_PATH(mkdir, "make a directory", (const char *path, mode_t mode), path, mode)
ON_PATH(rename, "rename", (const char *path, const char *to), path, to)
ON_PATH(unlink, "delete", (const char *path), path)
ON_PATH(rmdir, "delete a directory", (const char *path), path)

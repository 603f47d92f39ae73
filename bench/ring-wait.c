/*
 * Lets the other threads run while one waits in io_uring_enter under valgrind.
 *
 * Valgrind runs one thread at a time. Version 3.19 does not know that io_uring_enter may wait, and lets no other thread run
 * meanwhile. Preloaded, this waits with ppoll() instead, of which valgrind knows it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <time.h>

typedef long syscall_fn(long, ...);

long syscall(long number, ...) {
  static syscall_fn *real;
  long arg[6];
  va_list list;

  if (!real)
    real = (syscall_fn *)dlsym(RTLD_NEXT, "syscall");
  va_start(list, number);
  for (int i = 0; i < 6; i++)
    arg[i] = va_arg(list, long);
  va_end(list);
  if (number == SYS_io_uring_enter && arg[2] > 0 && (arg[3] & IORING_ENTER_GETEVENTS)) {
    struct pollfd ring = {.fd = (int)arg[0], .events = POLLIN};
    const struct timespec *timeout = NULL;
    if (arg[3] & IORING_ENTER_EXT_ARG)
      timeout = (const struct timespec *)((const struct io_uring_getevents_arg *)arg[4])->ts;
    long submitted = real(number, arg[0], arg[1], 0L, arg[3], arg[4], arg[5]);
    if (submitted >= 0 && ppoll(&ring, 1, timeout, NULL) == 0) {
      errno = ETIME;
      return -1;
    }
    return submitted;
  }
  return real(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}

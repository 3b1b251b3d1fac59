/* A disk that refuses, in front of a real one: preloaded into a node's process.
 *
 * FAULT_FILE names a file whose first byte decides what happens to regular files from then on: 'w' writes fail with EIO, 's' syncs fail
 * with EIO, 'n' there is no room (ENOSPC) for writes that make a file longer or for reserving space; anything else, nothing. A failed sync
 * is carried out all the same: that nothing is acknowledged after it must not depend on what the disk kept.
 * 'd' syncs, and writes that are synced when they return (the C library submits those), take two seconds; where the file has 16 bytes
 * the last 8 count them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static volatile char *mode;

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("FAULT_FILE");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	if (fd < 0) {
		return;
	}
	void *place = mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	mode = place == MAP_FAILED ? NULL : place;
	close(fd);
}

static int is_file(int fd, off_t *size)
{
	struct stat st;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		return 0;
	}
	*size = st.st_size;
	return 1;
}

static int refused(int fd, char fault, int code)
{
	off_t size;
	if (mode && *mode == fault && is_file(fd, &size)) {
		errno = code;
		return 1;
	}
	return 0;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static ssize_t write_at(int fd, const void *bytes, size_t count, off_t offset)
{
	off_t size;
	if (refused(fd, 'w', EIO)) {
		return -1;
	}
	if (mode && *mode == 'n' && is_file(fd, &size) && offset + (off_t)count > size) {
		errno = ENOSPC;
		return -1;
	}
	return NEXT(pwrite64)(fd, bytes, count, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
	return write_at(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
	return write_at(fd, bytes, count, offset);
}

ssize_t write(int fd, const void *bytes, size_t count)
{
	if (refused(fd, 'w', EIO) || refused(fd, 'n', ENOSPC)) {
		return -1;
	}
	return NEXT(write)(fd, bytes, count);
}

static void delay(int fd)
{
	const struct timespec pause = {2, 0};
	off_t size;
	if (mode && *mode == 'd' && is_file(fd, &size)) {
		__atomic_add_fetch((volatile unsigned long *)(mode + 8), 1, __ATOMIC_RELAXED);
		nanosleep(&pause, NULL);
	}
}

/* What the C library writes goes first without waiting (refused here, as disks do), then from a thread that may wait. */
long syscall(long number, ...)
{
	long arg[6];
	va_list given;
	va_start(given, number);
	for (int i = 0; i < 6; i++) {
		arg[i] = va_arg(given, long);
	}
	va_end(given);
	if (number == SYS_io_submit && mode && *mode == 'd' && arg[1] > 0) {
		const struct iocb *first = ((struct iocb **)arg[2])[0];
		if (first->aio_rw_flags & RWF_NOWAIT) {
			errno = EAGAIN;
			return -1;
		}
		delay((int)first->aio_fildes);
	}
	return NEXT(syscall)(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}

static int sync_file(int fd, int code)
{
	return refused(fd, 's', EIO) ? -1 : code;
}

int fsync(int fd)
{
	delay(fd);
	return sync_file(fd, NEXT(fsync)(fd));
}

int fdatasync(int fd)
{
	delay(fd);
	return sync_file(fd, NEXT(fdatasync)(fd));
}

int fallocate(int fd, int how, off_t offset, off_t count)
{
	return refused(fd, 'n', ENOSPC) ? -1 : NEXT(fallocate)(fd, how, offset, count);
}

int fallocate64(int fd, int how, off64_t offset, off64_t count)
{
	return refused(fd, 'n', ENOSPC) ? -1 : NEXT(fallocate64)(fd, how, offset, count);
}

int posix_fallocate(int fd, off_t offset, off_t count)
{
	return refused(fd, 'n', ENOSPC) ? ENOSPC : NEXT(posix_fallocate)(fd, offset, count);
}

int posix_fallocate64(int fd, off64_t offset, off64_t count)
{
	return refused(fd, 'n', ENOSPC) ? ENOSPC : NEXT(posix_fallocate64)(fd, offset, count);
}

int ftruncate(int fd, off_t size)
{
	off_t now;
	if (mode && *mode == 'n' && is_file(fd, &now) && size > now) {
		errno = ENOSPC;
		return -1;
	}
	return NEXT(ftruncate)(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
	return ftruncate(fd, size);
}

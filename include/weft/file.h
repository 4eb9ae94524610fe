/*
 * Files and directories, by way of the blocking pool.
 *
 * A call goes to a thread of the pool and the task parks meanwhile; what is worth it is done in one such call, and
 * what can be had without waiting (bytes in the page cache, on file systems that tell) on the worker itself. A call
 * that has not begun is removed when the task is cancelled or its deadline passes (-ECANCELED, -ETIMEDOUT); one that
 * has begun is waited for, and its result returned, so that it is known whether the file was renamed.
 *
 * Besides what is listed, all return -errno of the system call; -EAGAIN and -ESHUTDOWN as weft_blocking; -EPERM in a
 * stackless task. For tasks (suspension points), and for threads outside the runtime, which block, unless said
 * otherwise. EINTR is never seen.
 *
 * A weft_file has a position and a buffer for reading on from there. Reading, writing, seeking and copying at the
 * position are for one task at a time (-EBUSY); weft_file_pread, _pwrite, _sync… for any number. Pipes, terminals and
 * sockets are opened non-blocking and read and written through the event loop.
 */
#ifndef WEFT_FILE_H
#define WEFT_FILE_H

#include <sys/stat.h>
#include <sys/types.h>
#include <weft/base.h>

WEFT_BEGIN_DECLS

typedef struct weft_file weft_file;

/* Open, with the flags and mode of open(2); close-on-exec is set. 0 with the file in *file. */
WEFT_API int weft_file_open(weft_file **file, const char *path, int flags, mode_t mode);

/* Close and free it; NULL is allowed. What close(2) says, or 0; the file is gone in any case. Cancellation does not
 * reach it. */
WEFT_API int weft_file_close(weft_file *file);

/* Its descriptor, which stays the file's. Any thread; not a suspension point. */
WEFT_API int weft_file_descriptor(const weft_file *file);

/*
 * Read on at the position: `size` bytes, fewer only at the end (0: at the end) or when an error stopped it, which the
 * next call reports. Of a pipe or the like: at least one byte. Small reads come out of a buffer.
 */
WEFT_API ssize_t weft_file_read(weft_file *file, void *buffer, size_t size);

/*
 * The next line, with its newline unless the file ends without one: its length, with *line pointing into the file's
 * buffer until the next call; 0 at the end. A line of more than `limit` bytes (0: no limit) is -EMSGSIZE and stays to
 * be read by other means. Zero bytes are bytes; there is none behind the line.
 */
WEFT_API ssize_t weft_file_read_line(weft_file *file, char **line, size_t limit);

/* Write at the position, or at the end of a file opened with O_APPEND: `size`, fewer only when an error stopped it,
 * which the next call reports: -ENOSPC… To a pipe or a terminal it is all or an error, after which an unknown part has
 * been written. */
WEFT_API ssize_t weft_file_write(weft_file *file, const void *buffer, size_t size);

/* The same at `offset`, which leaves the position as it is. -ESPIPE if the file has no positions. */
WEFT_API ssize_t weft_file_pread(weft_file *file, void *buffer, size_t size, int64_t offset);
WEFT_API ssize_t weft_file_pwrite(weft_file *file, const void *buffer, size_t size, int64_t offset);

/* Move the position (SEEK_SET, SEEK_CUR, SEEK_END), and return it; -ESPIPE, -EINVAL. */
WEFT_API int64_t weft_file_seek(weft_file *file, int64_t offset, int whence);

/* Bring what was written to the disk; _sync_data without the times. 0. */
WEFT_API int weft_file_sync(weft_file *file);
WEFT_API int weft_file_sync_data(weft_file *file);

/* Make it this long. 0. */
WEFT_API int weft_file_truncate(weft_file *file, int64_t size);

/*
 * Copy up to `count` bytes (-1: all) from the position of one regular file to that of another, inside the kernel where
 * it can be. Returns how many, fewer only at the end. After an error, cancellation included, the positions tell how
 * far it came.
 */
WEFT_API int64_t weft_file_copy(weft_file *from, weft_file *to, int64_t count);

/* ---- by name ---- */

/* What stat(2), lstat(2) and fstat(2) say. 0. */
WEFT_API int weft_file_stat(const char *path, struct stat *status);
WEFT_API int weft_file_stat_link(const char *path, struct stat *status);
WEFT_API int weft_file_stat_open(weft_file *file, struct stat *status);

/* rename(2), unlink(2), mkdir(2), rmdir(2). 0. */
WEFT_API int weft_file_rename(const char *from, const char *to);
WEFT_API int weft_file_unlink(const char *path);
WEFT_API int weft_file_mkdir(const char *path, mode_t mode);
WEFT_API int weft_file_rmdir(const char *path);

/*
 * Read a whole file, in one call to the pool: 0 with *data, for free(3), and a zero byte behind its *size bytes.
 * -EFBIG if it has more than `limit` bytes (0: no limit).
 */
WEFT_API int weft_file_load(const char *path, size_t limit, void **data, size_t *size);

/*
 * Write a whole file, in one call to the pool, so that at every moment, a crash included, the old or the new content is
 * there: to a file beside it, to the disk, renamed. 0; after an error the old one is as it was, unless the disk failed
 * (-EIO) when the new one was there already.
 */
WEFT_API int weft_file_store(const char *path, const void *data, size_t size, mode_t mode);

/* ---- directories ---- */

typedef struct weft_directory weft_directory;

enum { WEFT_DIRECTORY_DEEP = 1u << 0 /* also what lies below, each directory before what it holds */ };

typedef struct weft_directory_entry {
    const char *path; /* with the directory that was opened in front; until the next call */
    const char *name; /* the last part of it */
    mode_t type;      /* S_IFREG, S_IFDIR, S_IFLNK… */
    unsigned depth;   /* 0: in the directory that was opened */
    int error;        /* 0, or -errno: the directory cannot be read; it has come before, without the error */
} weft_directory_entry;

/* Open a directory to list it. 0 with it in *directory. */
WEFT_API int weft_directory_open(weft_directory **directory, const char *path, unsigned flags);

/*
 * The next entry, in no order; not "." and "..". 1, 0 at the end, or -errno, after which the call may be repeated.
 * Symbolic links are not followed. Several hundred entries come with one call to the pool. One task at a time.
 */
WEFT_API int weft_directory_next(weft_directory *directory, weft_directory_entry *entry);

/* Leave out what lies below the directory that came last. Not a suspension point. */
WEFT_API void weft_directory_skip(weft_directory *directory);

/* Any thread; not a suspension point. NULL is allowed. */
WEFT_API void weft_directory_close(weft_directory *directory);

WEFT_END_DECLS

#endif

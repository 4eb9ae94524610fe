/* What is done with files by name (weft/file.h), each in one call to the blocking pool. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* mkostemp */
#endif

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <weft/file.h>

#include "io/pool_call.h"

struct request {
    const char *path;
    const char *other;
    mode_t mode;
    struct stat *status;
};

static int call_with(weft_fn *fn, const char *path, const char *other, mode_t mode, struct stat *status)
{
    struct request request = {path, other, mode, status};

    return path && other ? (int)weft__pool_call(fn, &request) : -EINVAL;
}

static intptr_t stat_it(void *arg)
{
    const struct request *request = arg;

    return stat(request->path, request->status) < 0 ? -errno : 0;
}

static intptr_t stat_the_link(void *arg)
{
    const struct request *request = arg;

    return lstat(request->path, request->status) < 0 ? -errno : 0;
}

static intptr_t rename_it(void *arg)
{
    const struct request *request = arg;

    return rename(request->path, request->other) < 0 ? -errno : 0;
}

static intptr_t unlink_it(void *arg)
{
    return unlink(((const struct request *)arg)->path) < 0 ? -errno : 0;
}

static intptr_t mkdir_it(void *arg)
{
    const struct request *request = arg;

    return mkdir(request->path, request->mode) < 0 ? -errno : 0;
}

static intptr_t rmdir_it(void *arg)
{
    return rmdir(((const struct request *)arg)->path) < 0 ? -errno : 0;
}

int weft_file_stat(const char *path, struct stat *status)
{
    return status ? call_with(stat_it, path, "", 0, status) : -EINVAL;
}

int weft_file_stat_link(const char *path, struct stat *status)
{
    return status ? call_with(stat_the_link, path, "", 0, status) : -EINVAL;
}

int weft_file_rename(const char *from, const char *to)
{
    return call_with(rename_it, from, to, 0, NULL);
}

int weft_file_unlink(const char *path)
{
    return call_with(unlink_it, path, "", 0, NULL);
}

int weft_file_mkdir(const char *path, mode_t mode)
{
    return call_with(mkdir_it, path, "", mode, NULL);
}

int weft_file_rmdir(const char *path)
{
    return call_with(rmdir_it, path, "", 0, NULL);
}

/* ---- a whole file ---- */

enum { LOAD_AT_LEAST = 4096 };

struct loading {
    const char *path;
    size_t limit;
    char *data;
    size_t size;
};

static int open_again(const char *path, int flags, mode_t mode)
{
    int fd;

    do
        fd = open(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

/* One byte more than the limit shows that it is passed, and one is for the zero. */
static size_t capacity_for(size_t size, size_t limit)
{
    return limit && size > limit ? limit + 2 : size + 2;
}

static int grow(struct loading *loading, size_t *capacity, size_t size)
{
    size_t wanted = capacity_for(size, loading->limit);
    char *data;

    if (wanted <= *capacity)
        return 0;
    data = realloc(loading->data, wanted);
    if (!data)
        return -ENOMEM;
    loading->data = data;
    *capacity = wanted;
    return 0;
}

static int read_all(struct loading *loading, int fd, size_t expected)
{
    size_t capacity = 0;
    int rc = grow(loading, &capacity, expected > LOAD_AT_LEAST ? expected : LOAD_AT_LEAST);

    while (rc == 0) {
        ssize_t n = read(fd, loading->data + loading->size, capacity - 1 - loading->size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
        loading->size += (size_t)n;
        if (loading->limit && loading->size > loading->limit)
            return -EFBIG;
        if (loading->size == capacity - 1)
            rc = grow(loading, &capacity, capacity * 2);
    }
    return rc;
}

static intptr_t load_it(void *arg)
{
    struct loading *loading = arg;
    int fd = open_again(loading->path, O_RDONLY, 0), rc;
    struct stat status;

    if (fd < 0)
        return fd;
    rc = fstat(fd, &status) < 0 ? -errno : 0;
    if (rc == 0)
        rc = read_all(loading, fd, (size_t)status.st_size);
    close(fd);
    if (rc == 0) {
        loading->data[loading->size] = '\0';
        return 0;
    }
    free(loading->data);
    return rc;
}

int weft_file_load(const char *path, size_t limit, void **data, size_t *size)
{
    struct loading loading = {path, limit < SIZE_MAX - 2 ? limit : 0, NULL, 0};
    int rc;

    if (!path || !data || !size)
        return -EINVAL;
    rc = (int)weft__pool_call(load_it, &loading);
    *data = rc == 0 ? loading.data : NULL;
    *size = rc == 0 ? loading.size : 0;
    return rc;
}

struct storing {
    const char *path;
    const char *data;
    size_t size;
    mode_t mode;
};

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

/* Its own directory: opened while the old file is still there, so that it stays if that fails. */
static int open_directory_of(const char *path)
{
    char *copy = strdup(path);
    int fd = copy ? open_again(dirname(copy), O_RDONLY | O_DIRECTORY, 0) : -ENOMEM;

    free(copy);
    return fd;
}

static int write_beside(const struct storing *storing, char *beside)
{
    int fd = mkostemp(beside, O_CLOEXEC), rc;

    if (fd < 0)
        return -errno;
    rc = write_all(fd, storing->data, storing->size);
    if (rc == 0 && (fchmod(fd, storing->mode) < 0 || fsync(fd) < 0))
        rc = -errno;
    if (close(fd) < 0 && rc == 0)
        rc = -errno;
    if (rc == 0 && rename(beside, storing->path) < 0)
        rc = -errno;
    if (rc < 0)
        unlink(beside);
    return rc;
}

static intptr_t store_it(void *arg)
{
    const struct storing *storing = arg;
    int directory = open_directory_of(storing->path), rc;
    char *beside;

    if (directory < 0)
        return directory;
    if (asprintf(&beside, "%s.XXXXXX", storing->path) < 0) {
        close(directory);
        return -ENOMEM;
    }
    rc = write_beside(storing, beside);
    free(beside);
    /* So that the new name is on the disk too. Not every file system has that. */
    if (rc == 0 && fsync(directory) < 0 && errno != EINVAL)
        rc = -errno;
    close(directory);
    return rc;
}

int weft_file_store(const char *path, const void *data, size_t size, mode_t mode)
{
    struct storing storing = {path, data, size, mode};

    return path && (data || size == 0) ? (int)weft__pool_call(store_it, &storing) : -EINVAL;
}

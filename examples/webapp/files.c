/*
 * Static files below the root: whole or a range of bytes, and "not modified" for who has them already.
 *
 * What may wait for the disk before the first byte, opening, is done in the blocking pool; the content goes from the page
 * cache to the socket by sendfile. The kernel is told that nothing outside the root may be opened, whatever the name or
 * a symbolic link says (openat2); where it cannot be told, files are opened step by step, and never through a link.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "app.h"

#define OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
#define DATE_FORMAT "%a, %d %b %Y %H:%M:%S GMT"

struct file {
    int root;
    const char *name;
    struct stat status;
};

/* ---- opening; on a thread of the pool ---- */

static int open_stepwise(int root, const char *name)
{
    int directory = dup(root);

    while (directory >= 0) {
        char part[256];
        size_t length = strcspn(name, "/");
        bool is_last = name[length] == '\0';
        int next = -1;

        errno = ENOENT;
        if (length > 0 && length < sizeof part) {
            snprintf(part, sizeof part, "%.*s", (int)length, name);
            errno = EACCES;
            if (strcmp(part, "..") != 0)
                next =
                    openat(directory, part, (is_last ? OPEN_FLAGS : O_PATH | O_DIRECTORY | O_CLOEXEC) | O_NOFOLLOW);
        }
        close(directory);
        if (next < 0)
            break;
        if (is_last)
            return next;
        directory = next;
        name += length + 1;
    }
    return -errno;
}

static int open_beneath(int root, const char *name)
{
    struct open_how how = {.flags = OPEN_FLAGS, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    long fd;

    do
        fd = syscall(SYS_openat2, root, name, &how, sizeof how);
    while (fd < 0 && (errno == EAGAIN || errno == EINTR)); /* something on the way was being renamed */
    if (fd < 0 && (errno == ENOSYS || errno == EPERM))
        return open_stepwise(root, name);
    return fd < 0 ? -errno : (int)fd;
}

static intptr_t open_it(void *arg)
{
    struct file *file = arg;
    int fd = open_beneath(file->root, file->name);

    if (fd >= 0 && (fstat(fd, &file->status) < 0 || !S_ISREG(file->status.st_mode))) {
        close(fd);
        fd = -EACCES;
    }
    switch (fd) {
    case -EXDEV: /* beyond the root */
    case -ELOOP:
    case -ENXIO:
        return -EACCES;
    case -ENOTDIR:
    case -ENAMETOOLONG:
        return -ENOENT;
    default:
        return fd;
    }
}

/* ---- what is wanted of it ---- */

static bool is_unmodified(const struct http_request *request, const struct file *file)
{
    const char *since = http_header(request, "If-Modified-Since");
    struct tm parts = {0};

    return since && strptime(since, DATE_FORMAT, &parts) && file->status.st_mtime <= timegm(&parts);
}

/* Digits; what follows them, or NULL if there are none, or too many. */
static const char *parse_number(const char *text, off_t *value)
{
    char *rest;

    if (*text < '0' || *text > '9')
        return NULL;
    errno = 0;
    *value = strtoll(text, &rest, 10);
    return errno == 0 ? rest : NULL;
}

/*
 * "bytes=first-last", "bytes=first-" or "bytes=-count". 1 and the range, 0 if all of it is to be sent (several ranges at
 * once are not worth the trouble), -ERANGE if nothing is there.
 */
static int find_range(const char *text, off_t size, off_t *first, off_t *end)
{
    off_t from = 0, last = 0;
    bool is_open = false;

    if (text == NULL || strncmp(text, "bytes=", 6) != 0)
        return 0;
    text += 6;
    if (*text == '-') {
        text = parse_number(text + 1, &last);
        from = last < size ? size - last : 0;
        is_open = true;
    } else {
        text = parse_number(text, &from);
        if (text == NULL || *text != '-')
            return 0;
        is_open = text[1] == '\0';
        text = is_open ? text + 1 : parse_number(text + 1, &last);
    }
    if (text == NULL || *text || (!is_open && last < from))
        return 0;
    *first = from;
    *end = is_open || last >= size ? size : last + 1;
    return from < size ? 1 : -ERANGE;
}

static const char *type_of(const char *name)
{
    static const char *const types[][2] = {
        {".html", "text/html"},        {".txt", "text/plain"},    {".css", "text/css"},  {".js", "text/javascript"},
        {".json", "application/json"}, {".svg", "image/svg+xml"}, {".png", "image/png"}, {".jpg", "image/jpeg"},
    };
    const char *dot = strrchr(name, '.');

    for (size_t i = 0; dot && i < sizeof types / sizeof *types; i++)
        if (strcmp(dot, types[i][0]) == 0)
            return types[i][1];
    return "application/octet-stream";
}

/* ---- sending ---- */

static int send_part(struct http_request *request, int fd, off_t first, off_t end)
{
    int rc = weft_stream_flush(request->stream); /* what has been written goes before */
    ssize_t n = 0;

    while (rc == 0 && first < end &&
           (n = weft_sendfile(weft_stream_fd(request->stream), fd, &first, (size_t)(end - first), 0)) > 0)
        ;
    return rc < 0 ? rc : n < 0 ? (int)n : first < end ? -EIO : 0; /* shorter than promised: only closing tells */
}

/* What is to be sent of it: the status, with the range and what the client is to know about that. */
static int choose(const struct http_request *request, const struct file *file, const char *date, off_t *first,
                  off_t *end, char *note, size_t note_size)
{
    const char *same = http_header(request, "If-Range"), *range = http_header(request, "Range");
    off_t size = file->status.st_size;
    int found;

    *first = *end = 0;
    note[0] = '\0';
    if (is_unmodified(request, file))
        return HTTP_STATUS_NOT_MODIFIED;
    *end = size;
    found = find_range(same && strcmp(same, date) != 0 ? NULL : range, size, first, end);
    if (found == 0)
        return HTTP_STATUS_OK;
    if (found < 0) {
        *first = *end = 0;
        snprintf(note, note_size, "Content-Range: bytes */%lld\r\n", (long long)size);
        return HTTP_STATUS_RANGE_NOT_SATISFIABLE;
    }
    snprintf(note, note_size, "Content-Range: bytes %lld-%lld/%lld\r\n", (long long)*first, (long long)*end - 1,
             (long long)size);
    return HTTP_STATUS_PARTIAL_CONTENT;
}

static intptr_t answer(struct http_request *request, const struct file *file, int fd)
{
    char date[40], extra[256], note[100];
    struct tm parts;
    off_t first, end;
    int rc, status;

    strftime(date, sizeof date, DATE_FORMAT, gmtime_r(&file->status.st_mtime, &parts));
    status = choose(request, file, date, &first, &end, note, sizeof note);
    snprintf(extra, sizeof extra, "Last-Modified: %s\r\nAccept-Ranges: bytes\r\n%s", date, note);
    rc = http_respond_head(request, status, type_of(file->name), extra, end - first);
    return rc == 0 && request->method != HTTP_HEAD ? send_part(request, fd, first, end) : rc;
}

intptr_t serve_file(struct http_request *request, struct app *app)
{
    struct file file = {.root = app->root, .name = request->path + 1};
    intptr_t fd, rc;

    if (app->root < 0)
        return -ENOENT;
    if (!*file.name)
        file.name = "index.html";
    fd = weft_blocking(open_it, &file);
    if (fd < 0)
        return fd;
    rc = answer(request, &file, (int)fd);
    close((int)fd);
    return rc;
}

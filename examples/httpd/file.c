/*
 * Files below the server's root, opened and read by the blocking pool: a disk cannot be waited for with epoll.
 *
 * One trip to the pool opens the file and reads its first chunk, so a small file costs one trip; each further
 * chunk costs another. The job lives in the handler's frame, which weft_blocking allows: it returns only when
 * the job has ended or will never start.
 */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <weft.h>

#include "connection.h"
#include "routes.h"
#include "server.h"

/* Large enough that a trip to the pool (some 10 µs) is small beside the copying. */
#define CHUNK_SIZE 65536

/* A queue that stays full in the middle of a file: give up after so many pauses. */
#define REFUSALS_LIMIT 500
#define REFUSAL_PAUSE WEFT_MS(10)

#define OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)

struct file_job {
    struct server *server;
    const char *name;
    char *chunk;
    int fd;
    uint64_t size;
    uint64_t offset; /* where the chunk begins */
};

/* ---- opening; on a pool thread ---- */

/* For kernels without openat2: step by step, never through a link or "..". */
static int open_stepwise(int root, const char *name)
{
    char part[256];
    int directory = dup(root);
    if (directory < 0)
        return -errno;
    for (;;) {
        size_t length = strcspn(name, "/");
        bool final = name[length] == '\0';
        int next = -EACCES;
        if (length >= sizeof(part)) {
            next = -ENOENT;
        } else {
            memcpy(part, name, length);
            part[length] = '\0';
            if (strcmp(part, "..") != 0 && length > 0) {
                int flags = final ? OPEN_FLAGS : O_PATH | O_DIRECTORY | O_CLOEXEC;
                next = openat(directory, part, flags | O_NOFOLLOW);
                if (next < 0)
                    next = -errno;
            }
        }
        close(directory);
        if (next < 0 || final)
            return next;
        directory = next;
        name += length + 1;
    }
}

static int open_resolved(int root, const char *name)
{
    struct open_how how = {.flags = OPEN_FLAGS, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    for (int tries = 0; tries < 10; tries++) {
        long fd = syscall(SYS_openat2, root, name, &how, sizeof(how));
        if (fd >= 0)
            return (int)fd;
        /* EAGAIN: something was renamed meanwhile and the kernel cannot vouch for the way. */
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
    }
    return -EACCES;
}

static int open_any(int root, const char *name)
{
    int fd = open_resolved(root, name);
    /* EPERM: a sandbox that does not know the call. */
    return fd == -ENOSYS || fd == -EPERM ? open_stepwise(root, name) : fd;
}

static int is_regular(int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    return S_ISREG(status.st_mode) ? 0 : -EACCES;
}

int file_open_beneath(int root, const char *name)
{
    int fd = name[0] == '/' ? -EACCES : open_any(root, name);
    if (fd == -EXDEV || fd == -ELOOP || fd == -EPERM || fd == -ENXIO)
        return -EACCES;
    if (fd == -ENOTDIR || fd == -ENAMETOOLONG)
        return -ENOENT;
    if (fd < 0)
        return fd;
    int error = is_regular(fd);
    if (error == 0)
        return fd;
    close(fd);
    return error;
}

static ssize_t read_chunk(const struct file_job *job)
{
    uint64_t left = job->size - job->offset;
    size_t wanted = left < CHUNK_SIZE ? (size_t)left : CHUNK_SIZE;
    size_t done = 0;
    while (done < wanted) {
        ssize_t n = pread(job->fd, job->chunk + done, wanted - done, (off_t)(job->offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO; /* the file has become shorter than what was promised */
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static intptr_t read_job(void *arg)
{
    return read_chunk(arg);
}

static intptr_t open_job(void *arg)
{
    struct file_job *job = arg;
    struct stat status;
    job->fd = file_open_beneath(job->server->root, job->name);
    if (job->fd < 0)
        return job->fd;
    if (fstat(job->fd, &status) != 0)
        return -errno;
    job->size = (uint64_t)status.st_size;
    return read_chunk(job);
}

/* ---- answering; on the connection's task ---- */

static const char *type_of(const char *name)
{
    static const char *const types[][2] = {
        {".html", "text/html"},        {".txt", "text/plain"},    {".css", "text/css"},  {".js", "text/javascript"},
        {".json", "application/json"}, {".svg", "image/svg+xml"}, {".png", "image/png"}, {".jpg", "image/jpeg"},
    };
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot != NULL && i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(dot, types[i][0]) == 0)
            return types[i][1];
    }
    return "application/octet-stream";
}

static void respond_error(struct connection *connection, intptr_t error)
{
    int status = HTTP_STATUS_INTERNAL_SERVER_ERROR;
    if (error == -EAGAIN) {
        routes_refuse_busy(connection);
        return;
    }
    if (error == -ECANCELED || error == -ESHUTDOWN) {
        connection_abort(connection);
        return;
    }
    if (error == -ENOENT)
        status = HTTP_STATUS_NOT_FOUND;
    else if (error == -EACCES)
        status = HTTP_STATUS_FORBIDDEN;
    else if (error == -EMFILE || error == -ENFILE || error == -ENOMEM)
        status = HTTP_STATUS_SERVICE_UNAVAILABLE;
    const char *text = http_status_str((enum http_status)status);
    connection_respond(connection, status, "", text, strlen(text));
}

/* The head is out already, so a full queue cannot be answered any more: wait for room instead. */
static intptr_t read_next(struct file_job *job)
{
    intptr_t n = weft_blocking(read_job, job);
    for (int refusals = 0; n == -EAGAIN && refusals < REFUSALS_LIMIT; refusals++) {
        int error = weft_sleep(REFUSAL_PAUSE);
        n = error != 0 ? error : weft_blocking(read_job, job);
    }
    return n;
}

static void send_content(struct connection *connection, struct file_job *job, intptr_t n)
{
    for (;;) {
        if (n < 0) {
            /* Less than was promised: only closing tells the client. What was collected still goes out. */
            connection_flush(connection);
            connection_abort(connection);
            return;
        }
        if (connection_send(connection, job->chunk, (size_t)n) != 0)
            return;
        job->offset += (uint64_t)n;
        if (job->offset == job->size)
            return;
        n = read_next(job);
    }
}

static void serve_job(struct connection *connection, struct file_job *job)
{
    intptr_t n = weft_blocking(open_job, job);
    if (n < 0) {
        respond_error(connection, n);
    } else {
        connection_respond_head(connection, HTTP_STATUS_OK, type_of(job->name), "", job->size);
        if (connection->parser.method != HTTP_HEAD)
            send_content(connection, job, n);
    }
    if (job->fd >= 0)
        close(job->fd);
}

void file_serve(struct connection *connection, const char *query)
{
    struct file_job job = {.server = connection->server, .fd = -1};
    char *memory = malloc(OPTIONS_URL_LIMIT + CHUNK_SIZE);
    if (memory == NULL) {
        respond_error(connection, -ENOMEM);
        return;
    }
    job.name = memory;
    job.chunk = memory + OPTIONS_URL_LIMIT;
    int found = routes_query(query, "name", memory, OPTIONS_URL_LIMIT);
    if (found <= 0 || memory[0] == '\0') {
        static const char text[] = "name must be a file's name\n";
        server_count(&connection->server->totals.bad_requests);
        connection_respond(connection, HTTP_STATUS_BAD_REQUEST, "", text, strlen(text));
    } else if (job.server->root < 0) {
        respond_error(connection, -ENOENT);
    } else if (connection_flush(connection) == 0) {
        serve_job(connection, &job);
    }
    free(memory);
}

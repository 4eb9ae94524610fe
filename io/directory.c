/*
 * Listing directories (weft/file.h). One task at a time.
 *
 * A directory that is being listed is a level: its descriptor and a buffer of entries as the kernel gives them
 * (getdents64). Opening one and filling its buffer is one call to the blocking pool, and for most directories the only
 * one. The levels form a stack; the one on top is listed until it is exhausted, or a directory in it is entered.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <weft/file.h>

#include "io/pool_call.h"

enum {
    ENTRIES = 16 << 10,  /* bytes of entries: some 400 of them */
    ONE_ENTRY = 1 << 10, /* as long as one may be, and more */
};

struct level {
    int fd;
    bool is_read; /* the kernel has no more */
    unsigned at, end;
    size_t path_length; /* with the slash at its end */
    char entries[ENTRIES] __attribute__((aligned(8)));
};

/* As the kernel writes them. */
struct kernel_entry {
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

struct weft_directory {
    unsigned flags;
    bool enters; /* the entry that came last is a directory whose turn is next */
    struct level **levels;
    unsigned depth; /* how many there are */
    unsigned capacity;
    char *path;
    size_t path_capacity;
    size_t name_at; /* where in it the name of the entry that came last begins */
};

/* ---- in the pool ---- */

struct reading {
    struct level *level;
    int parent;
    const char *name; /* to be opened; NULL: the level is open */
};

static int fill(struct level *level)
{
    level->at = level->end = 0;
    while (!level->is_read && level->end <= ENTRIES - ONE_ENTRY) {
        long n = syscall(SYS_getdents64, level->fd, level->entries + level->end, ENTRIES - level->end);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return level->end > 0 ? 0 : -errno;
        level->is_read = n == 0;
        level->end += (unsigned)n;
    }
    return 0;
}

static intptr_t read_level(void *arg)
{
    struct reading *reading = arg;
    struct level *level = reading->level;
    int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | (reading->parent == AT_FDCWD ? 0 : O_NOFOLLOW);

    while (level->fd < 0) {
        level->fd = openat(reading->parent, reading->name, flags);
        if (level->fd < 0 && errno != EINTR)
            return -errno;
    }
    return fill(level);
}

struct asking {
    int fd;
    const char *name;
    mode_t type;
};

static intptr_t ask_for_type(void *arg)
{
    struct asking *asking = arg;
    struct stat status;

    if (fstatat(asking->fd, asking->name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    asking->type = status.st_mode & S_IFMT;
    return 0;
}

/* ---- the stack of levels ---- */

static struct level *top_of(const weft_directory *directory)
{
    return directory->levels[directory->depth - 1];
}

static void free_level(struct level *level)
{
    if (level->fd >= 0)
        close(level->fd);
    free(level);
}

static int make_room(weft_directory *directory)
{
    unsigned capacity = directory->capacity ? directory->capacity * 2 : 8;
    struct level **levels;

    if (directory->depth < directory->capacity)
        return 0;
    levels = realloc(directory->levels, capacity * sizeof *levels);
    if (!levels)
        return -ENOMEM;
    directory->levels = levels;
    directory->capacity = capacity;
    return 0;
}

/* Open the directory `name`, whose path is the first `path_length` bytes of the path, and put it on top. */
static int enter(weft_directory *directory, int parent, const char *name, size_t path_length)
{
    struct reading reading = {NULL, parent, name};
    struct level *level;
    int rc = make_room(directory);

    if (rc < 0)
        return rc;
    level = malloc(sizeof *level);
    if (!level)
        return -ENOMEM;
    level->fd = -1;
    level->is_read = false;
    level->path_length = path_length;
    reading.level = level;
    rc = (int)weft__pool_call(read_level, &reading);
    if (rc < 0)
        free_level(level);
    else
        directory->levels[directory->depth++] = level;
    return rc;
}

/* ---- the path ---- */

/* "…/name", with room for one more slash. */
static int set_name(weft_directory *directory, size_t at, const char *name)
{
    size_t length = strlen(name);

    if (at + length + 2 > directory->path_capacity) {
        size_t capacity = (at + length + 2) * 2;
        char *path = realloc(directory->path, capacity);

        if (!path)
            return -ENOMEM;
        directory->path = path;
        directory->path_capacity = capacity;
    }
    memcpy(directory->path + at, name, length + 1);
    directory->name_at = at;
    return 0;
}

int weft_directory_open(weft_directory **result, const char *path, unsigned flags)
{
    weft_directory *directory;
    size_t length;
    int rc;

    if (!result || !path || (flags & ~(unsigned)WEFT_DIRECTORY_DEEP))
        return -EINVAL;
    *result = NULL;
    directory = calloc(1, sizeof *directory);
    if (!directory)
        return -ENOMEM;
    directory->flags = flags;
    length = strlen(path);
    rc = set_name(directory, 0, path);
    if (rc == 0 && length > 0 && path[length - 1] != '/')
        strcpy(directory->path + length++, "/");
    if (rc == 0)
        rc = enter(directory, AT_FDCWD, path, length);
    if (rc < 0)
        weft_directory_close(directory);
    else
        *result = directory;
    return rc;
}

void weft_directory_close(weft_directory *directory)
{
    if (!directory)
        return;
    while (directory->depth > 0)
        free_level(directory->levels[--directory->depth]);
    free(directory->levels);
    free(directory->path);
    free(directory);
}

/* ---- the next entry ---- */

static int type_of(const struct level *level, const struct kernel_entry *raw, mode_t *type)
{
    struct asking asking = {level->fd, raw->name, 0};
    int rc = 0;

    if (raw->type != DT_UNKNOWN) {
        *type = DTTOIF(raw->type);
        return 0;
    }
    rc = (int)weft__pool_call(ask_for_type, &asking);
    *type = asking.type;
    return rc;
}

static bool is_dots(const char *name)
{
    return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* Reasons of the caller, after which it may come again; all others are the directory's. */
static bool is_callers(int rc)
{
    return rc == -ECANCELED || rc == -ETIMEDOUT || rc == -ENOMEM || rc == -EAGAIN || rc == -ESHUTDOWN;
}

/* 1: an entry, 0: this one is to be left out. The entry is passed unless this fails. */
static int show(weft_directory *directory, struct level *level, weft_directory_entry *entry)
{
    const struct kernel_entry *raw = (const struct kernel_entry *)(const void *)(level->entries + level->at);
    mode_t type = 0;
    int rc;

    if (is_dots(raw->name)) {
        level->at += raw->length;
        return 0;
    }
    rc = type_of(level, raw, &type);
    if (rc == -ENOENT) { /* it was, when the directory was read */
        level->at += raw->length;
        return 0;
    }
    if (rc < 0 && is_callers(rc))
        return rc;
    if (rc < 0) /* the directory may be listed, but not what is in it: the name is all there is to know */
        type = 0;
    rc = set_name(directory, level->path_length, raw->name);
    if (rc < 0)
        return rc;
    level->at += raw->length;
    *entry = (weft_directory_entry){
        directory->path, directory->path + directory->name_at, type, directory->depth - 1, 0,
    };
    directory->enters = S_ISDIR(type) && (directory->flags & WEFT_DIRECTORY_DEEP);
    return 1;
}

/* Go into the entry that came last. 1: it cannot be read, which is told. */
static int go_down(weft_directory *directory, weft_directory_entry *entry)
{
    struct level *level = top_of(directory);
    size_t name_at = directory->name_at;
    size_t length = name_at + strlen(directory->path + name_at);
    int rc = enter(directory, level->fd, directory->path + name_at, length + 1);

    if (is_callers(rc))
        return rc;
    directory->enters = false;
    if (rc == 0) {
        strcpy(directory->path + length, "/");
        return 0;
    }
    if (rc == -ENOENT || rc == -ENOTDIR || rc == -ELOOP) /* it is one no longer */
        return 0;
    *entry = (weft_directory_entry){directory->path, directory->path + name_at, S_IFDIR, directory->depth - 1, rc};
    return 1;
}

/* The level on top has nothing left in its buffer. */
static int go_on(weft_directory *directory)
{
    struct level *level = top_of(directory);
    struct reading reading = {level, -1, NULL};
    int rc = level->is_read ? -ENOENT : (int)weft__pool_call(read_level, &reading);

    /* One that was removed meanwhile holds nothing any more. */
    if (rc != -ENOENT)
        return rc;
    free_level(level);
    directory->depth--;
    return 0;
}

int weft_directory_next(weft_directory *directory, weft_directory_entry *entry)
{
    int rc;

    if (!directory || !entry)
        return -EINVAL;
    rc = weft__suspend_check();
    while (rc == 0 && directory->depth > 0) {
        struct level *level = top_of(directory);

        if (directory->enters)
            rc = go_down(directory, entry);
        else if (level->at < level->end)
            rc = show(directory, level, entry);
        else
            rc = go_on(directory);
    }
    return rc;
}

void weft_directory_skip(weft_directory *directory)
{
    if (directory)
        directory->enters = false;
}

/* weft_file and weft_directory: positions, buffers, lines, the end, copies, errors, what cancellation leaves. */
#include "tests/support.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>

static char place[64]; /* a directory of our own */

static const char *in_place(const char *name)
{
    static __thread char paths[4][160];
    static __thread unsigned next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", place, name);
    return path;
}

static char *pattern(size_t size)
{
    char *data = malloc(size + 1);

    must(data != NULL);
    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i * 31 + i / 4096);
    data[size] = '\0';
    return data;
}

static weft_file *open_file(const char *name, int flags)
{
    weft_file *file;

    must_be(weft_file_open(&file, in_place(name), flags, 0600), 0);
    return file;
}

static void store(const char *name, const void *data, size_t size)
{
    must_be(weft_file_store(in_place(name), data, size, 0600), 0);
}

static bool holds(const char *name, const void *data, size_t size)
{
    void *there;
    size_t length;
    bool same;

    must_be(weft_file_load(in_place(name), 0, &there, &length), 0);
    same = length == size && memcmp(there, data, size) == 0 && ((char *)there)[length] == '\0';
    free(there);
    return same;
}

/* ---- reading and writing ---- */

enum { BIG = (1 << 20) + 12345 };

static intptr_t write_and_read(void *arg)
{
    static const size_t sizes[] = {1, 100, 4096, 70000, 200000, BIG};
    char *data = pattern(BIG), *back = malloc(BIG);
    weft_file *file = open_file("data", O_RDWR | O_CREAT | O_TRUNC);

    (void)arg;
    must_be(fcntl(weft_file_descriptor(file), F_GETFD), FD_CLOEXEC);
    must_be(weft_file_write(file, data, BIG), BIG);
    must_be(weft_file_seek(file, 0, SEEK_CUR), BIG);
    must_be(weft_file_read(file, back, 1), 0);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t step = sizes[i], at = 0;
        size_t most = step == 1 ? 5000 : BIG;

        memset(back, 0, BIG);
        must_be(weft_file_seek(file, 0, SEEK_SET), 0);
        while (at < most) {
            ssize_t n = weft_file_read(file, back + at, step < most - at ? step : most - at);

            must_be(n, step < most - at ? step : most - at);
            at += (size_t)n;
        }
        must(memcmp(back, data, most) == 0);
        must_be(weft_file_seek(file, 0, SEEK_CUR), most);
    }
    must_be(weft_file_read(file, back, 100), 0);
    must_be(weft_file_seek(file, -10, SEEK_END), BIG - 10);
    must_be(weft_file_read(file, back, 100), 10);
    must(memcmp(back, data + BIG - 10, 10) == 0);
    must_be(weft_file_pread(file, back, 10, 500000), 10);
    must(memcmp(back, data + 500000, 10) == 0);
    must_be(weft_file_pread(file, back, BIG, BIG - 5), 5);
    must_be(weft_file_pread(file, back, BIG, BIG + 5), 0);
    must_be(weft_file_close(file), 0);
    free(back);
    free(data);
    return 0;
}

static void what_was_written_is_read(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(run_on(support_workers[i], write_and_read, NULL), 0);
}

static intptr_t mixed(void *arg)
{
    weft_file *file;
    char buffer[16] = "";

    (void)arg;
    store("mixed", "0123456789", 10);
    file = open_file("mixed", O_RDWR);
    /* Writing goes on where reading stopped, whatever the buffer holds. */
    must_be(weft_file_read(file, buffer, 3), 3);
    must_be(weft_file_write(file, "abc", 3), 3);
    must_be(weft_file_read(file, buffer, 2), 2);
    must(memcmp(buffer, "67", 2) == 0);
    must_be(weft_file_seek(file, -1, SEEK_CUR), 7);
    must_be(weft_file_read(file, buffer, 1), 1);
    must(buffer[0] == '7');
    must_be(weft_file_seek(file, -1000, SEEK_CUR), -EINVAL);
    must_be(weft_file_seek(file, 0, 77), -EINVAL);
    must_be(weft_file_seek(file, INT64_MAX, SEEK_CUR), -EOVERFLOW);
    must_be(weft_file_pwrite(file, "Z", 1, 9), 1);
    must_be(weft_file_seek(file, 0, SEEK_CUR), 8);
    must_be(weft_file_truncate(file, 5), 0);
    must_be(weft_file_seek(file, 0, SEEK_SET), 0);
    must_be(weft_file_read(file, buffer, sizeof buffer), 5);
    must(memcmp(buffer, "012ab", 5) == 0);
    must_be(weft_file_sync(file), 0);
    must_be(weft_file_sync_data(file), 0);
    must_be(weft_file_close(file), 0);
    file = open_file("mixed", O_WRONLY | O_APPEND);
    must_be(weft_file_write(file, "+", 1), 1);
    must_be(weft_file_seek(file, 0, SEEK_CUR), 6);
    must_be(weft_file_read(file, buffer, 1), -EBADF);
    must_be(weft_file_close(file), 0);
    must(holds("mixed", "012ab+", 6));
    return 0;
}

static void reading_and_writing_share_one_position(void **state)
{
    (void)state;
    assert_int_equal(run_alone(mixed, NULL), 0);
}

/* ---- lines ---- */

static intptr_t lines(void *arg)
{
    char *line, *data;
    weft_file *file;
    size_t long_line = 300000, at = 0;

    (void)arg;
    store("lines", "one\n\ntwo\0x\nlast", 15);
    file = open_file("lines", O_RDONLY);
    must_be(weft_file_read_line(file, &line, 0), 4);
    must(memcmp(line, "one\n", 4) == 0);
    must_be(weft_file_read_line(file, &line, 0), 1);
    must_be(weft_file_read_line(file, &line, 4), -EMSGSIZE);
    must_be(weft_file_read_line(file, &line, 6), 6);
    must(memcmp(line, "two\0x\n", 6) == 0);
    must_be(weft_file_read_line(file, &line, 4), 4);
    must(memcmp(line, "last", 4) == 0);
    must_be(weft_file_read_line(file, &line, 0), 0);
    must_be(weft_file_read_line(file, &line, 0), 0);
    must_be(weft_file_close(file), 0);

    data = pattern(long_line + 2);
    memset(data, 'x', long_line);
    data[long_line] = '\n';
    data[long_line + 1] = 'y';
    store("lines", data, long_line + 2);
    file = open_file("lines", O_RDONLY);
    must_be(weft_file_read_line(file, &line, 1000), -EMSGSIZE);
    must_be(weft_file_seek(file, 0, SEEK_CUR), 0);
    must_be(weft_file_read_line(file, &line, 0), long_line + 1);
    must(memcmp(line, data, long_line + 1) == 0);
    must_be(weft_file_read_line(file, &line, 0), 1);
    must_be(weft_file_close(file), 0);
    free(data);

    /* Lines of all lengths, over every edge of the buffer. */
    data = malloc(1 << 20);
    must(data != NULL);
    for (int i = 0; at < (1 << 20) - 2000; i++)
        at += (size_t)sprintf(data + at, "%d%.*s\n", i, i % 1000,
                              "..........................................................................."
                              "..........................................................................."
                              "...........................................................................");
    store("lines", data, at);
    file = open_file("lines", O_RDONLY);
    for (size_t seen = 0; seen < at;) {
        ssize_t n = weft_file_read_line(file, &line, 0);

        must(n > 0 && line[n - 1] == '\n' && !memchr(line, '\n', (size_t)n - 1));
        must(memcmp(line, data + seen, (size_t)n) == 0);
        seen += (size_t)n;
    }
    must_be(weft_file_read_line(file, &line, 0), 0);
    must_be(weft_file_close(file), 0);
    free(data);
    return 0;
}

static void lines_come_whole(void **state)
{
    (void)state;
    assert_int_equal(run_alone(lines, NULL), 0);
    assert_int_equal(run_on(4, lines, NULL), 0);
}

/* ---- errors ---- */

static intptr_t errors(void *arg)
{
    weft_file *file;
    struct stat status;
    char byte, *line;
    void *data;
    size_t size;

    (void)arg;
    must_be(weft_file_open(&file, in_place("none"), O_RDONLY, 0), -ENOENT);
    must(file == NULL);
    must_be(weft_file_open(NULL, in_place("none"), O_RDONLY, 0), -EINVAL);
    must_be(weft_file_open(&file, NULL, O_RDONLY, 0), -EINVAL);
    must_be(weft_file_close(NULL), 0);
    must_be(weft_file_read(NULL, &byte, 1), -EINVAL);
    must_be(weft_file_write(NULL, &byte, 1), -EINVAL);
    must_be(weft_file_read_line(NULL, &line, 0), -EINVAL);
    must_be(weft_file_stat(in_place("none"), &status), -ENOENT);
    must_be(weft_file_unlink(in_place("none")), -ENOENT);
    must_be(weft_file_rename(in_place("none"), in_place("other")), -ENOENT);
    must_be(weft_file_mkdir(place, 0700), -EEXIST);
    must_be(weft_file_rmdir(in_place("none")), -ENOENT);
    must_be(weft_file_load(in_place("none"), 0, &data, &size), -ENOENT);
    must(data == NULL);
    must_be(weft_file_load(place, 0, &data, &size), -EISDIR);
    must_be(weft_file_store(in_place("none/at all"), "x", 1, 0600), -ENOENT);
    store("five", "12345", 5);
    must_be(weft_file_load(in_place("five"), 4, &data, &size), -EFBIG);
    must_be(weft_file_load(in_place("five"), 5, &data, &size), 0);
    free(data);
    file = open_file("five", O_RDONLY);
    must_be(weft_file_write(file, "x", 1), -EBADF);
    must_be(weft_file_pread(file, &byte, 1, -1), -EINVAL);
    must_be(weft_file_stat_open(file, &status), 0);
    must_be(status.st_size, 5);
    must_be(weft_file_close(file), 0);
    file = open_file(".", O_RDONLY);
    must_be(weft_file_read(file, &byte, 1), -EISDIR);
    must_be(weft_file_close(file), 0);
    must_be(weft_file_load("/proc/self/stat", 0, &data, &size), 0); /* has no size beforehand */
    must(size > 10);
    free(data);
    return 0;
}

static void errors_are_those_of_the_system(void **state)
{
    (void)state;
    assert_int_equal(run_alone(errors, NULL), 0);
    errors(NULL); /* and outside a runtime */
}

static intptr_t names(void *arg)
{
    struct stat status;

    (void)arg;
    must_be(weft_file_mkdir(in_place("sub"), 0700), 0);
    store("sub/a", "a", 1);
    must_be(weft_file_rmdir(in_place("sub")), -ENOTEMPTY);
    must_be(weft_file_rename(in_place("sub/a"), in_place("b")), 0);
    must_be(weft_file_rmdir(in_place("sub")), 0);
    must_be(symlink("b", in_place("link")), 0);
    must_be(weft_file_stat(in_place("link"), &status), 0);
    must(S_ISREG(status.st_mode) && status.st_size == 1);
    must_be(weft_file_stat_link(in_place("link"), &status), 0);
    must(S_ISLNK(status.st_mode));
    must_be(weft_file_unlink(in_place("link")), 0);
    must_be(weft_file_unlink(in_place("b")), 0);
    return 0;
}

static void names_can_be_changed(void **state)
{
    (void)state;
    assert_int_equal(run_on(2, names, NULL), 0);
}

static intptr_t fill_disk(void *arg)
{
    char *data = pattern(1 << 20);
    weft_file *file = open_file("tmpfs/full", O_RDWR | O_CREAT);
    ssize_t n = weft_file_write(file, data, 1 << 20);

    (void)arg;
    must(n > 0 && n < 1 << 20);
    must_be(weft_file_write(file, data + n, (size_t)((1 << 20) - n)), -ENOSPC);
    must_be(weft_file_seek(file, 0, SEEK_CUR), n);
    must_be(weft_file_pwrite(file, data, 100, 0), 100);
    must_be(weft_file_close(file), 0);
    must_be(weft_file_unlink(in_place("tmpfs/full")), 0);
    /* What was stored before stays as it was, and nothing beside it. */
    store("tmpfs/kept", "old", 3);
    must_be(weft_file_store(in_place("tmpfs/kept"), data, 1 << 20, 0600), -ENOSPC);
    must(holds("tmpfs/kept", "old", 3));
    must_be(count_entries(in_place("tmpfs")), 3);
    /* The in-kernel copy finds it full, too. */
    store("source", data, 1 << 20);
    {
        weft_file *from = open_file("source", O_RDONLY), *to = open_file("tmpfs/copy", O_WRONLY | O_CREAT);
        int64_t copied = weft_file_copy(from, to, -1), reached = weft_file_seek(to, 0, SEEK_CUR);

        must_be(copied, -ENOSPC);
        must(reached > 0 && reached < 1 << 20);
        must_be(weft_file_seek(from, 0, SEEK_CUR), reached);
        must_be(weft_file_close(from), 0);
        must_be(weft_file_close(to), 0);
    }
    free(data);
    return 0;
}

static void a_full_disk_is_told_and_loses_nothing(void **state)
{
    const char *path = in_place("tmpfs");

    (void)state;
    must_be(mkdir(path, 0700), 0);
    if (mount("tmpfs", path, "tmpfs", 0, "size=256k") < 0) {
        fprintf(stderr, "no small tmpfs can be mounted: not tried\n");
        rmdir(path);
        skip();
    }
    assert_int_equal(run_alone(fill_disk, NULL), 0);
    must_be(umount(path), 0);
    rmdir(path);
}

/* ---- several users ---- */

static weft_file *shared;

static intptr_t read_shared(void *arg)
{
    char buffer[64];

    (void)arg;
    return weft_file_read(shared, buffer, sizeof buffer);
}

static intptr_t busy(void *arg)
{
    char path[160];
    weft_task *reader;
    int writer;
    char byte;

    (void)arg;
    snprintf(path, sizeof path, "%s/fifo", place);
    must_be(mkfifo(path, 0600), 0);
    must_be(weft_file_open(&shared, path, O_RDONLY, 0), 0); /* does not wait for a writer */
    writer = open(path, O_WRONLY | O_CLOEXEC);
    must(writer >= 0);
    must((reader = weft_spawn(read_shared, NULL)) != NULL);
    must_be(weft_sleep(WEFT_MS(2)), 0);
    must_be(weft_file_read(shared, &byte, 1), -EBUSY);
    must_be(weft_file_seek(shared, 0, SEEK_SET), -EBUSY);
    must_be(weft_file_pread(shared, &byte, 1, 0), -ESPIPE);
    must_be(write(writer, "abc", 3), 3);
    must_be(weft_await(reader), 3);
    must_be(weft_file_seek(shared, 0, SEEK_SET), -ESPIPE);
    must((reader = weft_spawn(read_shared, NULL)) != NULL);
    must_be(weft_sleep(WEFT_MS(1)), 0);
    weft_cancel(reader);
    must_be(weft_await(reader), -ECANCELED);
    must_be(write(writer, "line\n", 5), 5);
    {
        char *line;

        must_be(weft_file_read_line(shared, &line, 0), 5);
    }
    close(writer);
    must_be(weft_file_read(shared, &byte, 1), 0);
    must_be(weft_file_close(shared), 0);
    return unlink(path);
}

static void a_pipe_is_waited_for_and_a_second_reader_refused(void **state)
{
    (void)state;
    assert_int_equal(run_alone(busy, NULL), 0);
    assert_int_equal(run_on(2, busy, NULL), 0);
}

static intptr_t read_somewhere(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg * 977 + 1;
    char buffer[1000];

    for (int i = 0; i < 50; i++) {
        size_t at = draw(&seed) % (BIG - sizeof buffer);

        must_be(weft_file_pread(shared, buffer, sizeof buffer, (int64_t)at), sizeof buffer);
        for (size_t j = 0; j < sizeof buffer; j++)
            must(buffer[j] == (char)((at + j) * 31 + (at + j) / 4096));
    }
    return 0;
}

static intptr_t many_readers(void *arg)
{
    weft_task *tasks[16];
    char *data = pattern(BIG);

    (void)arg;
    store("big", data, BIG);
    free(data);
    shared = open_file("big", O_RDONLY);
    for (uintptr_t i = 0; i < 16; i++)
        must((tasks[i] = weft_spawn(read_somewhere, (void *)i)) != NULL);
    for (int i = 0; i < 16; i++)
        must_be(weft_await(tasks[i]), 0);
    return weft_file_close(shared);
}

static void any_number_of_tasks_read_at_offsets(void **state)
{
    (void)state;
    for (unsigned i = 0; i < SUPPORT_WORKER_COUNTS; i++)
        assert_int_equal(run_on(support_workers[i], many_readers, NULL), 0);
}

/* ---- copying ---- */

static void copy_between(const char *from_path, const char *to_name, int flags, int64_t expected)
{
    weft_file *from, *to = open_file(to_name, O_WRONLY | O_CREAT | flags);

    must_be(weft_file_open(&from, from_path, O_RDONLY, 0), 0);
    if (expected >= 0)
        must_be(weft_file_copy(from, to, -1), expected);
    else
        must(weft_file_copy(from, to, -1) > 0);
    must_be(weft_file_copy(from, to, -1), 0);
    must_be(weft_file_close(from), 0);
    must_be(weft_file_close(to), 0);
}

static intptr_t copies(void *arg)
{
    char *data = pattern(BIG), path[160], buffer[8];
    weft_file *from, *to;
    void *there;
    size_t size;

    (void)arg;
    store("source", data, BIG);
    snprintf(path, sizeof path, "%s/source", place);
    copy_between(path, "copy", O_TRUNC, BIG);
    must(holds("copy", data, BIG));
    copy_between(path, "copy", O_APPEND, BIG); /* where the kernel will not */
    must_be(weft_file_load(in_place("copy"), 0, &there, &size), 0);
    must_be(size, 2 * BIG);
    must(memcmp((char *)there + BIG, data, BIG) == 0);
    free(there);
    copy_between("/proc/self/maps", "copy", O_TRUNC, -1); /* no size, and another file system */
    from = open_file("source", O_RDONLY);
    to = open_file("copy", O_RDWR | O_TRUNC);
    must_be(weft_file_read(from, buffer, 5), 5); /* the buffer has read ahead */
    must_be(weft_file_write(to, buffer, 5), 5);
    must_be(weft_file_copy(from, to, 1000), 1000);
    must_be(weft_file_seek(from, 0, SEEK_CUR), 1005);
    must_be(weft_file_copy(from, to, 0), 0);
    must_be(weft_file_copy(from, from, 1), -EINVAL);
    must_be(weft_file_close(from), 0);
    must_be(weft_file_close(to), 0);
    must(holds("copy", data, 1005));
    free(data);
    return 0;
}

static void copies_are_true(void **state)
{
    (void)state;
    assert_int_equal(run_on(2, copies, NULL), 0);
}

/* ---- directories ---- */

static unsigned walk(unsigned flags, const char *skip_name, unsigned *deepest)
{
    weft_directory *directory;
    weft_directory_entry entry;
    unsigned n = 0;
    int rc;

    *deepest = 0;
    must_be(weft_directory_open(&directory, in_place("tree"), flags), 0);
    while ((rc = weft_directory_next(directory, &entry)) == 1) {
        struct stat status;

        n++;
        must_be(entry.error, 0);
        must_be(lstat(entry.path, &status), 0);
        must((status.st_mode & S_IFMT) == entry.type);
        must(strcmp(strrchr(entry.path, '/') + 1, entry.name) == 0);
        if (entry.depth > *deepest)
            *deepest = entry.depth;
        if (skip_name && strcmp(entry.name, skip_name) == 0)
            weft_directory_skip(directory);
    }
    must_be(rc, 0);
    must_be(weft_directory_next(directory, &entry), 0);
    weft_directory_close(directory);
    return n;
}

static intptr_t directories(void *arg)
{
    weft_directory *directory;
    weft_directory_entry entry;
    char path[200];
    unsigned deepest;

    (void)arg;
    must_be(weft_directory_open(&directory, in_place("none"), 0), -ENOENT);
    must_be(weft_directory_open(&directory, in_place("tree"), 128), -EINVAL);
    must_be(weft_file_mkdir(in_place("tree"), 0700), 0);
    must_be(walk(WEFT_DIRECTORY_DEEP, NULL, &deepest), 0);
    for (int i = 0; i < 1500; i++) {
        snprintf(path, sizeof path, "%s/tree/a-file-with-a-long-name-%d", place, i);
        must(close(creat(path, 0600)) == 0);
    }
    snprintf(path, sizeof path, "%s/tree", place);
    for (int i = 0; i < 20; i++) {
        strcat(path, "/d");
        must_be(mkdir(path, 0700), 0);
    }
    must_be(symlink("..", in_place("tree/loop")), 0);
    must_be(walk(0, NULL, &deepest), 1502);
    must_be(deepest, 0);
    must_be(walk(WEFT_DIRECTORY_DEEP, NULL, &deepest), 1521);
    must_be(deepest, 19);
    must_be(walk(WEFT_DIRECTORY_DEEP, "d", &deepest), 1502);
    /* Closed in the middle: nothing leaks (run_on looks). */
    must_be(weft_directory_open(&directory, in_place("tree"), WEFT_DIRECTORY_DEEP), 0);
    for (int i = 0; i < 1510; i++)
        must_be(weft_directory_next(directory, &entry), 1);
    weft_directory_close(directory);
    weft_directory_close(NULL);
    return 0;
}

/* Removed in the middle: what was read before comes, and then the end. */
static intptr_t removed_while_it_is_listed(void *arg)
{
    weft_directory *directory;
    weft_directory_entry entry;
    char path[200];
    int n = 0, rc;

    (void)arg;
    must_be(weft_file_mkdir(in_place("gone"), 0700), 0);
    for (int i = 0; i < 1500; i++) {
        snprintf(path, sizeof path, "%s/gone/a-file-with-a-long-name-%d", place, i);
        must(close(creat(path, 0600)) == 0);
    }
    must_be(weft_directory_open(&directory, in_place("gone"), 0), 0);
    must_be(weft_directory_next(directory, &entry), 1);
    for (int i = 0; i < 1500; i++) {
        snprintf(path, sizeof path, "%s/gone/a-file-with-a-long-name-%d", place, i);
        must_be(weft_file_unlink(path), 0);
    }
    must_be(weft_file_rmdir(in_place("gone")), 0);
    while ((rc = weft_directory_next(directory, &entry)) == 1)
        n++;
    must_be(rc, 0);
    must(n < 1499);
    must_be(weft_directory_next(directory, &entry), 0);
    weft_directory_close(directory);
    return 0;
}

static void a_directory_that_is_removed_ends(void **state)
{
    (void)state;
    run_on(2, removed_while_it_is_listed, NULL);
}

static void a_walk_sees_everything_once(void **state)
{
    (void)state;
    assert_int_equal(run_on(2, directories, NULL), 0);
}

/* ---- cancellation ---- */

static intptr_t everything(void *arg)
{
    weft_directory *directory;
    weft_directory_entry entry;
    weft_file *file, *to;
    char buffer[3000];
    int64_t rc;

    (void)arg;
    if ((rc = weft_file_open(&file, in_place("big"), O_RDONLY, 0)) < 0)
        return rc;
    for (int i = 0; i < 5 && rc >= 0; i++)
        rc = weft_file_read(file, buffer, sizeof buffer);
    if (rc >= 0 && (rc = weft_file_open(&to, in_place("cancelled"), O_WRONLY | O_CREAT, 0600)) == 0) {
        rc = weft_file_write(to, buffer, sizeof buffer);
        if (rc >= 0)
            rc = weft_file_copy(file, to, -1);
        must_be(weft_file_close(to), 0); /* also when cancelled */
    }
    must_be(weft_file_close(file), 0);
    if (rc >= 0 && (rc = weft_directory_open(&directory, in_place("tree"), WEFT_DIRECTORY_DEEP)) == 0) {
        while ((rc = weft_directory_next(directory, &entry)) == 1)
            ;
        weft_directory_close(directory);
    }
    must(rc >= 0 || rc == -ECANCELED);
    return rc < 0 ? (intptr_t)rc : 0;
}

static intptr_t cancel_somewhere(void *arg)
{
    uint64_t seed = wanted_seed();

    (void)arg;
    for (int i = 0; i < FEWER(500); i++) {
        weft_task *task = weft_spawn(everything, NULL);
        intptr_t rc;

        must(task != NULL);
        if (i % 8)
            must_be(weft_sleep((int64_t)(draw(&seed) % (uint64_t)WEFT_MS(3))), 0);
        weft_cancel(task);
        rc = weft_await(task);
        must(rc == 0 || rc == -ECANCELED);
    }
    return 0;
}

static void cancellation_at_any_moment_leaves_nothing(void **state)
{
    (void)state;
    assert_int_equal(run_alone(cancel_somewhere, NULL), 0);
    assert_int_equal(run_on(3, cancel_somewhere, NULL), 0);
}

/* ---- interrupted system calls, and no runtime ---- */

static void on_signal(int number)
{
    (void)number;
}

static void *pester(void *arg)
{
    pthread_t *victim = arg;

    for (int i = 0; i < 2000; i++) {
        pthread_kill(*victim, SIGUSR1);
        nap(WEFT_US(10));
    }
    return NULL;
}

static void signals_are_not_seen(void **state)
{
    struct sigaction action = {.sa_handler = on_signal}, before; /* without SA_RESTART */
    pthread_t self = pthread_self(), thread;

    (void)state;
    sigaction(SIGUSR1, &action, &before);
    assert_int_equal(pthread_create(&thread, NULL, pester, &self), 0);
    for (int i = 0; i < 3; i++) {
        write_and_read(NULL);
        lines(NULL);
    }
    pthread_join(thread, NULL);
    sigaction(SIGUSR1, &before, NULL);
}

static intptr_t in_a_step(void *arg)
{
    char byte;

    must_be(weft_file_pread(arg, &byte, 1, 0), -EPERM);
    must_be(weft_file_read(arg, &byte, 1), -EPERM);
    must_be(weft_file_unlink("/nowhere"), -EPERM);
    return 0;
}

static intptr_t refused(void *arg)
{
    weft_file *file = open_file("big", O_RDONLY);

    (void)arg;
    must_be(weft_await(weft_spawn_stackless(in_a_step, file)), 0);
    return weft_file_close(file);
}

static void a_stackless_task_is_refused(void **state)
{
    (void)state;
    assert_int_equal(run_alone(refused, NULL), 0);
}

static int make_place(void **state)
{
    (void)state;
    snprintf(place, sizeof place, "/tmp/weft_test_file_XXXXXX");
    return mkdtemp(place) ? 0 : -1;
}

static int remove_place(void **state)
{
    char command[100];

    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", place);
    return system(command);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(reading_and_writing_share_one_position),
        cmocka_unit_test(lines_come_whole),
        cmocka_unit_test(errors_are_those_of_the_system),
        cmocka_unit_test(names_can_be_changed),
        cmocka_unit_test(a_full_disk_is_told_and_loses_nothing),
        cmocka_unit_test(a_pipe_is_waited_for_and_a_second_reader_refused),
        cmocka_unit_test(any_number_of_tasks_read_at_offsets),
        cmocka_unit_test(copies_are_true),
        cmocka_unit_test(a_walk_sees_everything_once),
        cmocka_unit_test(a_directory_that_is_removed_ends),
        cmocka_unit_test(cancellation_at_any_moment_leaves_nothing),
        cmocka_unit_test(signals_are_not_seen),
        cmocka_unit_test(a_stackless_task_is_refused),
    };

    setvbuf(stdout, NULL, _IOLBF, 0);
    alarm(SUPPORT_LIMIT);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, make_place, remove_place);
}

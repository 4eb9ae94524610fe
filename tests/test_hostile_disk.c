/*
 * A full disk: what was written is reported, then -ENOSPC; what is stored as a whole is stored or not, and no temporary
 * file is left. On a small file system of its own, in a child's mount name space; skipped where that is not allowed.
 */
#include "hostile.h"

#include <sched.h>
#include <sys/mount.h>

enum { DISK = 256 << 10, BLOCK = 24000, CANNOT = 77 };

static char directory[] = "/tmp/weft-test-disk-XXXXXX";
static char source[64];
static char block[DISK * 2];

static const char *on_disk(const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

/* Blocks until one is cut short, by *last (perhaps none of it): all that went in. */
static size_t fill(weft_file *file, ssize_t *last)
{
    size_t sum = 0;

    while ((*last = weft_file_write(file, block, BLOCK)) == BLOCK)
        sum += BLOCK;
    must(*last == -ENOSPC || (*last > 0 && *last < BLOCK));
    return *last > 0 ? sum + (size_t)*last : sum;
}

static void writing_stops(void)
{
    struct stat status;
    weft_file *file;
    ssize_t last;
    size_t sum;

    must_be(weft_file_open(&file, on_disk("full"), O_RDWR | O_CREAT | O_TRUNC, 0600), 0);
    sum = fill(file, &last);
    if (last > 0)
        must_be(weft_file_write(file, block, BLOCK), -ENOSPC); /* the next call says why */
    must(sum > DISK / 2 && sum <= DISK);
    must_be(weft_file_stat_open(file, &status), 0);
    must_be(status.st_size, sum);
    must_be(weft_file_pwrite(file, block, 10000, (int64_t)sum + 4096), -ENOSPC);
    must_be(weft_file_truncate(file, 1000), 0);
    must_be(weft_file_seek(file, 0, SEEK_END), 1000);
    must_be(weft_file_write(file, block, 5000), 5000); /* there is room again */
    must_be(weft_file_close(file), 0);
    must_be(weft_file_unlink(on_disk("full")), 0);
}

static void storing_is_all_or_nothing(void)
{
    void *data;
    size_t size;

    must_be(weft_file_store(on_disk("kept"), "the old content", 15, 0600), 0);
    must_be(weft_file_store(on_disk("kept"), block, sizeof block, 0600), -ENOSPC);
    must_be(weft_file_load(on_disk("kept"), 0, &data, &size), 0);
    must_be(size, 15);
    must(memcmp(data, "the old content", 15) == 0);
    free(data);
    must_be(weft_file_store(on_disk("new"), block, sizeof block, 0600), -ENOSPC);
    must_be(count_entries(directory), 3); /* ".", "..", "kept": no temporary file, no new one */
    must_be(weft_file_store(on_disk("kept"), block, DISK / 2, 0600), 0); /* all room is back */
    must_be(weft_file_unlink(on_disk("kept")), 0);
}

static void copying_tells_how_far_it_came(void)
{
    weft_file *from, *to;
    struct stat status;

    must_be(weft_file_open(&from, source, O_RDONLY, 0), 0);
    must_be(weft_file_open(&to, on_disk("copy"), O_WRONLY | O_CREAT | O_TRUNC, 0600), 0);
    must_be(weft_file_copy(from, to, -1), -ENOSPC);
    must_be(weft_file_stat_open(to, &status), 0);
    must(status.st_size > 0 && status.st_size <= DISK);
    must_be(weft_file_seek(to, 0, SEEK_CUR), status.st_size);
    must_be(weft_file_seek(from, 0, SEEK_CUR), status.st_size);
    must_be(weft_file_close(from), 0);
    must_be(weft_file_close(to), 0);
    must_be(weft_file_unlink(on_disk("copy")), 0);
}

/* What each says it has written is there. */
static intptr_t fill_one(void *arg)
{
    char path[128];
    struct stat status;
    weft_file *file;
    ssize_t last;
    size_t sum;
    int rc;

    snprintf(path, sizeof path, "%s/%d", directory, (int)(intptr_t)arg);
    rc = weft_file_open(&file, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (rc == -ENOSPC)
        return 0; /* not even for its name */
    must_be(rc, 0);
    sum = fill(file, &last);
    must_be(weft_file_stat_open(file, &status), 0);
    must_be(status.st_size, sum);
    must_be(weft_file_close(file), 0);
    must_be(weft_file_unlink(path), 0);
    return 0;
}

static void many_fill_it_at_once(void)
{
    weft_group group;

    must_be(weft_group_begin(&group), 0);
    for (intptr_t i = 0; i < 6; i++)
        must_be(weft_group_spawn(&group, fill_one, (void *)i), 0);
    must_be(weft_group_wait(&group), 0);
}

static intptr_t use_disk(void *arg)
{
    writing_stops();
    storing_is_all_or_nothing();
    copying_tells_how_far_it_came();
    many_fill_it_at_once();
    must_be(count_entries(directory), 2);
    return (intptr_t)arg;
}

static void run_on_disk(void *arg)
{
    char size[32];

    snprintf(size, sizeof size, "size=%d", DISK);
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("weft-test", directory, "tmpfs", 0, size) < 0)
        _exit(CANNOT);
    must_be(run_on(*(uint32_t *)arg, use_disk, NULL), 0);
}

static void write_source(void)
{
    FILE *file;

    snprintf(source, sizeof source, "%s.source", directory);
    file = fopen(source, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(block, 1, sizeof block, file), sizeof block);
    assert_int_equal(fclose(file), 0);
}

static void a_full_disk_is_reported_and_leaves_nothing_behind(void **state)
{
    char text[4000];
    int status = 0;

    (void)state;
    memset(block, 'x', sizeof block);
    assert_non_null(mkdtemp(directory));
    write_source();
    for (int i = 0; i < FEW && status == 0; i++)
        status = run_in_child(run_on_disk, (void *)(uintptr_t)&few_workers[i], text, sizeof text);
    unlink(source);
    rmdir(directory);
    if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT) {
        printf("no mount name space of its own is allowed here: skipped\n");
        skip();
    }
    if (status != 0)
        fail_msg("status %d: %s", status, text);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_disk_is_reported_and_leaves_nothing_behind),
    };

    return run_all(tests, argc, argv);
}

/*
 * A main program for a fuzz target without libFuzzer: gives it the bytes of the files named on the command line, and of
 * those in the directories named there. So what was found once is tested with every compiler.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

static unsigned replayed;

static void replay_file(const char *path, size_t size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(size > 0 ? size : 1);

    must(file != NULL && data != NULL);
    must(fread(data, 1, size, file) == size);
    fclose(file);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    replayed++;
}

static void replay(const char *path);

static void replay_directory(const char *path)
{
    DIR *directory = opendir(path);
    const struct dirent *entry;
    char below[4096];

    must(directory != NULL);
    while ((entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        must((size_t)snprintf(below, sizeof below, "%s/%s", path, entry->d_name) < sizeof below);
        replay(below);
    }
    closedir(directory);
}

static void replay(const char *path)
{
    struct stat status;

    if (stat(path, &status) < 0) {
        perror(path);
        exit(1);
    }
    if (S_ISDIR(status.st_mode))
        replay_directory(path);
    else
        replay_file(path, (size_t)status.st_size);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        replay(argv[i]);
    printf("%u inputs\n", replayed);
    return replayed > 0 ? 0 : 1;
}

/* Stands in for libFuzzer: runs a target over the files and folders that it is given. */
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static unsigned inputs;

static bool replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return false;
    }
    struct stat status;
    fstat(fileno(file), &status);
    /* Exactly as large as the input, so that the sanitizer sees every read past it. */
    size_t size = (size_t)status.st_size;
    uint8_t *data = malloc(size ? size : 1);
    bool whole = data && fread(data, 1, size, file) == size;
    fclose(file);
    if (whole) {
        inputs++;
        fprintf(stderr, "%s\n", path);
        LLVMFuzzerTestOneInput(data, size);
    }
    free(data);
    return whole;
}

static bool replay(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0) {
        perror(path);
        return false;
    }
    if (!S_ISDIR(status.st_mode))
        return replay_file(path);

    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    bool well = count >= 0;
    for (int i = 0; i < count; i++) {
        char name[4096];
        if (entries[i]->d_name[0] != '.' &&
            snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name) < (int)sizeof name)
            well = replay(name) && well;
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return well;
}

int main(int argc, char **argv)
{
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    bool well = true;
    for (int i = 1; i < argc; i++)
        well = replay(argv[i]) && well;
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    fprintf(stderr, "%u inputs replayed\n", inputs);
    return well ? 0 : 1;
}

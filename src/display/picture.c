/* Frames as files. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef HAVE_LIBPNG
#    include <png.h>
#endif

#include "display/display.h"

/* A row of a frame as red, green and blue. */
static void convert_row(const struct gpu_frame *frame, uint32_t y, uint8_t *row)
{
    const uint8_t *pixel = frame->pixels + (size_t)y * frame->stride;
    for (uint32_t x = 0; x < frame->width; x++, pixel += 4, row += 3) {
        row[0] = pixel[2];
        row[1] = pixel[1];
        row[2] = pixel[0];
    }
}

static bool write_ppm(const struct gpu_frame *frame, FILE *file)
{
    uint8_t *row = xmalloc((size_t)frame->width * 3);
    fprintf(file, "P6\n%u %u\n255\n", frame->width, frame->height);
    for (uint32_t y = 0; y < frame->height; y++) {
        convert_row(frame, y, row);
        fwrite(row, 3, frame->width, file);
    }
    free(row);
    return !ferror(file);
}

#ifdef HAVE_LIBPNG
/* libpng would tell the terminal. */
static void png_failed(png_structp png, png_const_charp message)
{
    png_longjmp(png, 1);
}

static void png_warned(png_structp png, png_const_charp message)
{
}

static bool write_png(const struct gpu_frame *frame, FILE *file)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, png_failed, png_warned);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    uint8_t *row = xmalloc((size_t)frame->width * 3);
    if (!info || setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        free(row);
        return false;
    }
    png_init_io(png, file);
    png_set_IHDR(png, info, frame->width, frame->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    /* Screens are flat: the best level costs much time and saves little. */
    png_set_compression_level(png, 3);
    png_write_info(png, info);
    for (uint32_t y = 0; y < frame->height; y++) {
        convert_row(frame, y, row);
        png_write_row(png, row);
    }
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    free(row);
    return true;
}
#else
#    define write_png NULL
#endif

static bool ends_in(const char *path, const char *end)
{
    size_t length = strlen(path), most = strlen(end);
    return length > most && !strcasecmp(path + length - most, end);
}

/* A new file beside `path`; *temporary is the caller's. */
static FILE *create_beside(const char *path, char **temporary)
{
    int fd = -1;
    *temporary = NULL;
    for (unsigned i = 0; fd < 0 && i < 100; i++) {
        free(*temporary);
        *temporary = xasprintf("%s.%d-%u", path, (int)getpid(), i);
        fd = open(*temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    return fd < 0 ? NULL : fdopen(fd, "w");
}

/* Whether the file may be replaced: not a device, say, which root could replace as well. */
static bool check_replaced(const char *path, struct error *err)
{
    struct stat status;
    if (stat(path, &status) < 0 || S_ISREG(status.st_mode))
        return true;
    return error_set(err, "'%s' is no file that a picture could replace: give another name", path);
}

bool picture_write(const struct gpu_frame *frame, const char *path, enum picture_format format,
                   struct error *err)
{
    char *temporary;
    if (format == PICTURE_BY_NAME)
        format = ends_in(path, ".ppm") ? PICTURE_PPM : PICTURE_PNG;
    bool (*write_file)(const struct gpu_frame *, FILE *) =
        format == PICTURE_PPM ? write_ppm : write_png;
    if (!write_file)
        return error_set(err, "this build has no libpng: install libpng-dev and build again, or "
                              "write a file that ends in .ppm");
    if (!check_replaced(path, err))
        return false;
    FILE *file = create_beside(path, &temporary);
    bool ok = file;
    if (file) {
        errno = 0;
        ok = write_file(frame, file) && !fflush(file);
        int error = errno;
        if (fclose(file))
            ok = false;
        else
            errno = error;
        ok = ok && !rename(temporary, path);
    }
    if (!ok) {
        error_set_errno(err, errno ? errno : ENOMEM, "cannot write a picture to '%s'", path);
        if (file)
            unlink(temporary);
    }
    free(temporary);
    return ok;
}

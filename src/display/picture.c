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

static bool write_ppm(const struct gpu_frame *frame, FILE *file, struct error *err)
{
    uint8_t *row = xmalloc((size_t)frame->width * 3);
    fprintf(file, "P6\n%u %u\n255\n", frame->width, frame->height);
    for (uint32_t y = 0; y < frame->height; y++) {
        convert_row(frame, y, row);
        fwrite(row, 3, frame->width, file);
    }
    free(row);
    return true;
}

#ifdef HAVE_LIBPNG
static bool write_png(const struct gpu_frame *frame, FILE *file, struct error *err)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    uint8_t *row = xmalloc((size_t)frame->width * 3);
    if (!info || setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        free(row);
        return error_set(err, "libpng cannot write a picture of %ux%u pixels", frame->width,
                         frame->height);
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
static bool write_png(const struct gpu_frame *frame, FILE *file, struct error *err)
{
    return error_set(err, "this build has no libpng: install libpng-dev and build again, or write "
                          "a file that ends in .ppm");
}
#endif

static bool ends_in(const char *path, const char *end)
{
    size_t length = strlen(path), most = strlen(end);
    return length > most && !strcasecmp(path + length - most, end);
}

bool picture_write(const struct gpu_frame *frame, const char *path, enum picture_format format,
                   struct error *err)
{
    if (format == PICTURE_BY_NAME)
        format = ends_in(path, ".ppm") ? PICTURE_PPM : PICTURE_PNG;
    char *temporary = xasprintf("%s.XXXXXX", path);
    int fd = mkostemp(temporary, O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    bool ok = file || error_set_errno(err, errno, "cannot write a picture to '%s'", path);
    if (file) {
        mode_t mask = umask(0);
        umask(mask);
        fchmod(fd, 0666 & ~mask);
        ok = (format == PICTURE_PPM ? write_ppm : write_png)(frame, file, err);
        if (ok && (ferror(file) | fclose(file)))
            ok = error_set_errno(err, errno, "cannot write a picture to '%s'", path);
        else if (!ok)
            fclose(file);
        if (ok && rename(temporary, path) < 0)
            ok = error_set_errno(err, errno, "cannot write a picture to '%s'", path);
        if (!ok)
            unlink(temporary);
    }
    free(temporary);
    return ok;
}

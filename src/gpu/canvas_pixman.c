/* Pictures in this process's memory, drawn by pixman. */
#include <stdlib.h>
#include <string.h>

#include "gpu/gpu.h"

#ifdef HAVE_PIXMAN
#    include <pixman.h>

struct gpu_image {
    uint32_t width, height, stride;
    pixman_format_code_t format, opaque; /* the latter without alpha */
    uint8_t *pixels;
};

/* pixman names formats by their bits in a little-endian word, from above. */
static const struct {
    uint32_t format;
    pixman_format_code_t pixman, opaque;
} formats[] = {
    {GPU_FORMAT_B8G8R8A8, PIXMAN_a8r8g8b8, PIXMAN_x8r8g8b8},
    {GPU_FORMAT_B8G8R8X8, PIXMAN_x8r8g8b8, PIXMAN_x8r8g8b8},
    {GPU_FORMAT_A8R8G8B8, PIXMAN_b8g8r8a8, PIXMAN_b8g8r8x8},
    {GPU_FORMAT_X8R8G8B8, PIXMAN_b8g8r8x8, PIXMAN_b8g8r8x8},
    {GPU_FORMAT_R8G8B8A8, PIXMAN_a8b8g8r8, PIXMAN_x8b8g8r8},
    {GPU_FORMAT_R8G8B8X8, PIXMAN_x8b8g8r8, PIXMAN_x8b8g8r8},
    {GPU_FORMAT_A8B8G8R8, PIXMAN_r8g8b8a8, PIXMAN_r8g8b8x8},
    {GPU_FORMAT_X8B8G8R8, PIXMAN_r8g8b8x8, PIXMAN_r8g8b8x8},
};

static size_t image_size(const struct gpu_image *image)
{
    return (size_t)image->stride * image->height;
}

static struct gpu_image *pixman_create(struct gpu_canvas *canvas, unsigned adapter, uint32_t format,
                                       uint32_t width, uint32_t height)
{
    struct gpu_adapter_load *load = &canvas->adapters[adapter];
    struct gpu_image *image = xcalloc(1, sizeof(*image));
    *image = (struct gpu_image){.width = width, .height = height, .stride = width * 4};
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        if (formats[i].format == format) {
            image->format = formats[i].pixman;
            image->opaque = formats[i].opaque;
        }
    }
    image->pixels = calloc(1, image_size(image));
    if (!image->pixels) {
        free(image);
        return NULL;
    }
    load->textures++;
    load->memory += image_size(image);
    if (load->memory_peak < load->memory)
        load->memory_peak = load->memory;
    return image;
}

static void pixman_destroy(struct gpu_canvas *canvas, struct gpu_image *image)
{
    canvas->adapters[0].textures--;
    canvas->adapters[0].memory -= image_size(image);
    free(image->pixels);
    free(image);
}

static uint8_t *pixman_write_begin(struct gpu_canvas *canvas, struct gpu_image *image,
                                   const struct gpu_rect *rect, size_t *stride)
{
    *stride = image->stride;
    return image->pixels + (size_t)rect->y * image->stride + (size_t)rect->x * 4;
}

static void pixman_write_end(struct gpu_canvas *canvas, struct gpu_image *image,
                             const struct gpu_rect *rect)
{
}

static bool pixman_read(struct gpu_canvas *canvas, struct gpu_image *image, uint8_t *pixels)
{
    memcpy(pixels, image->pixels, image_size(image));
    return true;
}

/* Sets how an image is sampled where it has another size than the output. */
static bool scale(pixman_image_t *image, const struct gpu_composition *what)
{
    pixman_transform_t transform;
    if (what->source.width == what->width && what->source.height == what->height)
        return true;
    pixman_transform_init_scale(
        &transform, (pixman_fixed_t)(((uint64_t)what->source.width << 16) / what->width),
        (pixman_fixed_t)(((uint64_t)what->source.height << 16) / what->height));
    return pixman_image_set_transform(image, &transform) &&
           pixman_image_set_filter(image, PIXMAN_FILTER_BILINEAR, NULL, 0);
}

/* The cursor, moved to its place in the picture and scaled with it. */
static bool place_cursor(pixman_image_t *image, const struct gpu_composition *what)
{
    pixman_transform_t transform;
    bool scaled = what->source.width != what->width || what->source.height != what->height;
    pixman_transform_init_scale(
        &transform, (pixman_fixed_t)(((uint64_t)what->source.width << 16) / what->width),
        (pixman_fixed_t)(((uint64_t)what->source.height << 16) / what->height));
    transform.matrix[0][2] = pixman_int_to_fixed(-what->cursor_x);
    transform.matrix[1][2] = pixman_int_to_fixed(-what->cursor_y);
    return pixman_image_set_transform(image, &transform) &&
           (!scaled || pixman_image_set_filter(image, PIXMAN_FILTER_BILINEAR, NULL, 0));
}

static bool pixman_compose(struct gpu_canvas *canvas, const struct gpu_composition *what,
                           const struct gpu_rect *damage, uint8_t *pixels, size_t stride)
{
    const struct gpu_image *image = what->image, *cursor = what->cursor;
    uint8_t *first =
        image->pixels + (size_t)what->source.y * image->stride + (size_t)what->source.x * 4;
    pixman_image_t *target = pixman_image_create_bits_no_clear(
        PIXMAN_a8r8g8b8, (int)what->width, (int)what->height, (uint32_t *)pixels, (int)stride);
    pixman_image_t *source = pixman_image_create_bits_no_clear(
        image->opaque, (int)what->source.width, (int)what->source.height, (uint32_t *)first,
        (int)image->stride);
    pixman_image_t *over = cursor ? pixman_image_create_bits_no_clear(
                                        cursor->format, (int)cursor->width, (int)cursor->height,
                                        (uint32_t *)cursor->pixels, (int)cursor->stride)
                                  : NULL;
    bool ok = target && source && (over || !cursor) && scale(source, what) &&
              (!over || place_cursor(over, what));
    if (ok) {
        pixman_image_set_repeat(source, PIXMAN_REPEAT_PAD);
        pixman_image_composite32(PIXMAN_OP_SRC, source, NULL, target, (int)damage->x,
                                 (int)damage->y, 0, 0, (int)damage->x, (int)damage->y,
                                 (int)damage->width, (int)damage->height);
        canvas->counters->draws++;
    }
    if (ok && over) {
        pixman_image_composite32(PIXMAN_OP_OVER, over, NULL, target, (int)damage->x, (int)damage->y,
                                 0, 0, (int)damage->x, (int)damage->y, (int)damage->width,
                                 (int)damage->height);
        canvas->counters->draws++;
    }
    if (target)
        pixman_image_unref(target);
    if (source)
        pixman_image_unref(source);
    if (over)
        pixman_image_unref(over);
    return ok;
}

static void pixman_canvas_destroy(struct gpu_canvas *canvas)
{
    free(canvas);
}

static const struct gpu_canvas_ops pixman_ops = {
    .name = "2d",
    .adapter_count = 1,
    .image_create = pixman_create,
    .image_destroy = pixman_destroy,
    .write_begin = pixman_write_begin,
    .write_end = pixman_write_end,
    .read = pixman_read,
    .compose = pixman_compose,
    .destroy = pixman_canvas_destroy,
};

struct gpu_canvas *gpu_canvas_pixman_create(struct error *err)
{
    struct gpu_canvas *canvas = xcalloc(1, sizeof(*canvas));
    canvas->ops = &pixman_ops;
    strcpy(canvas->adapter_names[0], "pixman");
    return canvas;
}

#else

struct gpu_canvas *gpu_canvas_pixman_create(struct error *err)
{
    error_set(err, "this build has no pixman: install libpixman-1-dev and build again");
    return NULL;
}

#endif

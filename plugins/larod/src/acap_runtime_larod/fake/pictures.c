#include "pictures.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PLANES = 3 };

typedef struct {
    size_t width, height;
    double *values;
} Plane;

typedef struct {
    int is_yuv; /* of U and V four pixels share a value */
    Plane planes[PLANES];
} Picture;

size_t image_bytes(const Image *image) {
    if (image->format == NV12)
        return image->row * image->height * 3 / 2;
    return image->row * image->height * (image->format == RGB_PLANAR ? PLANES : 1);
}

static int allot(Picture *picture, int is_yuv, size_t width, size_t height) {
    int complete = 1;
    picture->is_yuv = is_yuv;
    for (int plane = 0; plane < PLANES; plane++) {
        size_t shared = is_yuv && plane ? 2 : 1;
        Plane *made = &picture->planes[plane];
        made->width = (width + shared - 1) / shared;
        made->height = (height + shared - 1) / shared;
        made->values = malloc(made->width * made->height * sizeof(double));
        complete &= made->values != NULL;
    }
    return complete;
}

static void give_back(Picture *picture) {
    for (int plane = 0; plane < PLANES; plane++)
        free(picture->planes[plane].values);
    memset(picture, 0, sizeof *picture);
}

/* Where a plane's value lies in an image. */
static size_t place(const Image *image, int plane, size_t x, size_t y) {
    switch (image->format) {
    case RGB_INTERLEAVED:
        return y * image->row + x * PLANES + (size_t)plane;
    case RGB_PLANAR:
        return ((size_t)plane * image->height + y) * image->row + x;
    default:
        return plane ? (image->height + y) * image->row + 2 * x + (size_t)(plane - 1) : y * image->row + x;
    }
}

static double clipped(double value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

static int unpack(Picture *picture, const uint8_t *bytes, const Image *image, Region region) {
    if (!allot(picture, image->format == NV12, region.width, region.height))
        return 0;
    for (int index = 0; index < PLANES; index++) {
        Plane *plane = &picture->planes[index];
        size_t shared = picture->is_yuv && index ? 2 : 1;
        for (size_t y = 0; y < plane->height; y++)
            for (size_t x = 0; x < plane->width; x++)
                plane->values[y * plane->width + x] =
                    bytes[place(image, index, region.x / shared + x, region.y / shared + y)];
    }
    return 1;
}

static void pack(const Picture *picture, uint8_t *bytes, const Image *image) {
    for (int index = 0; index < PLANES; index++) {
        const Plane *plane = &picture->planes[index];
        for (size_t y = 0; y < plane->height; y++)
            for (size_t x = 0; x < plane->width; x++)
                bytes[place(image, index, x, y)] = (uint8_t)nearbyint(clipped(plane->values[y * plane->width + x]));
    }
}

static int to_rgb(Picture *picture) {
    Picture rgb = {0};
    size_t width = picture->planes[0].width, height = picture->planes[0].height;
    if (!allot(&rgb, 0, width, height)) {
        give_back(&rgb);
        return 0;
    }
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++) {
            size_t here = y * width + x, colour = y / 2 * picture->planes[1].width + x / 2;
            double luma = (picture->planes[0].values[here] - 16) * 255 / 219;
            double u = (picture->planes[1].values[colour] - 128) * 255 / 224;
            double v = (picture->planes[2].values[colour] - 128) * 255 / 224;
            double red = luma + 1.402 * v, blue = luma + 1.772 * u;
            rgb.planes[0].values[here] = clipped(red);
            rgb.planes[1].values[here] = clipped((luma - 0.299 * red - 0.114 * blue) / 0.587);
            rgb.planes[2].values[here] = clipped(blue);
        }
    give_back(picture);
    *picture = rgb;
    return 1;
}

static int to_yuv(Picture *picture) {
    Picture yuv = {0};
    size_t width = picture->planes[0].width, height = picture->planes[0].height;
    if (!allot(&yuv, 1, width, height)) {
        give_back(&yuv);
        return 0;
    }
    memset(yuv.planes[1].values, 0, yuv.planes[1].width * yuv.planes[1].height * sizeof(double));
    memset(yuv.planes[2].values, 0, yuv.planes[2].width * yuv.planes[2].height * sizeof(double));
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++) {
            size_t here = y * width + x, colour = y / 2 * yuv.planes[1].width + x / 2;
            double red = picture->planes[0].values[here], blue = picture->planes[2].values[here];
            double luma = 0.299 * red + 0.587 * picture->planes[1].values[here] + 0.114 * blue;
            yuv.planes[0].values[here] = luma * 219 / 255 + 16;
            yuv.planes[1].values[colour] += ((blue - luma) / 1.772 * 224 / 255 + 128) / 4;
            yuv.planes[2].values[colour] += ((red - luma) / 1.402 * 224 / 255 + 128) / 4;
        }
    give_back(picture);
    *picture = yuv;
    return 1;
}

/* Where the centre of a pixel lies among `count` pixels that become `wanted`. */
static size_t before(size_t position, size_t count, size_t wanted, double *share) {
    double centre = ((double)position + 0.5) * (double)count / (double)wanted - 0.5;
    if (centre < 0)
        centre = 0;
    if (centre > (double)(count - 1))
        centre = (double)(count - 1);
    *share = centre - floor(centre);
    return (size_t)centre;
}

static int scale(Picture *picture, size_t width, size_t height) {
    Picture scaled = {0};
    if (!allot(&scaled, picture->is_yuv, width, height)) {
        give_back(&scaled);
        return 0;
    }
    for (int index = 0; index < PLANES; index++) {
        const Plane *from = &picture->planes[index];
        Plane *to = &scaled.planes[index];
        for (size_t y = 0; y < to->height; y++) {
            double down, right;
            size_t top = before(y, from->height, to->height, &down);
            size_t bottom = top + 1 < from->height ? top + 1 : top;
            for (size_t x = 0; x < to->width; x++) {
                size_t left = before(x, from->width, to->width, &right);
                size_t next = left + 1 < from->width ? left + 1 : left;
                const double *upper = from->values + top * from->width, *lower = from->values + bottom * from->width;
                to->values[y * to->width + x] = (upper[left] * (1 - right) + upper[next] * right) * (1 - down) +
                                                (lower[left] * (1 - right) + lower[next] * right) * down;
            }
        }
    }
    give_back(picture);
    *picture = scaled;
    return 1;
}

int convert_picture(const uint8_t *source, const Image *from, Region region, uint8_t *target, const Image *to) {
    Picture picture = {0};
    int scales = region.width != to->width || region.height != to->height;
    int done = unpack(&picture, source, from, region);
    if (done && picture.is_yuv && to->format != NV12)
        done = to_rgb(&picture);
    if (done && scales)
        done = scale(&picture, to->width, to->height);
    if (done && !picture.is_yuv && to->format == NV12)
        done = to_yuv(&picture);
    if (done)
        pack(&picture, target, to);
    give_back(&picture);
    return done;
}

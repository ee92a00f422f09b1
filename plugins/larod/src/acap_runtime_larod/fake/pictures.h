/* Images as the fake's conversions see them. */
#ifndef FAKE_PICTURES_H
#define FAKE_PICTURES_H

#include <stddef.h>
#include <stdint.h>

typedef enum { NV12, RGB_INTERLEAVED, RGB_PLANAR } Format;

typedef struct {
    Format format;
    size_t width, height;
    size_t row; /* bytes from row to row */
} Image;

typedef struct {
    size_t x, y, width, height;
} Region;

/* Bytes of an image; the planes follow each other without a gap. */
size_t image_bytes(const Image *image);

/* BT.601 with limited range, bilinear between pixel centres, in floating point. Returns 0 where memory runs out. */
int convert_picture(const uint8_t *source, const Image *from, Region region, uint8_t *target, const Image *to);

#endif

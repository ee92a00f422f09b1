// One conversion of an image. FROM, TO (each a format below) and SCALED (0 or 1) are given when this is compiled.
// BT.601 with limited range; bilinear between the centres of pixels. A colour is R, G, B from 0 to 255.
// An index fits in an int: the host lets no image have more than 16384 pixels a side.

#define NV12 0
#define RGB_INTERLEAVED 1
#define RGB_PLANAR 2

typedef __global const uchar *bytes;

// pocl's clamp(), rint() and convert_uchar_sat_rte() are calls, which make all of this three to ten times as slow.
static inline float between(const float least, const float value, const float most) {
    return value < least ? least : value > most ? most : value;
}

// The nearest byte to a level from 0 to 255.
static inline uchar rounded(const float level) {
    return (uchar)(level + 0.5f);
}

// The image that comes in: its size, the part of it to take, and how many of that part's pixels make one that goes out.
typedef struct {
    bytes data;
    int width, height, left, top, taken_width, taken_height;
    float step_x, step_y;
} image;

#if FROM == NV12
static inline float3 colour(const image source, const int x, const int y) {
    const bytes chroma = source.data + source.width * (source.height + y / 2) + (x & ~1);
    const float luma = (source.data[source.width * y + x] - 16) * (255 / 219.0f);
    const float u = (chroma[0] - 128) * (255 / 224.0f), v = (chroma[1] - 128) * (255 / 224.0f);
    const float green = 0.114f * 1.772f / 0.587f * u + 0.299f * 1.402f / 0.587f * v;
    const float red = luma + 1.402f * v, blue = luma + 1.772f * u;
    return (float3)(between(0, red, 255), between(0, luma - green, 255), between(0, blue, 255));
}
#elif FROM == RGB_INTERLEAVED
static inline float3 colour(const image source, const int x, const int y) {
    const bytes pixel = source.data + 3 * (source.width * y + x);
    return (float3)(pixel[0], pixel[1], pixel[2]);
}
#else
static inline float3 colour(const image source, const int x, const int y) {
    const int plane = source.width * source.height;
    const bytes red = source.data + source.width * y + x;
    return (float3)(red[0], red[plane], red[2 * plane]);
}
#endif

// Where the centre of pixel `index` lies among `count`, `step` of which make one.
static inline float place(const int index, const float step, const int count) {
    return between(0, (index + 0.5f) * step - 0.5f, count - 1);
}

// The colour that goes out at x, y.
static inline float3 sampled(const image source, const int x, const int y) {
#if SCALED
    const float across = place(x, source.step_x, source.taken_width);
    const float down = place(y, source.step_y, source.taken_height);
    const int left = across, top = down;
    const int x0 = source.left + left, x1 = source.left + min(left + 1, source.taken_width - 1);
    const int y0 = source.top + top, y1 = source.top + min(top + 1, source.taken_height - 1);
    const float3 upper = mix(colour(source, x0, y0), colour(source, x1, y0), across - left);
    const float3 lower = mix(colour(source, x0, y1), colour(source, x1, y1), across - left);
    return mix(upper, lower, down - top);
#else
    return colour(source, source.left + x, source.top + y);
#endif
}

// The byte that goes out at x, y of a plane: every `stride` bytes of a row one, from the one at `first`, of all that
// share pixels `1 << halved` by `1 << halved`.
static inline uchar resampled(const image source, const int first, const int stride, const int halved, int x, int y) {
    const bytes plane = source.data + first + source.width * (source.top >> halved) + stride * (source.left >> halved);
#if SCALED
    const int width = source.taken_width >> halved, height = source.taken_height >> halved;
    const float across = place(x, source.step_x, width), down = place(y, source.step_y, height);
    const int left = across, top = down;
    const bytes row0 = plane + source.width * top, row1 = plane + source.width * min(top + 1, height - 1);
    const int x0 = stride * left, x1 = stride * min(left + 1, width - 1);
    const float upper = mix((float)row0[x0], (float)row0[x1], across - left);
    const float lower = mix((float)row1[x0], (float)row1[x1], across - left);
    return rounded(mix(upper, lower, down - top));
#else
    return plane[source.width * y + stride * x];
#endif
}

__kernel void convert(bytes data, const int source_width, const int source_height, const int left, const int top,
                      const int taken_width, const int taken_height, const float step_x, const float step_y,
                      __global uchar *target, const int width, const int height) {
    const image source = {data, source_width, source_height, left, top, taken_width, taken_height, step_x, step_y};
#if TO == NV12
    // Each work item writes the four pixels that share a colour.
    const int x = 2 * get_global_id(0), y = 2 * get_global_id(1);
    if (x >= width) {
        return;
    }
    __global uchar *const chroma = target + width * (height + y / 2) + x;
#if FROM == NV12
    for (int row = y; row < y + 2; row++) {
        for (int column = x; column < x + 2; column++) {
            target[width * row + column] = resampled(source, 0, 1, 0, column, row);
        }
    }
    const int pixels = source_width * source_height;
    chroma[0] = resampled(source, pixels, 2, 1, x / 2, y / 2);
    chroma[1] = resampled(source, pixels + 1, 2, 1, x / 2, y / 2);
#else
    float3 sum = 0;
    for (int row = y; row < y + 2; row++) {
        for (int column = x; column < x + 2; column++) {
            const float3 rgb = sampled(source, column, row);
            const float luma = dot(rgb, (float3)(0.299f, 0.587f, 0.114f));
            target[width * row + column] = rounded(luma * (219 / 255.0f) + 16);
            sum += rgb;
        }
    }
    const float luma = dot(sum, (float3)(0.299f, 0.587f, 0.114f));
    chroma[0] = rounded((sum.z - luma) / 1.772f * (224 / 255.0f / 4) + 128);
    chroma[1] = rounded((sum.x - luma) / 1.402f * (224 / 255.0f / 4) + 128);
#endif
#else
    const int x = get_global_id(0), y = get_global_id(1);
    if (x >= width) {
        return;
    }
    const float3 level = sampled(source, x, y);
    const uchar3 rgb = (uchar3)(rounded(level.x), rounded(level.y), rounded(level.z));
#if TO == RGB_INTERLEAVED
    vstore3(rgb, width * y + x, target);
#else
    const int plane = width * height;
    __global uchar *const red = target + width * y + x;
    red[0] = rgb.x;
    red[plane] = rgb.y;
    red[2 * plane] = rgb.z;
#endif
#endif
}

/* Stands for the library of a chip's vendor. The chip replaces every byte by another: a model file is "ACME" and then
   the 256 bytes of a table. Built with: gcc -shared -fPIC -o libacme.so.1 acme.c */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ACME_OK, ACME_NO_DEVICE, ACME_NO_MEMORY, ACME_BAD_MODEL, ACME_TOO_LARGE };
enum { ACME_LARGEST = 1 << 20 };

typedef struct { int speed; int loaded; uint8_t table[256]; } acme_device;

/* Open the chip; speed is 1 or 2. Every opened device runs one model of its own. */
int acme_open(int speed, acme_device **device) {
    if (speed < 1 || speed > 2) return ACME_NO_DEVICE;
    *device = calloc(1, sizeof **device);
    if (!*device) return ACME_NO_MEMORY;
    (*device)->speed = speed;
    return ACME_OK;
}

int acme_load(acme_device *device, const char *path) {
    char magic[4];
    FILE *file = fopen(path, "rb");
    if (!file) return ACME_BAD_MODEL;
    device->loaded = fread(magic, 1, 4, file) == 4 && !memcmp(magic, "ACME", 4)
        && fread(device->table, 1, 256, file) == 256 && fgetc(file) == EOF;
    fclose(file);
    return device->loaded ? ACME_OK : ACME_BAD_MODEL;
}

int acme_run(const acme_device *device, const uint8_t *input, uint8_t *output, size_t size) {
    if (!device->loaded) return ACME_BAD_MODEL;
    if (size > ACME_LARGEST) return ACME_TOO_LARGE;
    for (size_t i = 0; i < size; i++) output[i] = device->table[input[i]];
    return ACME_OK;
}

void acme_close(acme_device *device) { free(device); }

const char *acme_message(int code) {
    static const char *const messages[] = {"no error", "no such device", "out of memory",
        "expected a model file, \"ACME\" and 256 bytes", "expected at most 1048576 bytes of input"};
    return code >= 0 && code <= ACME_TOO_LARGE ? messages[code] : "unknown error";
}

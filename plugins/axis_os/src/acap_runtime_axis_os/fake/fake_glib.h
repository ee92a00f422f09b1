/* What the fakes need of GLib, with a count of everything that is alive. Included once by each fake. */
#pragma once

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

static atomic_int live_errors;

static void fail(GError **error, GQuark domain, int code, const char *format, ...) {
    if (!error) return;
    va_list arguments;
    va_start(arguments, format);
    *error = malloc(sizeof **error);
    (*error)->domain = domain;
    (*error)->code = code;
    if (vasprintf(&(*error)->message, format, arguments) < 0) abort();
    va_end(arguments);
    live_errors++;
}

EXPORT void g_error_free(GError *error) {
    free(error->message);
    free(error);
    live_errors--;
}

/* The value of NAME in VARIABLE, which is written NAME=NUMBER,NAME=NUMBER; `otherwise` where it is not there. */
static long knob(const char *variable, const char *name, long otherwise) {
    const char *place = getenv(variable);
    size_t length = strlen(name);
    while (place && *place) {
        if (!strncmp(place, name, length) && place[length] == '=') return strtol(place + length + 1, NULL, 0);
        place = strchr(place, ',');
        if (place) place++;
    }
    return otherwise;
}

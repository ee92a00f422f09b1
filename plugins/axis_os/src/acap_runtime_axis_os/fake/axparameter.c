/* A fake libaxparameter.so.1.
 *
 * It has root.Brand.Brand=AXIS, root.Brand.ProdFullName with a word that is not ASCII, root.Acapruntime.Verbose=yes,
 * also by the name Verbose alone, and root.Fake.Empty.
 *
 * FAKE_AXPARAMETER=NAME=NUMBER,... knows:
 *   new=CODE      creating fails with this error
 *   get=CODE      reading fails with this error
 *   foreign=1     errors are of another domain
 *   unknown=CODE  the error for a parameter that does not exist; without it 12, which is documented for that
 *   silent=1      reading fails without an error
 */
#include "fake_glib.h"

#define VARIABLE "FAKE_AXPARAMETER"

struct AXParameter {
    char group[64];
};

static atomic_int live_parameters, live_strings, most_parameters;

static const char *const VALUES[][2] = {
    {"root.Brand.Brand", "AXIS"},
    {"root.Brand.ProdFullName", "AXIS Q1656 K\xc3\xa4mera"},
    {"root.Acapruntime.Verbose", "yes"},
    {"root.Fake.Empty", ""},
};

/* Read by tests: what is alive, and how many AXParameters there were at once. */
EXPORT int fake_axparameter_live(const char *kind) {
    if (!strcmp(kind, "parameters")) return live_parameters;
    if (!strcmp(kind, "strings")) return live_strings;
    if (!strcmp(kind, "errors")) return live_errors;
    if (!strcmp(kind, "most parameters")) return most_parameters;
    return -1;
}

EXPORT GQuark ax_parameter_error_quark(void) {
    return 77;
}

static GQuark domain(void) {
    return knob(VARIABLE, "foreign", 0) ? 1234 : ax_parameter_error_quark();
}

EXPORT void g_free(gpointer memory) {
    if (!memory) return;
    free(memory);
    live_strings--;
}

EXPORT AXParameter *ax_parameter_new(const gchar *app_name, GError **error) {
    long code = knob(VARIABLE, "new", -1);
    if (code >= 0) {
        fail(error, domain(), code, "the fake was told not to create an AXParameter");
        return NULL;
    }
    AXParameter *parameter = calloc(1, sizeof *parameter);
    snprintf(parameter->group, sizeof parameter->group, "root.%s.", app_name);
    if (parameter->group[5] >= 'a') parameter->group[5] -= 'a' - 'A';
    if (++live_parameters > most_parameters) most_parameters = live_parameters;
    return parameter;
}

EXPORT void ax_parameter_free(AXParameter *parameter) {
    free(parameter);
    live_parameters--;
}

EXPORT gboolean ax_parameter_get(AXParameter *parameter, const gchar *name, gchar **value, GError **error) {
    if (knob(VARIABLE, "silent", 0)) return 0;
    long code = knob(VARIABLE, "get", -1);
    if (code >= 0) {
        fail(error, domain(), code, "the fake was told not to read %s", name);
        return 0;
    }
    char path[256];
    snprintf(path, sizeof path, "%s%s", strchr(name, '.') ? "" : parameter->group, name);
    for (size_t each = 0; each < sizeof VALUES / sizeof *VALUES; each++) {
        if (strcmp(VALUES[each][0], path)) continue;
        *value = strdup(VALUES[each][1]);
        live_strings++;
        return 1;
    }
    fail(error, domain(), knob(VARIABLE, "unknown", 12), "%s does not exist", path);
    return 0;
}

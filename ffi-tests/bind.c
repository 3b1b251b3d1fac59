/* dqlite_node_set_bind_address(): what is an address, what is reported, what a failure leaves. Ports are the
 * system's choice, or belong to addresses of the loopback network that nobody uses. */
#include "check.h"

static const struct {
    const char *given;
    int result;
    const char *reported; /* NULL: as given */
} table[] = {
    {"127.0.0.1:0", 0, NULL},
    {"127.0.0.1:", 0, NULL},
    {"[127.0.0.1]:0", 0, NULL},
    {"[127.0.0.1]:", 0, NULL},
    {"127.1:0", 0, NULL},
    {"0x7f.1:0", 0, NULL},
    {"127.77.31.2", 0, NULL}, /* port 8080 */
    {"2135039747", 0, NULL},  /* 127.66.19.3, port 8080 */
    {"0.0.0.0:0", 0, NULL},
    {"@dqlite-ffi/a b", 0, NULL},
    {"127.0.0.1:0:5", 1, NULL},
    {"[::1]", 1, NULL},
    {"[::1:0", 1, NULL},
    {"[::1]x:0", 1, NULL},
    {"[]:0", 1, NULL},
    {"localhost", 1, NULL},
    {"localhost:1", 1, NULL},
    {"127.0.0.1:http", 1, NULL},
    {"127.0.0.1:0x50", 1, NULL},
    {"127.0.0.1:-1", 1, NULL},
    {"*:1", 1, NULL},
    {":1", 1, NULL},
    {"0:1", 1, NULL},
    {"::1:21109:x", 1, NULL},
    {"", 1, NULL},
    {"999.1.1.1:1", 1, NULL},
    {"unix:/x", 1, NULL},
    {"192.0.2.1:0", 1, NULL}, /* of documents, not of this machine */
};

static dqlite_node *new_node(const char *dir)
{
    dqlite_node *n = NULL;
    INT("create", 0, dqlite_node_create(2, "1", dir, &n));
    return n;
}

int main(void)
{
    char *dir = directory("d");
    dqlite_node *n = new_node(dir), *other;
    const char *found;
    char name[128], kept[128];
    size_t i;

    INT("none", 1, dqlite_node_get_bind_address(n) == NULL);
    for (i = 0; i < sizeof table / sizeof table[0]; i++) {
        found = dqlite_node_get_bind_address(n);
        snprintf(kept, sizeof kept, "%s", found == NULL ? "" : found);
        INT(table[i].given, table[i].result, dqlite_node_set_bind_address(n, table[i].given));
        if (table[i].result == 0) {
            TEXT("reported", table[i].given, dqlite_node_get_bind_address(n));
        } else {
            TEXT("the last one stays", kept, dqlite_node_get_bind_address(n));
        }
        TEXT("no text", "", dqlite_node_errmsg(n));
    }

    INT("@", 0, dqlite_node_set_bind_address(n, "@"));
    found = dqlite_node_get_bind_address(n);
    INT("the system's name", 1, strlen(found) == 6 && strspn(found + 1, "0123456789abcdef") == 5);

    name[0] = '@';
    memset(name + 1, 'n', 120);
    snprintf(name + 1, 20, "dqlite-ffi-%d-", (int)(getpid() % 100000));
    name[strlen(name)] = 'n';
    name[108] = '\0';
    INT("107 bytes", 0, dqlite_node_set_bind_address(n, name));
    TEXT("107 bytes", name, dqlite_node_get_bind_address(n));
    other = new_node(dir);
    INT("the name is taken", 1, dqlite_node_set_bind_address(other, name));
    INT("nothing is set", 1, dqlite_node_get_bind_address(other) == NULL);
    name[108] = 'n';
    name[109] = '\0';
    INT("108 bytes", 1, dqlite_node_set_bind_address(other, name));
    dqlite_node_destroy(other);

    if (is_ours()) {
        INT("ports do not wrap", 1, dqlite_node_set_bind_address(n, "127.0.0.1:65536"));
        INT("ports do not wrap", 1, dqlite_node_set_bind_address(n, "127.0.0.1:99999"));
        INT("NULL", DQLITE_MISUSE, dqlite_node_set_bind_address(n, NULL));
        INT("NULL", DQLITE_MISUSE, dqlite_node_set_bind_address(NULL, "@"));
        INT("NULL", 1, dqlite_node_get_bind_address(NULL) == NULL);
        /* A node that goes away gives its name back; C keeps the socket. */
        snprintf(name, sizeof name, "%s", dqlite_node_get_bind_address(n));
        dqlite_node_destroy(n);
        n = new_node(dir);
        INT("the name is free again", 0, dqlite_node_set_bind_address(n, name));
    }
    dqlite_node_destroy(n);
    free(dir);
    return checked();
}

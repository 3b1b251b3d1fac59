/* dqlite_server_*: files, start, restart, what is refused. */
#include "check.h"

#include <arpa/inet.h>
#include <sys/socket.h>

static void choose_address(char *address, size_t len)
{
    struct sockaddr_in in;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t size = sizeof in;
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    INT("bind", 0, bind(fd, (struct sockaddr *)&in, sizeof in));
    INT("getsockname", 0, getsockname(fd, (struct sockaddr *)&in, &size));
    close(fd);
    snprintf(address, len, "127.0.0.1:%d", ntohs(in.sin_port));
}

static void file_is(const char *dir, const char *name, const char *expected)
{
    char path[1024], found[1024] = "";
    FILE *file;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    file = fopen(path, "rb");
    INT(name, 1, file != NULL);
    if (file != NULL) {
        size_t len = fread(found, 1, sizeof found - 1, file);
        found[len] = '\0';
        fclose(file);
    }
    TEXT(name, expected, found);
}

static dqlite_server *new_server(const char *dir)
{
    dqlite_server *s = NULL;
    INT("create", 0, dqlite_server_create(dir, &s));
    INT("id", 0, dqlite_server_get_id(s));
    return s;
}

static void bootstrap(void)
{
    char *dir = directory("bootstrap");
    char address[64], other[64], info[256], store[256];
    dqlite_server *s = new_server(dir);

    choose_address(address, sizeof address);
    choose_address(other, sizeof other);
    snprintf(info, sizeof info, "v1\n%s\n3297041220608546238\n", address);
    snprintf(store, sizeof store, "v1\n%s\n3297041220608546238\nvoter\n", address);
    INT("stop before start", 1, dqlite_server_stop(s));
    INT("address", 0, dqlite_server_set_address(s, other));
    INT("address", 0, dqlite_server_set_address(s, address));
    INT("bootstrap", 0, dqlite_server_set_auto_bootstrap(s, true));
    if (is_ours()) {
        /* The default one; C would call NULL. */
        INT("connect", 0, dqlite_server_set_connect_func(s, NULL, NULL));
    }
    INT("start", 0, dqlite_server_start(s));
    INT("id", 3297041220608546238LL, dqlite_server_get_id(s));
    INT("start while running", 1, dqlite_server_start(s));
    file_is(dir, "server-info", info);
    file_is(dir, "node-store", store);
    INT("handover", 1, dqlite_server_handover(s));
    INT("stop", 0, dqlite_server_stop(s));
    INT("stop again", 1, dqlite_server_stop(s));
    INT("id", 3297041220608546238LL, dqlite_server_get_id(s));
    INT("start again", 0, dqlite_server_start(s));
    INT("stop", 0, dqlite_server_stop(s));
    dqlite_server_destroy(s);

    /* With nothing but the directory. */
    s = new_server(dir);
    INT("restart", 0, dqlite_server_start(s));
    INT("id", 3297041220608546238LL, dqlite_server_get_id(s));
    INT("stop", 0, dqlite_server_stop(s));
    dqlite_server_destroy(s);

    /* What the directory says counts. */
    s = new_server(dir);
    INT("address", 0, dqlite_server_set_address(s, other));
    INT("bootstrap", 0, dqlite_server_set_auto_bootstrap(s, true));
    INT("restart", 0, dqlite_server_start(s));
    file_is(dir, "server-info", info);
    file_is(dir, "node-store", store);
    if (!is_ours()) {
        INT("stop", 0, dqlite_server_stop(s));
    }
    /* Ours stops it first. */
    dqlite_server_destroy(s);
    free(dir);
}

static void refused(void)
{
    char *dir = directory("refused");
    const char *const nobody[] = {"127.0.0.1:1"};
    char address[64], wrong[256];
    dqlite_server *s = new_server("/nonexistent/directory");

    choose_address(address, sizeof address);
    INT("address", 0, dqlite_server_set_address(s, address));
    INT("bootstrap", 0, dqlite_server_set_auto_bootstrap(s, true));
    INT("no directory", 1, dqlite_server_start(s));
    dqlite_server_destroy(s);

    s = new_server(dir);
    INT("address", 0, dqlite_server_set_address(s, address));
    INT("neither bootstrap nor join", 1, dqlite_server_start(s));
    dqlite_server_destroy(s);

    free(dir);
    dir = directory("both");
    s = new_server(dir);
    INT("address", 0, dqlite_server_set_address(s, address));
    INT("bootstrap", 0, dqlite_server_set_auto_bootstrap(s, true));
    INT("join", 0, dqlite_server_set_auto_join(s, nobody, 1));
    INT("bootstrap and join", 1, dqlite_server_start(s));
    INT("no file is touched", 0, exists(dir, "server-info"));
    INT("no bootstrap", 0, dqlite_server_set_auto_bootstrap(s, false));
    INT("nobody answers", 1, dqlite_server_start(s));
    INT("it keeps its identity", 1, exists(dir, "server-info"));
    dqlite_server_destroy(s);

    snprintf(wrong, sizeof wrong, "v2\n%s\n1\n", address);
    write_file(dir, "server-info", wrong, strlen(wrong));
    s = new_server(dir);
    INT("another version", 1, dqlite_server_start(s));
    file_is(dir, "server-info", wrong);
    dqlite_server_destroy(s);

    write_file(dir, "server-info", "", 0);
    write_file(dir, "node-store", "v1\n", 3);
    s = new_server(dir);
    INT("address", 0, dqlite_server_set_address(s, address));
    INT("bootstrap", 0, dqlite_server_set_auto_bootstrap(s, true));
    INT("a store without a server", 1, dqlite_server_start(s));
    dqlite_server_destroy(s);
    free(dir);
}

static void null(void)
{
    char *dir = directory("null");
    const char *const holes[] = {"127.0.0.1:1", NULL};
    dqlite_server *s = new_server(dir);
    INT("no address", 1, dqlite_server_start(s));
    INT("handover", 1, dqlite_server_handover(s));
    INT("NULL", 1, dqlite_server_set_address(s, NULL));
    INT("NULL", 1, dqlite_server_set_bind_address(s, NULL));
    INT("NULL", 1, dqlite_server_set_auto_join(s, NULL, 1));
    INT("NULL", 0, dqlite_server_set_auto_join(s, NULL, 0));
    INT("NULL", 1, dqlite_server_set_auto_join(s, holes, 2));
    dqlite_server_destroy(s);
    INT("NULL", 1, dqlite_server_create(NULL, &s));
    INT("NULL", 1, dqlite_server_create("/", NULL));
    INT("NULL", 1, dqlite_server_set_address(NULL, "a"));
    INT("NULL", 1, dqlite_server_set_auto_bootstrap(NULL, true));
    INT("NULL", 1, dqlite_server_set_auto_join(NULL, NULL, 0));
    INT("NULL", 1, dqlite_server_set_bind_address(NULL, "a"));
    INT("NULL", 1, dqlite_server_set_connect_func(NULL, NULL, NULL));
    INT("NULL", 1, dqlite_server_start(NULL));
    INT("NULL", 0, dqlite_server_get_id(NULL));
    INT("NULL", 1, dqlite_server_handover(NULL));
    INT("NULL", 1, dqlite_server_stop(NULL));
    dqlite_server_destroy(NULL);
    free(dir);
}

int main(void)
{
    bootstrap();
    refused();
    if (is_ours()) {
        null();
    }
    return checked();
}

/* The life of a node: start, clients, the lock, stop, and what is not allowed when. */
#include "check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static dqlite_node *new_node(dqlite_node_id id, const char *dir, const char *bind_address)
{
    dqlite_node *n = NULL;
    INT("create", 0, dqlite_node_create(id, "127.0.0.1:1", dir, &n));
    if (bind_address != NULL) {
        INT("bind", 0, dqlite_node_set_bind_address(n, bind_address));
    }
    return n;
}

/* A free port of this machine. */
static void choose_address(char *address, size_t len, struct sockaddr_in *in)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t size = sizeof *in;
    memset(in, 0, sizeof *in);
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    INT("bind", 0, bind(fd, (struct sockaddr *)in, sizeof *in));
    INT("getsockname", 0, getsockname(fd, (struct sockaddr *)in, &size));
    close(fd);
    snprintf(address, len, "127.0.0.1:%d", ntohs(in->sin_port));
}

static int connect_tcp(const struct sockaddr_in *in)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (const struct sockaddr *)in, sizeof *in) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int connect_abstract(const char *name)
{
    struct sockaddr_un un;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(&un, 0, sizeof un);
    un.sun_family = AF_UNIX;
    memcpy(un.sun_path + 1, name + 1, strlen(name) - 1);
    if (connect(fd, (struct sockaddr *)&un, (socklen_t)(sizeof(sa_family_t) + strlen(name))) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Asks who leads, and answers the id; 0 for nobody, -1 where the connection is closed. */
static long long ask_for_leader(int fd)
{
    static const unsigned char hello[] = {1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    unsigned char answer[16];
    size_t got = 0;
    uint64_t id;
    if (send(fd, hello, sizeof hello, MSG_NOSIGNAL) != (ssize_t)sizeof hello) {
        return -1;
    }
    while (got < sizeof answer) {
        ssize_t len = recv(fd, answer + got, sizeof answer - got, 0);
        if (len <= 0) {
            return -1;
        }
        got += (size_t)len;
    }
    memcpy(&id, answer + 8, 8);
    return (long long)id;
}

static void serve(void)
{
    char *dir = directory("serve");
    char address[64];
    struct sockaddr_in in;
    dqlite_node *n, *other = NULL;
    int fd, tries;
    long long leader = 0;
    char byte;

    choose_address(address, sizeof address, &in);
    n = new_node(1, dir, address);
    INT("start", 0, dqlite_node_start(n));
    TEXT("no text", "", dqlite_node_errmsg(n));
    INT("lock", 1, exists(dir, "dqlite-lock"));
    INT("bootstrap", 1, exists(dir, "metadata1"));
    INT("bootstrap", 1, exists(dir, "0000000000000001-0000000000000001"));

    /* It accepts at once, and a node alone leads without an election timeout. */
    for (tries = 0; tries < 100 && leader == 0; tries++) {
        fd = connect_tcp(&in);
        INT("connect", 1, fd >= 0);
        leader = ask_for_leader(fd);
        close(fd);
    }
    INT("leader", 1, leader);

    INT("start again", 1, dqlite_node_start(n));
    PREFIX("start again", "couldn't lock the raft directory", dqlite_node_errmsg(n));
    fd = connect_tcp(&in);
    INT("it still serves", 1, ask_for_leader(fd));

    INT("a second node", 0, dqlite_node_create(1, "2", dir, &other));
    INT("a second node", 0, dqlite_node_set_bind_address(other, "127.0.0.1:0"));
    INT("a second node", 1, dqlite_node_start(other));
    PREFIX("a second node", "couldn't lock the raft directory", dqlite_node_errmsg(other));
    if (is_ours()) {
        INT("a failed node", 2, dqlite_node_start(other));
    }
    dqlite_node_destroy(other);

    INT("nobody takes over", 1, dqlite_node_handover(n));
    INT("it still serves", 1, ask_for_leader(connect_tcp(&in)));
    INT("stop", 0, dqlite_node_stop(n));
    /* What was on its way may still come; then the end, and not silence. */
    while (recv(fd, &byte, 1, 0) > 0) {
    }
    close(fd);
    INT("nobody listens", -1, connect_tcp(&in));
    INT("stop again", 2, dqlite_node_stop(n));
    INT("handover", 2, dqlite_node_handover(n));
    TEXT("the address stays", address, dqlite_node_get_bind_address(n));
    if (is_ours()) {
        INT("start again", 2, dqlite_node_start(n));
    }
    dqlite_node_destroy(n);

    n = new_node(1, dir, address);
    INT("a new node on the old directory", 0, dqlite_node_start(n));
    INT("stop", 0, dqlite_node_stop(n));
    dqlite_node_destroy(n);
    free(dir);
}

/* An id that does not bootstrap: the node waits to be added to a cluster. */
static void idle(void)
{
    char *dir = directory("idle"), *third = directory("third");
    dqlite_node *n = new_node(7, dir, "@"), *other = new_node(8, third, "127.0.0.1:0");
    int fd;

    INT("start", 0, dqlite_node_start(n));
    INT("several nodes in one process", 0, dqlite_node_start(other));
    INT("no metadata", 0, exists(dir, "metadata1"));
    fd = connect_abstract(dqlite_node_get_bind_address(n));
    INT("connect", 1, fd >= 0);
    INT("nobody leads", 0, ask_for_leader(fd));
    close(fd);
    if (is_ours()) {
        /* C never returns here. */
        INT("handover", 1, dqlite_node_handover(n));
    }
    INT("stop", 0, dqlite_node_stop(n));
    dqlite_node_destroy(n);
    if (!is_ours()) {
        INT("stop", 0, dqlite_node_stop(other));
    }
    /* Ours stops it first. */
    dqlite_node_destroy(other);
    free(dir);
    free(third);
}

static void start_fails(void)
{
    char *dir = directory("fails");
    unsigned char bytes[80] = {0};
    char address[64];
    struct sockaddr_in in;
    dqlite_node *n, *other;
    char *second = directory("second");

    bytes[0] = 7;
    write_file(dir, "0000000000000001-0000000000000001", bytes, sizeof bytes);
    n = new_node(2, dir, "127.0.0.1:0");
    INT("no recovery", 0, dqlite_node_set_auto_recovery(n, false));
    INT("start", 1, dqlite_node_start(n));
    PREFIX("start",
           "raft_start(): io: load closed segment 0000000000000001-0000000000000001: unexpected format version 7",
           dqlite_node_errmsg(n));
    INT("299 bytes at most", 1, strlen(dqlite_node_errmsg(n)) <= 299);
    dqlite_node_destroy(n);

    n = new_node(2, dir, "127.0.0.1:0");
    INT("with recovery", 0, dqlite_node_start(n));
    INT("stop", 0, dqlite_node_stop(n));
    dqlite_node_destroy(n);

    if (is_ours()) {
        /* The environment is read when the node is made. */
        setenv("LIBDQLITE_SQL_WORKERS", "many", 1);
        n = new_node(2, dir, "127.0.0.1:0");
        unsetenv("LIBDQLITE_SQL_WORKERS");
        INT("a wrong variable", 1, dqlite_node_start(n));
        TEXT("a wrong variable", "LIBDQLITE_SQL_WORKERS: a number from 1 to 64 expected, found 'many'",
             dqlite_node_errmsg(n));
        dqlite_node_destroy(n);

        n = new_node(2, dir, NULL);
        INT("no address", 2, dqlite_node_start(n));
        dqlite_node_destroy(n);

        /* Both bind before either listens; C hangs. */
        choose_address(address, sizeof address, &in);
        n = new_node(2, dir, address);
        other = new_node(2, second, address);
        INT("start", 0, dqlite_node_start(n));
        INT("the port is taken", 1, dqlite_node_start(other));
        TEXT("the port is taken", "uv_listen(): address already in use", dqlite_node_errmsg(other));
        dqlite_node_destroy(other);
        other = new_node(2, second, "127.0.0.1:0");
        INT("the lock was released", 0, dqlite_node_start(other));
        dqlite_node_destroy(other);
        dqlite_node_destroy(n);
    }
    free(dir);
    free(second);
}

/* Another process is not let in through an abstract socket: the connection closes without a byte. */
static void outsiders(const char *self)
{
    char *dir = directory("outsiders");
    dqlite_node *n = new_node(1, dir, "@");
    char *arguments[4], program[256], name[128];
    pid_t pid;
    int status = -1;
    extern char **environ;

    INT("start", 0, dqlite_node_start(n));
    snprintf(program, sizeof program, "%s", self);
    snprintf(name, sizeof name, "%s", dqlite_node_get_bind_address(n));
    arguments[0] = program;
    arguments[1] = name;
    arguments[2] = NULL;
    INT("spawn", 0, posix_spawn(&pid, program, NULL, NULL, arguments, environ));
    INT("wait", pid, waitpid(pid, &status, 0));
    INT("the outsider was turned away", 0, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    INT("we are let in", 1, ask_for_leader(connect_abstract(name)) >= 0);
    INT("stop", 0, dqlite_node_stop(n));
    dqlite_node_destroy(n);
    free(dir);
}

static int outsider(const char *name)
{
    int fd = connect_abstract(name);
    if (fd < 0) {
        return 2;
    }
    return ask_for_leader(fd) == -1 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct sigaction before, after;
    if (argc > 1) {
        return outsider(argv[1]);
    }
    sigaction(SIGPIPE, NULL, &before);
    serve();
    idle();
    start_fails();
    outsiders(argv[0]);
    sigaction(SIGPIPE, NULL, &after);
    INT("signals are as they were", 1, before.sa_handler == after.sa_handler);
    return checked();
}

/* Three servers of one cluster, by way of dqlite_server_*. In life each is a program of its own on a machine of its
 * own; here they share one, so that there is something to see without three machines.
 *
 *   cc -o three-servers three-servers.c $(pkg-config --cflags --libs dqlite sqlite3)
 *   mkdir /tmp/three && ./three-servers /tmp/three
 *
 * The first server makes a cluster, the others join it as spares and are made voters. The leader hands over and
 * stops, the others work on, and it comes back with nothing but its directory. Run it again on the same directory
 * to see all three come back.
 *
 * With a number from 1 to 3 behind the directory only that server runs, until its standard input ends: start three
 * of them in three terminals, kill one, and start it again. */
#include <arpa/inet.h>
#include <dqlite.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SERVERS 3

/* The role of a server, as clients know it. */
enum { VOTER = 0, STANDBY = 1, SPARE = 2 };

struct member {
    char directory[512];
    char address[64];
    dqlite_server *server;
};

static void fail(const char *what)
{
    fprintf(stderr, "three-servers: %s\n", what);
    exit(1);
}

static void check(int result, const char *what)
{
    if (result != 0) {
        fprintf(stderr, "three-servers: %s failed; LIBDQLITE_TRACE=1 shows why\n", what);
        exit(1);
    }
}

/* ---- As much of a client as this needs: there is none in the C API. All numbers are little-endian. ---- */

static int read_all(int fd, void *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = read(fd, bytes, len);
        if (n <= 0) {
            return 0;
        }
        bytes = (char *)bytes + n;
        len -= (size_t)n;
    }
    return 1;
}

/* Sends a request of up to two numbers to the server at this address. Returns the type of the answer, -1 if there is
 * none, and stores the answer's body. */
static int ask(const char *address, unsigned type, const uint64_t *numbers, unsigned n, char *body, size_t size)
{
    uint64_t message[4] = {1};
    struct sockaddr_in in;
    struct timeval patience = {10, 0};
    char host[64], *colon;
    unsigned char head[8];
    size_t len;
    int answer = -1, fd = socket(AF_INET, SOCK_STREAM, 0);

    snprintf(host, sizeof host, "%s", address);
    colon = strchr(host, ':');
    *colon = '\0';
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_port = htons((uint16_t)atoi(colon + 1));
    inet_pton(AF_INET, host, &in.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    /* The version of the protocol, a head (length in words, type), the body. */
    message[1] = n | (uint64_t)type << 32;
    memcpy(message + 2, numbers, n * sizeof *numbers);
    if (connect(fd, (struct sockaddr *)&in, sizeof in) == 0 &&
        write(fd, message, (2 + n) * 8) == (ssize_t)(2 + n) * 8 && read_all(fd, head, sizeof head)) {
        len = (head[0] | (size_t)head[1] << 8) * 8;
        if (len <= size && read_all(fd, body, len)) {
            answer = head[4];
        }
    }
    close(fd);
    return answer;
}

/* Stores the address of the leader as one of the servers knows it; empty if none does. */
static void find_leader(const struct member *members, char *leader, size_t size)
{
    char body[512];
    uint64_t zero = 0;
    int i;
    leader[0] = '\0';
    for (i = 0; i < SERVERS && leader[0] == '\0'; i++) {
        /* Leader (0) is answered by a server (1): its id and its address. */
        if (members[i].address[0] != '\0' &&
            ask(members[i].address, 0, &zero, 1, body, sizeof body) == 1) {
            snprintf(leader, size, "%s", body + 8);
        }
    }
}

static void wait_for_leader(const struct member *members, char *leader, size_t size)
{
    int tries;
    for (tries = 0; tries < 600; tries++) {
        find_leader(members, leader, size);
        if (leader[0] != '\0') {
            return;
        }
        usleep(50 * 1000);
    }
    fail("there is no leader");
}

/* Has the leader give a server a role. */
static void assign(const struct member *members, dqlite_node_id id, uint64_t role)
{
    uint64_t request[2];
    char leader[64], body[512];
    int tries;
    request[0] = id;
    request[1] = role;
    for (tries = 0; tries < 100; tries++) {
        wait_for_leader(members, leader, sizeof leader);
        /* Assign (13) is answered by an empty message (8), or by a failure (0): code and text. */
        if (ask(leader, 13, request, 2, body, sizeof body) == 8) {
            return;
        }
        usleep(100 * 1000);
    }
    fail("a role could not be assigned");
}

/* ---- The servers ---- */

/* Any free port: an example must run anywhere. Yours has an address that the others know. */
static void choose_address(char *address, size_t len)
{
    struct sockaddr_in in;
    socklen_t size = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&in, sizeof in) != 0 || getsockname(fd, (struct sockaddr *)&in, &size) != 0) {
        fail("no free port");
    }
    close(fd);
    snprintf(address, len, "127.0.0.1:%d", ntohs(in.sin_port));
}

/* The address of a server that was started before: line 2 of its server-info. */
static int known_address(struct member *member)
{
    char path[600];
    FILE *file;
    int known;
    snprintf(path, sizeof path, "%s/server-info", member->directory);
    file = fopen(path, "r");
    if (file == NULL) {
        return 0;
    }
    known = fscanf(file, "v1 %63s", member->address) == 1;
    fclose(file);
    return known;
}

static void start(struct member *member, const char *join)
{
    check(dqlite_server_create(member->directory, &member->server), "create");
    /* On a later start the directory knows better, and all this is without effect. */
    check(dqlite_server_set_address(member->server, member->address), "address");
    if (join == NULL) {
        check(dqlite_server_set_auto_bootstrap(member->server, true), "bootstrap");
    } else {
        check(dqlite_server_set_auto_join(member->server, &join, 1), "join");
    }
    check(dqlite_server_start(member->server), "start");
    printf("server %llu serves %s\n", dqlite_server_get_id(member->server), member->address);
    fflush(stdout);
}

static void stop(struct member *member)
{
    /* Before every stop: else the others notice only after a while that the leader is gone. That it returns 1
     * where nobody is there to take the vote is no reason not to stop. */
    dqlite_server_handover(member->server);
    check(dqlite_server_stop(member->server), "stop");
    dqlite_server_destroy(member->server);
    member->server = NULL;
}

/* Waits until the server's list has so many voters. */
static void wait_for_voters(const struct member *member, int wanted)
{
    char path[600], line[128];
    int tries, found;
    snprintf(path, sizeof path, "%s/node-store", member->directory);
    for (tries = 0; tries < 600; tries++) {
        FILE *file = fopen(path, "r");
        found = 0;
        while (file != NULL && fgets(line, sizeof line, file) != NULL) {
            found += strcmp(line, "voter\n") == 0;
        }
        if (file != NULL) {
            fclose(file);
        }
        if (found == wanted) {
            return;
        }
        usleep(50 * 1000);
    }
    fail("the list of servers is not refreshed");
}

/* One of the servers, in a process of its own. Tells who leads whenever that changes. */
static void run_one(struct member *members, int own)
{
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    char leader[64], last[64] = "", byte;
    int i, new = !known_address(&members[own]);

    if (new) {
        choose_address(members[own].address, sizeof members[own].address);
    }
    /* Where the others are their directories tell: they are on this machine. */
    while (own != 0 && new && !known_address(&members[0])) {
        usleep(50 * 1000);
    }
    start(&members[own], own == 0 ? NULL : members[0].address);
    if (own != 0 && new) {
        assign(members, dqlite_server_get_id(members[own].server), VOTER);
    }
    do {
        for (i = 0; i < SERVERS; i++) {
            if (i != own) {
                known_address(&members[i]);
            }
        }
        find_leader(members, leader, sizeof leader);
        if (leader[0] != '\0' && strcmp(leader, last) != 0) {
            printf("%s leads\n", leader);
            fflush(stdout);
            strcpy(last, leader);
        }
    } while (poll(&input, 1, 100) == 0 || read(STDIN_FILENO, &byte, 1) > 0);
    stop(&members[own]);
    printf("done\n");
}

int main(int argc, char **argv)
{
    struct member members[SERVERS];
    char leader[64], next[64];
    int i, new = 0, only = argc == 3 ? atoi(argv[2]) : 0;

    if ((argc != 2 && argc != 3) || only < 0 || only > SERVERS || (argc == 3 && only == 0)) {
        fprintf(stderr, "usage: three-servers DIRECTORY [1|2|3]\n");
        return 2;
    }
    /* The library does not touch signals; connections that break raise this one. */
    signal(SIGPIPE, SIG_IGN);
    /* So that there is something to see soon; 30 seconds are good for life. */
    setenv("LIBDQLITE_SERVER_REFRESH_MS", "200", 0);

    memset(members, 0, sizeof members);
    for (i = 0; i < SERVERS; i++) {
        snprintf(members[i].directory, sizeof members[i].directory, "%s/%d", argv[1], i + 1);
        mkdir(members[i].directory, 0700);
    }
    if (only > 0) {
        run_one(members, only - 1);
        return 0;
    }
    for (i = 0; i < SERVERS; i++) {
        if (!known_address(&members[i])) {
            choose_address(members[i].address, sizeof members[i].address);
            new = 1;
        }
        start(&members[i], i == 0 ? NULL : members[0].address);
    }
    if (new) {
        for (i = 1; i < SERVERS; i++) {
            assign(members, dqlite_server_get_id(members[i].server), VOTER);
        }
    }
    for (i = 0; i < SERVERS; i++) {
        wait_for_voters(&members[i], SERVERS);
    }
    printf("all %d servers vote, and each has it in its node-store\n", SERVERS);

    wait_for_leader(members, leader, sizeof leader);
    printf("%s leads, hands over and stops\n", leader);
    for (i = 0; i < SERVERS && strcmp(members[i].address, leader) != 0; i++) {
    }
    if (i == SERVERS) {
        fail("the leader is none of the servers");
    }
    stop(&members[i]);
    wait_for_leader(members, next, sizeof next);
    if (strcmp(next, leader) == 0) {
        fail("leadership did not move");
    }
    printf("%s leads; the other one comes back\n", next);
    start(&members[i], members[(i + 1) % SERVERS].address);
    wait_for_voters(&members[i], SERVERS);

    for (i = 0; i < SERVERS; i++) {
        stop(&members[i]);
    }
    printf("done\n");
    return 0;
}

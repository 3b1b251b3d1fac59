/* Lives of nodes at random: three members of a cluster and a node of its own are created, started, handed over, stopped,
 * recovered and destroyed by several threads, in any state and beside each other, while clients write.
 *
 *   LIFECYCLES=10000 lifecycles     that many nodes are created (100)
 *
 * Every call has to return, with a code that it documents; what was acknowledged has to be there in the end. */
#include "check.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#define MEMBERS 3
#define PLACES (MEMBERS + 1)
#define DRIVERS 4
#define WRITERS 2
#define ROWS_MAX 2000000

/* A node that may be used by several threads, and goes away when none of them does. */
struct place {
    pthread_rwlock_t lock;
    dqlite_node *node;
    dqlite_node_id id;
    char address[64];
    char *directory;
};

static struct place places[PLACES];
static atomic_int lives, wanted, ending;
static atomic_long calls, slowest_ms, acked[WRITERS], refused;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- A client ---- */

static int dial(const char *address)
{
    struct sockaddr_in in;
    struct timeval patience = {5, 0};
    const uint64_t version = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&in, 0, sizeof in);
    in.sin_family = AF_INET;
    in.sin_port = htons((uint16_t)atoi(strchr(address, ':') + 1));
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&in, sizeof in) != 0 || send(fd, &version, 8, MSG_NOSIGNAL) != 8) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Sends a request and reads its answer, whose type is returned; -1 where there is none. */
static int ask(int fd, unsigned type, const void *body, size_t len, char *answer, size_t size)
{
    char message[512] = {0};
    uint32_t words = (uint32_t)(len + 7) / 8;
    unsigned char head[8];
    size_t wanted_bytes;
    memcpy(message, &words, 4);
    message[4] = (char)type;
    memcpy(message + 8, body, len);
    if (send(fd, message, 8 + words * 8, MSG_NOSIGNAL) < 0 || recv(fd, head, 8, MSG_WAITALL) != 8) {
        return -1;
    }
    memcpy(&words, head, 4);
    wanted_bytes = (size_t)words * 8;
    if (wanted_bytes > size || recv(fd, answer, wanted_bytes, MSG_WAITALL) != (ssize_t)wanted_bytes) {
        return -1;
    }
    return head[4];
}

static int exec(int fd, unsigned type, const char *sql, char *answer, size_t size)
{
    char body[256] = {0};
    snprintf(body + 8, sizeof body - 8, "%s", sql);
    return ask(fd, type, body, 8 + strlen(sql) + 1, answer, size);
}

/* A connection to the leader with the database open, or -1. */
static int leader(int first, int count)
{
    char answer[512], body[40] = {0};
    uint64_t zero = 0;
    int i, fd, to;
    memcpy(body, "lives", 6);
    for (i = 0; i < count; i++) {
        fd = dial(places[first + i].address);
        if (fd < 0) {
            continue;
        }
        /* Leader (0) is answered by a server (1), open (3) by a database (4). */
        if (ask(fd, 0, &zero, 8, answer, sizeof answer) == 1 && answer[8] != '\0') {
            to = dial(answer + 8);
            close(fd);
            if (to >= 0 && ask(to, 3, body, 24, answer, sizeof answer) == 4) {
                return to;
            }
            fd = to;
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    return -1;
}

static void *write_rows(void *arg)
{
    int number = (int)(intptr_t)arg, fd = -1;
    char sql[128], answer[512];
    while (!ending && acked[number] < ROWS_MAX) {
        if (fd < 0 && (fd = leader(0, MEMBERS)) < 0) {
            usleep(5000);
            continue;
        }
        snprintf(sql, sizeof sql, "INSERT OR REPLACE INTO t VALUES(%d, %ld)", number, acked[number] + 1);
        /* Exec (8) is answered by a result (6). Again until it is: whether a lost answer meant done is not known. */
        if (exec(fd, 8, sql, answer, sizeof answer) == 6) {
            acked[number] += 1;
        } else {
            refused += 1;
            close(fd);
            fd = -1;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return NULL;
}

/* ---- Lives ---- */

static void allowed(const char *what, int code, const char *text)
{
    /* 0, and the codes of the documentation: an error, and not now. */
    if (code < 0 || code > 2) {
        fprintf(stderr, "%s: %d %s\n", what, code, text);
        INT(what, 0, code);
    }
}

static void timed(double began)
{
    long ms = (long)((now() - began) * 1000), known = slowest_ms;
    calls += 1;
    while (ms > known && !atomic_compare_exchange_weak(&slowest_ms, &known, ms)) {
    }
}

static dqlite_node *create(const struct place *place)
{
    dqlite_node *n = NULL;
    lives += 1;
    INT("create", 0, dqlite_node_create(place->id, place->address, place->directory, &n));
    dqlite_node_set_network_latency_ms(n, 10);
    dqlite_node_set_snapshot_params(n, 64, 64);
    return n;
}

/* Something with the node of this place, whatever it is doing. */
static void act(struct place *place, unsigned *seed)
{
    struct dqlite_node_info_ext servers[1];
    dqlite_node_id id;
    uint64_t index, term;
    double began = now();
    unsigned what = (unsigned)rand_r(seed) % 16;
    if (what == 0 || place->node == NULL) {
        pthread_rwlock_wrlock(&place->lock);
        dqlite_node_destroy(place->node);
        place->node = create(place);
        pthread_rwlock_unlock(&place->lock);
        timed(began);
        return;
    }
    pthread_rwlock_rdlock(&place->lock);
    if (place->node == NULL) {
        pthread_rwlock_unlock(&place->lock);
        return;
    }
    if (what < 8) {
        /* Not in use any more, or not yet. */
        if (dqlite_node_set_bind_address(place->node, place->address) == 0) {
            allowed("start", dqlite_node_start(place->node), dqlite_node_errmsg(place->node));
        }
    } else if (what < 10) {
        allowed("handover", dqlite_node_handover(place->node), dqlite_node_errmsg(place->node));
    } else if (what < 12) {
        allowed("stop", dqlite_node_stop(place->node), dqlite_node_errmsg(place->node));
    } else if (what < 14) {
        allowed("describe", dqlite_node_describe_last_entry(place->node, &index, &term), dqlite_node_errmsg(place->node));
        id = dqlite_generate_node_id(place->address);
        INT("id", 1, id != 0);
    } else if (place == &places[MEMBERS]) {
        memset(servers, 0, sizeof servers);
        servers[0].size = sizeof servers[0];
        servers[0].id = place->id;
        servers[0].address = (uint64_t)(uintptr_t)place->address;
        servers[0].dqlite_role = 0;
        allowed("recover", dqlite_node_recover_ext(place->node, servers, 1), dqlite_node_errmsg(place->node));
    } else if (what == 14) {
        allowed("weight", dqlite_node_set_failure_domain(place->node, what), dqlite_node_errmsg(place->node));
    } else {
        pthread_rwlock_unlock(&place->lock);
        usleep((unsigned)rand_r(seed) % 40000);
        return;
    }
    pthread_rwlock_unlock(&place->lock);
    timed(began);
}

static void *drive(void *arg)
{
    unsigned seed = (unsigned)(intptr_t)arg;
    while (lives < wanted) {
        act(&places[(unsigned)rand_r(&seed) % PLACES], &seed);
    }
    return NULL;
}

static void run(struct place *place)
{
    if (place->node != NULL) {
        dqlite_node_destroy(place->node);
    }
    place->node = create(place);
    INT("bind", 0, dqlite_node_set_bind_address(place->node, place->address));
    INT("start", 0, dqlite_node_start(place->node));
    TEXT("start", "", dqlite_node_errmsg(place->node));
}

static int wait_for_leader(int first, int count)
{
    double until = now() + 60;
    int fd;
    while ((fd = leader(first, count)) < 0 && now() < until) {
        usleep(10000);
    }
    INT("a leader", 1, fd >= 0);
    return fd;
}

static void form(void)
{
    char answer[512], body[80] = {0};
    uint64_t request[2];
    int i, fd;
    for (i = 0; i < PLACES; i++) {
        run(&places[i]);
    }
    for (i = 1; i < MEMBERS; i++) {
        fd = wait_for_leader(0, 1);
        request[0] = places[i].id;
        request[1] = 0;
        memcpy(body, request, 8);
        strcpy(body + 8, places[i].address);
        /* Add (12) and assign (13) are answered by an empty message (8). */
        INT("add", 8, ask(fd, 12, body, 8 + strlen(places[i].address) + 1, answer, sizeof answer));
        INT("assign", 8, ask(fd, 13, request, 16, answer, sizeof answer));
        close(fd);
    }
    fd = wait_for_leader(0, 1);
    INT("table", 6, exec(fd, 8, "CREATE TABLE t(writer, n, PRIMARY KEY(writer, n))", answer, sizeof answer));
    close(fd);
}

/* Everything acknowledged is there. */
static void judge(void)
{
    char sql[128], answer[512];
    int i, fd;
    long long count;
    for (i = 0; i < PLACES; i++) {
        run(&places[i]);
    }
    close(wait_for_leader(MEMBERS, 1));
    fd = wait_for_leader(0, MEMBERS);
    for (i = 0; i < WRITERS; i++) {
        snprintf(sql, sizeof sql, "SELECT count(*) FROM t WHERE writer = %d AND n <= %ld", i, (long)acked[i]);
        /* Query (9) is answered by rows (7): one column, its name, one type, one number. */
        INT("rows", 7, exec(fd, 9, sql, answer, sizeof answer));
        memcpy(&count, answer + 8 + (strlen(answer + 8) / 8 + 1) * 8 + 8, 8);
        INT("acknowledged rows", acked[i], count);
    }
    close(fd);
    for (i = 0; i < PLACES; i++) {
        INT("stop", 0, dqlite_node_stop(places[i].node));
        dqlite_node_destroy(places[i].node);
    }
}

int main(void)
{
    pthread_t drivers[DRIVERS], writers[WRITERS];
    const char *count = getenv("LIFECYCLES"), *seed = getenv("LIFECYCLES_SEED");
    double began = now();
    struct sockaddr_in in;
    socklen_t size = sizeof in;
    char name[16];
    int i, fd, base = seed != NULL ? atoi(seed) : (int)getpid();

    wanted = count != NULL ? atoi(count) : 100;
    for (i = 0; i < PLACES; i++) {
        pthread_rwlock_init(&places[i].lock, NULL);
        /* The last one is a cluster of its own. */
        places[i].id = i == MEMBERS ? 1 : (dqlite_node_id)i + 1;
        snprintf(name, sizeof name, "%d", i);
        places[i].directory = directory(name);
        memset(&in, 0, sizeof in);
        in.sin_family = AF_INET;
        in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        fd = socket(AF_INET, SOCK_STREAM, 0);
        INT("bind", 0, bind(fd, (struct sockaddr *)&in, sizeof in));
        INT("getsockname", 0, getsockname(fd, (struct sockaddr *)&in, &size));
        close(fd);
        snprintf(places[i].address, sizeof places[i].address, "127.0.0.1:%d", ntohs(in.sin_port));
    }
    form();
    for (i = 0; i < WRITERS; i++) {
        pthread_create(&writers[i], NULL, write_rows, (void *)(intptr_t)i);
    }
    for (i = 0; i < DRIVERS; i++) {
        pthread_create(&drivers[i], NULL, drive, (void *)(intptr_t)(base + i));
    }
    for (i = 0; i < DRIVERS; i++) {
        pthread_join(drivers[i], NULL);
    }
    ending = 1;
    for (i = 0; i < WRITERS; i++) {
        pthread_join(writers[i], NULL);
    }
    judge();
    /* A handover waits for an election timeout at most, a stop for the disk. */
    INT("no call takes a minute", 1, slowest_ms < 60000);
    for (i = 0; i < PLACES; i++) {
        free(places[i].directory);
        pthread_rwlock_destroy(&places[i].lock);
    }
    printf("%d lives, %ld calls, the slowest %ld ms, %ld rows acknowledged, %ld refused, %.1f s, seed %d: ", (int)lives, (long)calls,
           (long)slowest_ms, (long)(acked[0] + acked[1]), (long)refused, now() - began, base);
    return checked();
}

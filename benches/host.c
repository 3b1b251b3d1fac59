/* One node on whatever libdqlite.so.0 the dynamic linker finds: the process that benchmarks, crash tests and handovers start and kill.
 *
 * usage: host ID ADDRESS DIR [OPTION...]
 *   bind=ADDRESS  listen there instead of at ADDRESS, which then is only what the other nodes are told
 *   busy=MS  snapshot=THRESHOLD,TRAILING  block=BYTES  domain=N  latency=MS  compress=0|1  handover=0|1 (before the stop)
 *   roles=VOTERS,STANDBYS  the library manages the roles, with these targets
 *
 * Prints "READY ADDRESS VERSION" once the node accepts connections. Stops the node, prints "STOPPED CODE" and ends when its
 * standard input ends or on SIGTERM or SIGINT. Exit status: 0 stopped well, 1 the library refused something (its text is printed).
 */
#include <dqlite.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Newer than the oldest library this runs on (1.11): null there. */
extern int dqlite_node_set_busy_timeout(dqlite_node *n, unsigned msecs) __attribute__((weak));
extern int dqlite_node_set_block_size(dqlite_node *n, size_t size) __attribute__((weak));
extern int dqlite_node_set_snapshot_compression(dqlite_node *n, bool enabled) __attribute__((weak));
extern int dqlite_node_enable_role_management(dqlite_node *n) __attribute__((weak));
extern int dqlite_node_set_target_voters(dqlite_node *n, int voters) __attribute__((weak));
extern int dqlite_node_set_target_standbys(dqlite_node *n, int standbys) __attribute__((weak));
extern int dqlite_node_handover(dqlite_node *n) __attribute__((weak));
extern int dqlite_version_number(void);

static dqlite_node *node;
static const char *listen_at;
static bool hand_over;

static void refuse(const char *what, int code)
{
	printf("FAILED %s: %d %s\n", what, code, dqlite_node_errmsg(node));
	fflush(stdout);
	exit(1);
}

static void check(const char *what, int code)
{
	if (code != 0) {
		refuse(what, code);
	}
}

static void set_option(const char *option)
{
	unsigned threshold, trailing, number;
	if (strncmp(option, "bind=", 5) == 0) {
		listen_at = option + 5;
	} else if (sscanf(option, "latency=%u", &number) == 1) {
		check(option, dqlite_node_set_network_latency_ms(node, number));
	} else if (sscanf(option, "compress=%u", &number) == 1) {
		/* 1.11 compresses and cannot be told not to. */
		check(option, dqlite_node_set_snapshot_compression != NULL ? dqlite_node_set_snapshot_compression(node, number) : 0);
	} else if (sscanf(option, "handover=%u", &number) == 1) {
		hand_over = number != 0 && dqlite_node_handover != NULL;
	} else if (sscanf(option, "roles=%u,%u", &threshold, &trailing) == 2) {
		check(option, dqlite_node_enable_role_management != NULL ? dqlite_node_enable_role_management(node) : -1);
		check(option, dqlite_node_set_target_voters(node, (int)threshold));
		check(option, dqlite_node_set_target_standbys(node, (int)trailing));
	} else if (sscanf(option, "snapshot=%u,%u", &threshold, &trailing) == 2) {
		check(option, dqlite_node_set_snapshot_params(node, threshold, trailing));
	} else if (sscanf(option, "busy=%u", &number) == 1) {
		check(option, dqlite_node_set_busy_timeout != NULL ? dqlite_node_set_busy_timeout(node, number) : -1);
	} else if (sscanf(option, "block=%u", &number) == 1) {
		check(option, dqlite_node_set_block_size != NULL ? dqlite_node_set_block_size(node, number) : -1);
	} else if (sscanf(option, "domain=%u", &number) == 1) {
		check(option, dqlite_node_set_failure_domain(node, number));
	} else {
		printf("FAILED unknown option %s\n", option);
		exit(1);
	}
}

/* Waits for the end of standard input or for a signal. */
static void wait_for_end(int signals)
{
	struct pollfd fds[2] = {{STDIN_FILENO, POLLIN, 0}, {signals, POLLIN, 0}};
	char unused[256];
	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR) {
			return;
		}
		if (fds[1].revents != 0 || (fds[0].revents != 0 && read(STDIN_FILENO, unused, sizeof unused) <= 0)) {
			return;
		}
	}
}

int main(int argc, char *argv[])
{
	sigset_t ending;
	if (argc < 4) {
		fprintf(stderr, "usage: %s ID ADDRESS DIR [bind=ADDRESS] [busy=MS] [snapshot=THRESHOLD,TRAILING] ...\n", argv[0]);
		return 2;
	}
	/* Libraries before ours write to sockets without MSG_NOSIGNAL. */
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&ending);
	sigaddset(&ending, SIGTERM);
	sigaddset(&ending, SIGINT);
	/* Before any thread exists, so that none of the library's threads takes the signal. */
	sigprocmask(SIG_BLOCK, &ending, NULL);
	int signals = signalfd(-1, &ending, SFD_CLOEXEC);

	int rv = dqlite_node_create(strtoull(argv[1], NULL, 10), argv[2], argv[3], &node);
	if (rv != 0) {
		refuse("create", rv);
	}
	listen_at = argv[2];
	for (int i = 4; i < argc; i++) {
		set_option(argv[i]);
	}
	check("bind", dqlite_node_set_bind_address(node, listen_at));
	check("start", dqlite_node_start(node));
	printf("READY %s %d\n", argv[2], dqlite_version_number());
	fflush(stdout);
	wait_for_end(signals);
	if (hand_over) {
		printf("HANDOVER %d\n", dqlite_node_handover(node));
	}
	rv = dqlite_node_stop(node);
	dqlite_node_destroy(node);
	printf("STOPPED %d\n", rv);
	return rv != 0;
}

/* Setters: bounds and codes, before a start and while the node runs. */
#include "check.h"

static int no_connection(void *arg, const char *address, int *fd)
{
    (void)arg;
    (void)address;
    (void)fd;
    return 16;
}

static void bounds(dqlite_node *n)
{
    static const struct {
        unsigned long long ns;
        int result;
    } latencies[] = {
        {0, 2},
        {999999, 2},
        {1000000, 0},
        {3600000000000ULL, 0},
        {3600000000001ULL, 2},
        {~0ULL, 2},
    };
    static const struct {
        unsigned threshold, trailing;
        int strategy, result;
    } params[] = {
        {0, 4, 0, 0}, {0, 3, 0, 2}, {1024, 1024, 1, 0}, {1024, 1023, 0, 2}, {1, 4, 2, 2}, {1, 4, -1, 2}, {1, 4, 0, 0},
    };
    size_t i;

    for (i = 0; i < sizeof latencies / sizeof latencies[0]; i++) {
        INT("latency", latencies[i].result, dqlite_node_set_network_latency(n, latencies[i].ns));
    }
    INT("0 ms", 2, dqlite_node_set_network_latency_ms(n, 0));
    INT("3600001 ms", 2, dqlite_node_set_network_latency_ms(n, 3600001));
    INT("10 ms", 0, dqlite_node_set_network_latency_ms(n, 10));
    for (i = 0; i < sizeof params / sizeof params[0]; i++) {
        INT("snapshot params", params[i].result,
            dqlite_node_set_snapshot_params_v2(n, params[i].threshold, params[i].trailing, params[i].strategy));
        if (params[i].strategy == 0) {
            INT("snapshot params", params[i].result,
                dqlite_node_set_snapshot_params(n, params[i].threshold, params[i].trailing));
        }
    }
    for (i = 512; i <= 262144; i *= 2) {
        INT("block size", 0, dqlite_node_set_block_size(n, i));
    }
    INT("block size 0", 1, dqlite_node_set_block_size(n, 0));
    INT("block size 256", 1, dqlite_node_set_block_size(n, 256));
    INT("block size 1000", 1, dqlite_node_set_block_size(n, 1000));
    INT("block size 524288", 1, dqlite_node_set_block_size(n, 524288));
    INT("block size 4096", 0, dqlite_node_set_block_size(n, 4096));
}

/* What is allowed at any time. */
static void at_any_time(dqlite_node *n)
{
    INT("failure domain", 0, dqlite_node_set_failure_domain(n, ~0ULL));
    INT("target voters", 0, dqlite_node_set_target_voters(n, -1));
    INT("target voters", 0, dqlite_node_set_target_voters(n, 3));
    INT("target stand-bys", 0, dqlite_node_set_target_standbys(n, -1));
    INT("target stand-bys", 0, dqlite_node_set_target_standbys(n, 0));
    INT("pool threads", 0, dqlite_node_set_pool_thread_count(n, 0));
    INT("pool threads", 0, dqlite_node_set_pool_thread_count(n, 4));
    INT("auto-recovery", 0, dqlite_node_set_auto_recovery(n, false));
    INT("auto-recovery", 0, dqlite_node_set_auto_recovery(n, true));
    INT("compression", 0, dqlite_node_set_snapshot_compression(n, false));
    INT("compression", 0, dqlite_node_set_snapshot_compression(n, true));
    INT("busy timeout", 0, dqlite_node_set_busy_timeout(n, 1000));
}

static void before(dqlite_node *n)
{
    bounds(n);
    at_any_time(n);
    INT("connect function", 0, dqlite_node_set_connect_func(n, no_connection, NULL));
    INT("the default one", 0, dqlite_node_set_connect_func(n, NULL, NULL));
    if (is_ours()) {
        INT("disk mode", DQLITE_ERROR, dqlite_node_enable_disk_mode(n));
    }
    INT("stop", DQLITE_MISUSE, dqlite_node_stop(n));
    INT("handover", DQLITE_MISUSE, dqlite_node_handover(n));
    TEXT("no setter sets a text", "", dqlite_node_errmsg(n));
}

static void while_running(dqlite_node *n)
{
    at_any_time(n);
    INT("role management", 0, dqlite_node_enable_role_management(n));
    INT("bind", 2, dqlite_node_set_bind_address(n, "127.0.0.1:0"));
    INT("connect function", 2, dqlite_node_set_connect_func(n, no_connection, NULL));
    INT("latency", 2, dqlite_node_set_network_latency(n, 5000000));
    INT("latency", 2, dqlite_node_set_network_latency_ms(n, 5));
    INT("snapshot params", 2, dqlite_node_set_snapshot_params(n, 10, 10));
    INT("snapshot params", 2, dqlite_node_set_snapshot_params_v2(n, 10, 10, 0));
    INT("block size", 2, dqlite_node_set_block_size(n, 4096));
    INT("block size", 2, dqlite_node_set_block_size(n, 1));
    if (is_ours()) {
        INT("disk mode", 2, dqlite_node_enable_disk_mode(n));
    }
    TEXT("still the same address", "127.0.0.1:0", dqlite_node_get_bind_address(n));
    TEXT("no text", "", dqlite_node_errmsg(n));
    if (is_ours()) {
        uint64_t index = 7, term = 8;
        INT("describe", 2, dqlite_node_describe_last_entry(n, &index, &term));
        INT("outputs are untouched", 1, index == 7 && term == 8);
        TEXT("describe says why", "dqlite_node_describe_last_entry(): a node that was neither started nor failed expected",
             dqlite_node_errmsg(n));
    }
}

static void null(void)
{
    uint64_t index, term;
    INT("NULL", 2, dqlite_node_start(NULL));
    INT("NULL", 2, dqlite_node_stop(NULL));
    INT("NULL", 2, dqlite_node_handover(NULL));
    INT("NULL", 2, dqlite_node_set_connect_func(NULL, no_connection, NULL));
    INT("NULL", 2, dqlite_node_set_network_latency(NULL, 5000000));
    INT("NULL", 2, dqlite_node_set_network_latency_ms(NULL, 5));
    INT("NULL", 2, dqlite_node_set_failure_domain(NULL, 1));
    INT("NULL", 2, dqlite_node_set_snapshot_params(NULL, 10, 10));
    INT("NULL", 2, dqlite_node_set_snapshot_params_v2(NULL, 10, 10, 0));
    INT("NULL", 2, dqlite_node_set_block_size(NULL, 4096));
    INT("NULL", 2, dqlite_node_set_target_voters(NULL, 1));
    INT("NULL", 2, dqlite_node_set_target_standbys(NULL, 1));
    INT("NULL", 2, dqlite_node_set_pool_thread_count(NULL, 1));
    INT("NULL", 2, dqlite_node_set_auto_recovery(NULL, true));
    INT("NULL", 2, dqlite_node_set_snapshot_compression(NULL, true));
    INT("NULL", 2, dqlite_node_enable_role_management(NULL));
    INT("NULL", 2, dqlite_node_set_busy_timeout(NULL, 1));
    INT("NULL", 2, dqlite_node_enable_disk_mode(NULL));
    INT("NULL", 2, dqlite_node_recover(NULL, NULL, 0));
    INT("NULL", 2, dqlite_node_recover_ext(NULL, NULL, 0));
    INT("NULL", 2, dqlite_node_describe_last_entry(NULL, &index, &term));
}

int main(void)
{
    char *dir = directory("d");
    dqlite_node *n = NULL;

    INT("create", 0, dqlite_node_create(1, "127.0.0.1:0", dir, &n));
    before(n);
    INT("bind", 0, dqlite_node_set_bind_address(n, "127.0.0.1:0"));
    INT("start", 0, dqlite_node_start(n));
    while_running(n);
    INT("stop", 0, dqlite_node_stop(n));
    INT("stop again", 2, dqlite_node_stop(n));
    dqlite_node_destroy(n);
    if (is_ours()) {
        null();
    }
    free(dir);
    return checked();
}

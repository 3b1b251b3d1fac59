/* Every symbol, bound at start: the program does not start where one is missing. */
#include "check.h"

typedef void (*any)(void);

int main(void)
{
    any functions[] = {
        (any)dqlite_generate_node_id,
        (any)dqlite_node_create,
        (any)dqlite_node_describe_last_entry,
        (any)dqlite_node_destroy,
        (any)dqlite_node_enable_disk_mode,
        (any)dqlite_node_enable_role_management,
        (any)dqlite_node_errmsg,
        (any)dqlite_node_get_bind_address,
        (any)dqlite_node_handover,
        (any)dqlite_node_recover,
        (any)dqlite_node_recover_ext,
        (any)dqlite_node_set_auto_recovery,
        (any)dqlite_node_set_bind_address,
        (any)dqlite_node_set_block_size,
        (any)dqlite_node_set_busy_timeout,
        (any)dqlite_node_set_connect_func,
        (any)dqlite_node_set_failure_domain,
        (any)dqlite_node_set_network_latency,
        (any)dqlite_node_set_network_latency_ms,
        (any)dqlite_node_set_pool_thread_count,
        (any)dqlite_node_set_snapshot_compression,
        (any)dqlite_node_set_snapshot_params,
        (any)dqlite_node_set_snapshot_params_v2,
        (any)dqlite_node_set_target_standbys,
        (any)dqlite_node_set_target_voters,
        (any)dqlite_node_start,
        (any)dqlite_node_stop,
        (any)dqlite_server_create,
        (any)dqlite_server_destroy,
        (any)dqlite_server_get_id,
        (any)dqlite_server_handover,
        (any)dqlite_server_set_address,
        (any)dqlite_server_set_auto_bootstrap,
        (any)dqlite_server_set_auto_join,
        (any)dqlite_server_set_bind_address,
        (any)dqlite_server_set_connect_func,
        (any)dqlite_server_start,
        (any)dqlite_server_stop,
        (any)dqlite_version_number,
    };
    char expected[32];
    size_t i;
    dqlite_node_id first, second;

    for (i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        INT("a function is there", 1, functions[i] != NULL);
    }
    INT("functions", 39, sizeof functions / sizeof functions[0]);
    INT("version", DQLITE_VERSION_NUMBER, dqlite_version_number());
    snprintf(expected, sizeof expected, "%d.%d.%d@", DQLITE_VERSION_MAJOR, DQLITE_VERSION_MINOR,
             DQLITE_VERSION_RELEASE);
    PREFIX("version string", expected, dqlite_version_string);
    INT("size of the version string's pointer", 8, sizeof dqlite_version_string);
    /* SQLite must not be initialised by loading the library: hosts configure it first. */
    INT("sqlite3_config", SQLITE_OK, sqlite3_config(SQLITE_CONFIG_SERIALIZED));

    first = dqlite_generate_node_id("127.0.0.1:9000");
    second = dqlite_generate_node_id("127.0.0.1:9000");
    INT("ids differ", 1, first != second && first != 0);
    if (is_ours()) {
        INT("NULL has an id as well", 1, dqlite_generate_node_id(NULL) != 0);
    }
    return checked();
}

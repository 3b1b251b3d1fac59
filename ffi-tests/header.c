/* The header by itself: this file is compiled as C99, C11 and C++11 with every warning on. It declares each function
 * once more, which the compiler refuses where the two differ, and looks at sizes, offsets and constants. */
#include <dqlite.h>
/* A second time, for the guard. */
#include <dqlite.h>

#ifdef __cplusplus
#define ASSERT(name, condition) static_assert(condition, #name)
extern "C" {
#else
#define ASSERT(name, condition) extern char assert_##name[(condition) ? 1 : -1]
#endif

int dqlite_version_number(void);
dqlite_node_id dqlite_generate_node_id(const char *address);
int dqlite_node_create(dqlite_node_id id, const char *address, const char *data_dir, dqlite_node **n);
void dqlite_node_destroy(dqlite_node *n);
int dqlite_node_set_bind_address(dqlite_node *n, const char *address);
const char *dqlite_node_get_bind_address(dqlite_node *n);
int dqlite_node_set_connect_func(dqlite_node *n, int (*f)(void *arg, const char *address, int *fd), void *arg);
int dqlite_node_set_network_latency(dqlite_node *n, unsigned long long nanoseconds);
int dqlite_node_set_network_latency_ms(dqlite_node *t, unsigned milliseconds);
int dqlite_node_set_failure_domain(dqlite_node *n, unsigned long long code);
int dqlite_node_set_snapshot_params(dqlite_node *n, unsigned snapshot_threshold, unsigned snapshot_trailing);
int dqlite_node_set_snapshot_params_v2(dqlite_node *n, unsigned snapshot_threshold, unsigned snapshot_trailing,
                                       int trailing_strategy);
int dqlite_node_set_block_size(dqlite_node *n, size_t size);
int dqlite_node_enable_disk_mode(dqlite_node *n);
int dqlite_node_set_target_voters(dqlite_node *n, int voters);
int dqlite_node_set_target_standbys(dqlite_node *n, int standbys);
int dqlite_node_set_pool_thread_count(dqlite_node *n, unsigned thread_count);
int dqlite_node_set_auto_recovery(dqlite_node *n, bool enabled);
int dqlite_node_set_snapshot_compression(dqlite_node *n, bool enabled);
int dqlite_node_enable_role_management(dqlite_node *n);
int dqlite_node_set_busy_timeout(dqlite_node *n, unsigned msecs);
int dqlite_node_start(dqlite_node *n);
int dqlite_node_handover(dqlite_node *n);
int dqlite_node_stop(dqlite_node *n);
int dqlite_node_recover(dqlite_node *n, dqlite_node_info infos[], int n_info);
int dqlite_node_recover_ext(dqlite_node *n, dqlite_node_info_ext infos[], int n_info);
int dqlite_node_describe_last_entry(dqlite_node *n, uint64_t *last_entry_index, uint64_t *last_entry_term);
const char *dqlite_node_errmsg(dqlite_node *n);
int dqlite_server_create(const char *path, dqlite_server **server);
int dqlite_server_set_address(dqlite_server *server, const char *address);
int dqlite_server_set_auto_bootstrap(dqlite_server *server, bool on);
int dqlite_server_set_auto_join(dqlite_server *server, const char *const *addrs, unsigned n);
int dqlite_server_set_bind_address(dqlite_server *server, const char *addr);
int dqlite_server_set_connect_func(dqlite_server *server, dqlite_connect_func f, void *arg);
int dqlite_server_start(dqlite_server *server);
dqlite_node_id dqlite_server_get_id(dqlite_server *server);
int dqlite_server_handover(dqlite_server *server);
int dqlite_server_stop(dqlite_server *server);
void dqlite_server_destroy(dqlite_server *server);
extern const char *dqlite_version_string;
#ifdef __cplusplus
}
#endif

ASSERT(id, sizeof(dqlite_node_id) == 8 && (dqlite_node_id)-1 > 0);
ASSERT(info, sizeof(dqlite_node_info) == 16 && sizeof(struct dqlite_node_info) == 16);
ASSERT(info_id, offsetof(dqlite_node_info, id) == 0);
ASSERT(info_address, offsetof(dqlite_node_info, address) == 8);
ASSERT(ext, sizeof(dqlite_node_info_ext) == 32 && sizeof(struct dqlite_node_info_ext) == 32);
ASSERT(ext_size, offsetof(dqlite_node_info_ext, size) == 0);
ASSERT(ext_id, offsetof(dqlite_node_info_ext, id) == 8);
ASSERT(ext_address, offsetof(dqlite_node_info_ext, address) == 16);
ASSERT(ext_role, offsetof(dqlite_node_info_ext, dqlite_role) == 24);
ASSERT(buffer, sizeof(struct dqlite_buffer) == 16 && offsetof(struct dqlite_buffer, len) == 8);
ASSERT(codes, DQLITE_OK == 0 && DQLITE_ERROR == 1 && DQLITE_MISUSE == 2 && DQLITE_NOMEM == 3);
ASSERT(trailing, DQLITE_SNAPSHOT_TRAILING_STATIC == 0 && DQLITE_SNAPSHOT_TRAILING_DYNAMIC == 1);
ASSERT(not_leader, SQLITE_IOERR_NOT_LEADER == 10250 && SQLITE_IOERR_LEADERSHIP_LOST == 10506);
ASSERT(orig, DQLITE_NODE_INFO_EXT_SZ_ORIG == 32U);

#if DQLITE_VERSION_NUMBER < 11800
#error "the version is to be at least that of the releases that consumers ask for"
#endif
#if DQLITE_VERSION_NUMBER != DQLITE_VERSION_MAJOR * 10000 + DQLITE_VERSION_MINOR * 100 + DQLITE_VERSION_RELEASE
#error "the version number is made of its parts"
#endif
/* Macros of C consumers: they may stand before a declaration, or be defined before the header. */
DQLITE_EXPERIMENTAL typedef int experimental;
DQLITE_VISIBLE_TO_TESTS int visible(void);

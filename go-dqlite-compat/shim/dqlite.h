/* The C library dropped this function's declaration in 1.18.3; go-dqlite 1.20 to 3.0.0 do not compile without it. */
#include_next <dqlite.h>
int dqlite_node_enable_disk_mode(dqlite_node *n);

/* Starts and stops a node. What the library prints meanwhile is looked at from outside. */
#include "check.h"

int main(void)
{
    char *dir = directory("d");
    dqlite_node *n = NULL;
    INT("create", 0, dqlite_node_create(1, "127.0.0.1:1", dir, &n));
    INT("bind", 0, dqlite_node_set_bind_address(n, "127.0.0.1:0"));
    INT("start", 0, dqlite_node_start(n));
    INT("stop", 0, dqlite_node_stop(n));
    dqlite_node_destroy(n);
    free(dir);
    return checked();
}

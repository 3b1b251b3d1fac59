/* What go-dqlite 3.0.4 takes an absent function for: an error. */
struct dqlite_node;
int dqlite_node_enable_disk_mode(struct dqlite_node *n);
int dqlite_node_enable_disk_mode(struct dqlite_node *n)
{
	(void)n;
	return 1;
}

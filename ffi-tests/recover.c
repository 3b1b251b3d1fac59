/* dqlite_node_recover(), dqlite_node_recover_ext(), dqlite_node_describe_last_entry(). */
#include "check.h"

#include <dirent.h>

static dqlite_node *new_node(const char *dir)
{
    dqlite_node *n = NULL;
    INT("create", 0, dqlite_node_create(1, "1", dir, &n));
    return n;
}

static dqlite_node_info_ext info(dqlite_node_id id, const char *address, uint64_t role)
{
    dqlite_node_info_ext info;
    info.size = sizeof info;
    info.id = id;
    info.address = (uint64_t)(uintptr_t)address;
    info.dqlite_role = role;
    return info;
}

static void last_entry(dqlite_node *n, uint64_t expected_index, uint64_t expected_term)
{
    uint64_t index = ~0ULL, term = ~0ULL;
    INT("describe", 0, dqlite_node_describe_last_entry(n, &index, &term));
    INT("index", expected_index, index);
    INT("term", expected_term, term);
}

static size_t file_size(const char *dir, const char *name)
{
    char path[1024];
    struct stat found;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return stat(path, &found) == 0 ? (size_t)found.st_size : 0;
}

static int segment_count(const char *dir)
{
    DIR *list = opendir(dir);
    int count = 0;
    struct dirent *item;
    while ((item = readdir(list)) != NULL) {
        count += strlen(item->d_name) == 33 && item->d_name[16] == '-';
    }
    closedir(list);
    return count;
}

static int has_corrupt(const char *dir)
{
    DIR *list = opendir(dir);
    int found = 0;
    struct dirent *item;
    while ((item = readdir(list)) != NULL) {
        found |= strncmp(item->d_name, "corrupt-", 8) == 0;
    }
    closedir(list);
    return found;
}

/* The size of the struct, as later releases may have it: extra words must be zero. */
static void sizes(void)
{
    static const struct {
        uint64_t size, extra;
        int result;
    } table[] = {
        {24, 0, 2}, {33, 0, 2}, {36, 0, 2}, {0, 0, 2}, {~0ULL, 0, 2}, {40, 1, 2}, {40, 0, 0}, {32, 1, 0},
    };
    char *dir = directory("sizes");
    dqlite_node *n = new_node(dir);
    size_t i;
    uint64_t recovered = 0;

    for (i = 0; i < sizeof table / sizeof table[0]; i++) {
        uint64_t words[8] = {0};
        dqlite_node_info_ext first = info(1, "a", 0);
        first.size = table[i].size;
        memcpy(words, &first, sizeof first);
        words[4] = table[i].extra;
        if (table[i].size == ~0ULL && !is_ours()) {
            continue;
        }
        INT("size", table[i].result, dqlite_node_recover_ext(n, (dqlite_node_info_ext *)words, 1));
        recovered += table[i].result == 0;
        INT("segments", recovered, segment_count(dir));
        if (is_ours()) {
            PREFIX("text", "raft_recover(): server 0 of the list: a size of 32", dqlite_node_errmsg(n));
        } else {
            TEXT("no text", "", dqlite_node_errmsg(n));
        }
    }
    last_entry(n, 2, 1);
    dqlite_node_destroy(n);
    free(dir);
}

static void lists(void)
{
    char *dir = directory("lists");
    dqlite_node *n = new_node(dir);
    dqlite_node_info plain[2];
    dqlite_node_info_ext ext[3];
    char name[64];

    last_entry(n, 0, 0);
    ext[0] = info(1, "127.0.0.1:9001", 0);
    ext[1] = info(2, "127.0.0.1:9002", 1);
    ext[2] = info(3, "127.0.0.1:9003", 9);
    INT("three servers", 0, dqlite_node_recover_ext(n, ext, 3));
    INT("no metadata", 0, exists(dir, "metadata1"));
    last_entry(n, 1, 1);
    /* Format, batch (checksums, count, header), configuration: 1 + 8 + 3 * (8 + 15 + 1) = 81, padded to 88. */
    INT("size", 8 + 8 + 8 + 16 + 88, file_size(dir, "0000000000000001-0000000000000001"));

    plain[0].id = 5;
    plain[0].address = "x";
    plain[1].id = 6;
    plain[1].address = "y";
    INT("all voters", 0, dqlite_node_recover(n, plain, 2));
    last_entry(n, 2, 1);
    INT("-1", DQLITE_NOMEM, dqlite_node_recover(n, plain, -1));

    if (is_ours()) {
        INT("none", 2, dqlite_node_recover_ext(n, ext, 0));
        PREFIX("text", "raft_recover(): servers: at least one expected, found none", dqlite_node_errmsg(n));
        INT("no voter", 2, dqlite_node_recover_ext(n, ext + 1, 2));
        PREFIX("text", "raft_recover(): servers: a voter expected, found none", dqlite_node_errmsg(n));
        INT("-1", 2, dqlite_node_recover_ext(n, ext, -1));
        INT("NULL", 2, dqlite_node_recover_ext(n, NULL, 1));
        INT("NULL", 2, dqlite_node_recover(n, NULL, 1));
        ext[1].id = 1;
        INT("an id twice", 2, dqlite_node_recover_ext(n, ext, 3));
        ext[1] = info(2, "127.0.0.1:9003", 0);
        INT("an address twice", 2, dqlite_node_recover_ext(n, ext, 3));
        ext[1] = info(0, "127.0.0.1:9002", 0);
        INT("id 0", 2, dqlite_node_recover_ext(n, ext, 3));
        ext[1] = info(2, NULL, 0);
        INT("no address", 2, dqlite_node_recover_ext(n, ext, 3));
        plain[1].address = NULL;
        INT("no address", 2, dqlite_node_recover(n, plain, 2));
        PREFIX("text", "raft_recover(): server 1 of the list: an address expected, found NULL", dqlite_node_errmsg(n));
        INT("no place", 2, dqlite_node_describe_last_entry(n, NULL, NULL));
        PREFIX("text", "dqlite_node_describe_last_entry(): two places for numbers expected", dqlite_node_errmsg(n));
    }
    last_entry(n, 2, 1);
    snprintf(name, sizeof name, "%016d-%016d", 3, 3);
    INT("nothing more was written", 0, exists(dir, name));
    dqlite_node_destroy(n);
    free(dir);
}

static void damage(void)
{
    char *dir = directory("damage");
    dqlite_node *n = new_node(dir);
    dqlite_node_info_ext one = info(1, "127.0.0.1:9001", 0);
    unsigned char bytes[80] = {0};
    uint64_t index = 7, term = 8;
    static const char segment[] = "0000000000000001-0000000000000001";
    char expected[256];

    bytes[0] = 7;
    write_file(dir, segment, bytes, sizeof bytes);
    INT("auto-recovery", 0, dqlite_node_set_auto_recovery(n, false));
    INT("describe", 1, dqlite_node_describe_last_entry(n, &index, &term));
    INT("outputs are untouched", 1, index == 7 && term == 8);
    if (is_ours()) {
        PREFIX("text", "dqlite_node_describe_last_entry(): io: load closed segment", dqlite_node_errmsg(n));
    } else {
        TEXT("no text", "", dqlite_node_errmsg(n));
    }
    INT("recover", 1, dqlite_node_recover_ext(n, &one, 1));
    snprintf(expected, sizeof expected, "raft_recover(): io: load closed segment %s: unexpected format version 7",
             segment);
    PREFIX("text", expected, dqlite_node_errmsg(n));
    INT("the file stays", 1, exists(dir, segment));
    if (is_ours()) {
        /* C keeps the lock after a failed load. */
        INT("again", 1, dqlite_node_recover_ext(n, &one, 1));
        PREFIX("same text", expected, dqlite_node_errmsg(n));
        INT("auto-recovery", 0, dqlite_node_set_auto_recovery(n, true));
        INT("describe", 0, dqlite_node_describe_last_entry(n, &index, &term));
        INT("nothing is left", 1, index == 0 && term == 0);
        INT("the file is put aside", 0, exists(dir, segment));
        INT("but not deleted", 1, has_corrupt(dir));
        PREFIX("the text stays", expected, dqlite_node_errmsg(n));
    }
    dqlite_node_destroy(n);
    free(dir);
}

/* With a node that runs on the directory. */
static void running(void)
{
    char *dir = directory("running");
    dqlite_node *n = new_node(dir), *other = NULL;
    dqlite_node_info_ext one = info(1, "1", 0);

    INT("bind", 0, dqlite_node_set_bind_address(n, "127.0.0.1:0"));
    INT("start", 0, dqlite_node_start(n));
    INT("create", 0, dqlite_node_create(2, "2", dir, &other));
    INT("recover", 1, dqlite_node_recover_ext(other, &one, 1));
    if (is_ours()) {
        PREFIX("text", "raft_recover(): couldn't lock the raft directory", dqlite_node_errmsg(other));
    } else {
        TEXT("no text", "", dqlite_node_errmsg(other));
    }
    if (is_ours()) {
        uint64_t index = 0, term = 0;
        int segments = segment_count(dir);
        INT("recover the running one", 1, dqlite_node_recover_ext(n, &one, 1));
        INT("describe", 0, dqlite_node_describe_last_entry(other, &index, &term));
        INT("what is there is read", 1, index >= 1 && term == 1);
        INT("and left as it is", segments, segment_count(dir));
    }
    INT("stop", 0, dqlite_node_stop(n));
    INT("recover", 0, dqlite_node_recover_ext(other, &one, 1));
    dqlite_node_destroy(other);
    dqlite_node_destroy(n);

    /* A node starts on what recover left, also on the same handle. */
    n = new_node(dir);
    INT("recover", 0, dqlite_node_recover_ext(n, &one, 1));
    INT("bind", 0, dqlite_node_set_bind_address(n, "127.0.0.1:0"));
    INT("start", 0, dqlite_node_start(n));
    INT("stop", 0, dqlite_node_stop(n));
    dqlite_node_destroy(n);
    free(dir);
}

int main(void)
{
    sizes();
    lists();
    damage();
    running();
    return checked();
}

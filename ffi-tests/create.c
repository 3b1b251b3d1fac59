/* dqlite_node_create(): what it accepts, the exact texts where it does not, and what it leaves behind. */
#include "check.h"

static void refused(const char *path, const char *expected)
{
    dqlite_node *n = NULL;
    INT(path, DQLITE_ERROR, dqlite_node_create(1, "1", path, &n));
    INT("there is a handle", 1, n != NULL);
    TEXT(path, expected, dqlite_node_errmsg(n));
    dqlite_node_destroy(n);
}

static void refused_about(const char *format, const char *path)
{
    char expected[512];
    snprintf(expected, sizeof expected, format, path);
    refused(path, expected);
}

static void words(unsigned char *bytes, unsigned long long format, unsigned long long version)
{
    unsigned long long word[4];
    word[0] = format;
    word[1] = version;
    word[2] = 1;
    word[3] = 0;
    memcpy(bytes, word, 32);
}

static void wrong_directories(void)
{
    char *dir = directory("wrong");
    char path[1024], expected[300];
    size_t i;

    refused("", "raft_init(): io: directory '' does not exist");
    snprintf(path, sizeof path, "%s/none", dir);
    refused_about("raft_init(): io: directory '%s' does not exist", path);
    write_file(dir, "file", "", 0);
    snprintf(path, sizeof path, "%s/file", dir);
    refused_about("raft_init(): io: path '%s' is not a directory", path);
    snprintf(path, sizeof path, "%s/file/below", dir);
    refused_about("raft_init(): io: path '%s' is not a directory", path);
    snprintf(path, sizeof path, "%s/bare", dir);
    mkdir(path, 0500);
    refused_about("raft_init(): io: directory '%s' is not writable", path);
    snprintf(path, sizeof path, "%s/circle", dir);
    INT("symlink", 0, symlink("circle", path));
    refused_about("raft_init(): io: can't stat '%s': too many symbolic links encountered", path);

    /* The text of the path that is one byte too long; a shorter one shows where texts are cut. */
    for (i = 0; i < 1000; i++) {
        path[i] = i % 100 == 0 ? '/' : 'x';
    }
    path[895] = '\0';
    refused(path, "raft_uv_init(): directory path too long");
    path[894] = '\0';
    strcpy(expected, "raft_init(): io: directory '");
    strncat(expected, path, 268 - strlen(expected));
    refused(path, expected);
    free(dir);
}

static void metadata(void)
{
    static const char *const texts[] = {
        "raft_init(): io: metadata1 has size 40 instead of 32",
        "raft_init(): io: decode content of metadata1: bad format version 7",
        "raft_init(): io: decode content of metadata1: version is set to zero",
        "raft_init(): io: metadata1 and metadata2 are both at version 3",
    };
    unsigned char bytes[40] = {0};
    char name[16];
    int i;
    for (i = 0; i < 4; i++) {
        char *dir;
        dqlite_node *n = NULL;
        snprintf(name, sizeof name, "metadata%d", i);
        dir = directory(name);
        words(bytes, i == 1 ? 7 : 1, i == 2 ? 0 : 3);
        write_file(dir, "metadata1", bytes, i == 0 ? 40 : 32);
        if (i == 3) {
            write_file(dir, "metadata2", bytes, 32);
        }
        INT(texts[i], DQLITE_ERROR, dqlite_node_create(1, "1", dir, &n));
        /* Ours say more after the C library's words. */
        PREFIX("text", texts[i], dqlite_node_errmsg(n));
        dqlite_node_destroy(n);
        free(dir);
    }
}

static void left_overs(void)
{
    dqlite_node *n = NULL;
    unsigned char bytes[32];
    char *dir = directory("clean");

    INT("create", 0, dqlite_node_create(0, "", dir, &n));
    TEXT("no error", "", dqlite_node_errmsg(n));
    INT("no address", 1, dqlite_node_get_bind_address(n) == NULL);
    dqlite_node_destroy(n);
    INT("nothing is left behind", 0, rmdir(dir));
    free(dir);

    dir = directory("leftovers");
    write_file(dir, "tmp-anything", "x", 1);
    write_file(dir, "metadata1", "short", 5);
    write_file(dir, "snapshot-1-2-3", "x", 1);
    write_file(dir, "snapshot-1-5-3.meta", "x", 1);
    write_file(dir, "unknown.txt", "x", 1);
    words(bytes, 1, 2);
    write_file(dir, "metadata2", bytes, 32);
    INT("create", 0, dqlite_node_create(1, "1", dir, &n));
    dqlite_node_destroy(n);
    INT("temporary file", 0, exists(dir, "tmp-anything"));
    /* C deletes halves here, ours when a load has succeeded without them. */
    INT("short metadata", is_ours(), exists(dir, "metadata1"));
    INT("data without metadata", is_ours(), exists(dir, "snapshot-1-2-3"));
    INT("metadata without data", is_ours(), exists(dir, "snapshot-1-5-3.meta"));
    INT("good metadata", 1, exists(dir, "metadata2"));
    INT("other files", 1, exists(dir, "unknown.txt"));
    free(dir);
}

int main(void)
{
    wrong_directories();
    metadata();
    left_overs();
    TEXT("errmsg of NULL", "node is NULL", dqlite_node_errmsg(NULL));
    if (is_ours()) {
        dqlite_node *n = NULL;
        INT("no address", DQLITE_MISUSE, dqlite_node_create(1, NULL, "/", &n));
        dqlite_node_destroy(n);
        INT("no directory", DQLITE_MISUSE, dqlite_node_create(1, "1", NULL, &n));
        INT("settings of a failed node", 1, dqlite_node_start(n) != 0);
        dqlite_node_destroy(n);
        INT("no place for the handle", DQLITE_MISUSE, dqlite_node_create(1, "1", "/", NULL));
        dqlite_node_destroy(NULL);
    }
    return checked();
}

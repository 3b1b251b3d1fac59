// Command loaded says which libdqlite and which SQLite a Go program built like the test suites really gets.
package main

/*
#cgo linux LDFLAGS: -ldqlite -lsqlite3
#include <sqlite3.h>
#include <dqlite.h>
// Absent before 1.18.3.
extern const char *dqlite_version_string __attribute__((weak));
static const char *text(void) { return &dqlite_version_string ? dqlite_version_string : "(no version string)"; }
*/
import "C"

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

func main() {
	fmt.Printf("libdqlite %s number %d\n", C.GoString(C.text()), int(C.dqlite_version_number()))
	fmt.Printf("sqlite %s\n", C.GoString(C.sqlite3_libversion()))
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	seen := map[string]bool{}
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		path := fields[len(fields)-1]
		if (strings.Contains(path, "libdqlite") || strings.Contains(path, "libsqlite3")) && !seen[path] {
			seen[path] = true
			fmt.Printf("mapped %s\n", path)
		}
	}
}

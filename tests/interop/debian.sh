#!/usr/bin/env bash
# Debian's own, unchanged programs on a given libdqlite: dqlite-demo, dqlite (the shell) and dqlite-benchmark of three releases,
# one node each.
#
#   debian.sh LIBRARY|- [bookworm|trixie|sid ...]    LIBRARY: a prefix or a folder with libdqlite.so.0;
#                                                    - means each release's own packaged C library (the baseline)
# Prints a line per check; exit 0 when all of them hold. Needs curl, sqlite3, python3 and the packages (tools/peers fetches them).
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
library=${1:?usage: debian.sh LIBRARY|- [bookworm|trixie|sid ...]}
shift
[ $# -gt 0 ] || set -- bookworm trixie sid
[ "$library" = - ] || library=$(python3 "$root/tools/library.py" "$library" libdir) || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/dqlite-debian-XXXXXX")
failed=0
checks=0
pid=

finish() {
  [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null
  if [ $failed = 0 ]; then rm -rf "$work"; else echo "kept $work"; fi
}
trap finish EXIT

check() { # DESCRIPTION EXPECTED FOUND
  checks=$((checks + 1))
  if [ "$2" = "$3" ]; then
    echo "ok    $suite: $1"
  else
    failed=$((failed + 1))
    echo "WRONG $suite: $1: expected '$2', found '$3'"
  fi
}

free_port() {
  python3 -c 'import sys; sys.path.insert(0, sys.argv[1]); import nodes; print(nodes.free_address().split(":")[1])' "$root/tools"
}

# One program of this release on the library under test.
program() {
  if [ "$library" = - ]; then env -u OVERRIDE "$peer/run" "$@"; else OVERRIDE=$library "$peer/run" "$@"; fi
}

start_demo() {
  # Not through the function: the process that is killed must be the program itself.
  if [ "$library" = - ]; then
    env -u OVERRIDE "$peer/run" dqlite-demo --api "127.0.0.1:$api" --db "127.0.0.1:$db" --dir "$work/$suite" >> "$work/$suite.log" 2>&1 &
  else
    OVERRIDE=$library "$peer/run" dqlite-demo --api "127.0.0.1:$api" --db "127.0.0.1:$db" --dir "$work/$suite" >> "$work/$suite.log" 2>&1 &
  fi
  pid=$!
  # The API answers once the node serves.
  local end=$((SECONDS + 20))
  until curl -s -o "$work/first" "http://127.0.0.1:$api/none" || [ $SECONDS -gt $end ] || ! kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}

end_demo() { # SIGNAL
  kill "-$1" "$pid"
  wait "$pid" 2>/dev/null
  code=$?
  pid=
}

put() { curl -s --max-time 10 -X PUT -d "value of $1" "http://127.0.0.1:$api/$1"; }
get() { curl -s --max-time 10 "http://127.0.0.1:$api/$1"; }
shell() { (cd "$work" && program dqlite -s "127.0.0.1:$db" demo "$1" 2>&1); }

keys_there() { # how many of key1..keyN read back right
  local n=0 i
  for i in $(seq "$1"); do [ "$(get "key$i" | tr -d '\n')" = "value of key$i" ] && n=$((n + 1)); done
  echo "$n"
}

for suite in "$@"; do
  peer=$("$root/tools/peers" "$suite") || exit 1
  api=$(free_port) db=$(free_port)
  mkdir "$work/$suite"

  # Immediate binding: every symbol these programs were linked with must be there.
  for name in dqlite dqlite-demo dqlite-benchmark; do
    text=$(LD_BIND_NOW=1 program "$name" --help 2>&1)
    check "$name starts with immediate binding" 0 $?
    check "$name finds every symbol" 0 "$(grep -c -e 'undefined symbol' -e 'symbol lookup' <<< "$text")"
  done

  start_demo
  loaded=$(awk '/libdqlite/ {print $6}' "/proc/$pid/maps" | sort -u | xargs -r realpath)
  if [ "$library" = - ]; then expected=$(realpath "$peer"/root/usr/lib/*/libdqlite.so.0); else expected=$(realpath "$library/libdqlite.so.0"); fi
  check "the demo runs on the library under test" "$expected" "$loaded"
  for i in $(seq 20); do put "key$i" > /dev/null; done
  check "twenty keys put over HTTP are read back" 20 "$(keys_there 20)"
  end_demo KILL
  start_demo
  check "they are there after kill -9 and a restart" 20 "$(keys_there 20)"
  for i in $(seq 21 25); do put "key$i" > /dev/null; done
  end_demo TERM
  check "the demo ends on SIGTERM" 0 "$code"
  start_demo
  check "and all are there after that" 25 "$(keys_there 25)"

  check ".leader" "127.0.0.1:$db" "$(shell .leader)"
  check ".cluster" "2dc171858c3155be|127.0.0.1:$db|voter" "$(shell .cluster)"
  check ".describe" "127.0.0.1:$db|0|0" "$(shell ".describe 127.0.0.1:$db" | sed 's/|1$/|0/')"
  check "SELECT" 25 "$(shell 'SELECT count(*) FROM model' | tail -1 | tr -d ' |\t')"
  shell "INSERT INTO model(key, value) VALUES('from', 'the shell')" > /dev/null
  check "what the shell inserts the demo reads" "the shell" "$(get from | tr -d '\n')"
  check "an error of SQL is told" 1 "$(shell 'SELECT a FROM nowhere' | grep -c 'no such table')"
  check ".dump" OK "$(shell ".dump 127.0.0.1:$db demo")"
  check "the dump is a sound database with all rows" "ok 26" \
    "$(sqlite3 "$work/demo" 'PRAGMA integrity_check; SELECT count(*) FROM model' 2>&1 | paste -sd' ')"
  rm -f "$work"/demo "$work"/demo-*
  end_demo KILL

  figures=$(python3 "$root/tools/dqlite_benchmark.py" "$peer" "$library" 1 4 2 kvwrite)
  check "dqlite-benchmark kvwrite ends well" 0 "$(python3 -c 'import json, sys; print(json.loads(sys.argv[1])["rc"])' "$figures")"
  check "and wrote something" True "$(python3 -c 'import json, sys; print(json.loads(sys.argv[1])["ok_s"] > 0)' "$figures")"
  echo "      $suite: $figures"
done
echo "debian: $([ $failed = 0 ] && echo ok || echo FAILED), $checks checks, $failed wrong, ${SECONDS} s"
exit $((failed > 0))

#!/usr/bin/env bash
# What `make install` puts where, that `make uninstall` takes all of it away, and that the archive links, with SQLite as a
# shared library or as an archive too. Run by `make install-test`, which passes its variables on.
set -euo pipefail
cd "$(dirname "$0")/.."
make="${MAKE:-make} --no-print-directory"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
checks=0
fail() { echo "install: $*" >&2; exit 1; }
same() { # WHAT EXPECTED FOUND
    checks=$((checks + 1))
    [ "$2" = "$3" ] || fail "$1: expected"$'\n'"$2"$'\n'"found"$'\n'"$3"
}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# A package's tree.
triplet=$(uname -m)-linux-gnu
stage=("DESTDIR=$scratch/stage" PREFIX=/usr "LIBDIR=/usr/lib/$triplet")
(umask 022; $make install "${stage[@]}" >/dev/null)
tree() { (cd "$1" && find . \( -type f -printf '%m %P\n' \) -o \( -type l -printf '%P -> %l\n' \) | LC_ALL=C sort); }
same "the installed tree" "644 usr/include/dqlite.h
644 usr/lib/$triplet/libdqlite.a
644 usr/lib/$triplet/libdqlite.so.0.0.1
644 usr/lib/$triplet/pkgconfig/dqlite.pc
usr/lib/$triplet/libdqlite.so -> libdqlite.so.0.0.1
usr/lib/$triplet/libdqlite.so.0 -> libdqlite.so.0.0.1" "$(tree "$scratch/stage")"
ask() { PKG_CONFIG_PATH="$scratch/stage/usr/lib/$triplet/pkgconfig" pkg-config "$@" dqlite; }
same "version of the pkg-config file" "$version" "$(ask --modversion)"
same "libdir of the pkg-config file" "/usr/lib/$triplet" "$(ask --variable=libdir)"
same "paths of the build in the pkg-config file" "" "$(grep -n -e "$scratch" -e "$PWD" "$scratch/stage/usr/lib/$triplet/pkgconfig/dqlite.pc" || true)"
case " $(ask --static --libs) " in *' -ldqlite '*' -lsqlite3 '*) ;; *) fail "pkg-config --static --libs: $(ask --static --libs)" ;; esac
$make uninstall "${stage[@]}" >/dev/null
same "what uninstall leaves" "" "$(tree "$scratch/stage")"

# A program of one node on the archive.
prefix=$scratch/prefix
$make install PREFIX="$prefix" >/dev/null
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
read -ra cflags <<<"$(pkg-config --cflags dqlite)"
read -ra libs <<<"$(pkg-config --static --libs dqlite | sed 's/-ldqlite/-l:libdqlite.a/')"
${CC:-gcc} -O1 "${cflags[@]}" -c benches/host.c -o "$scratch/host.o"
node() { # PROGRAM
    mkdir "$scratch/data"
    same "$1: a node starts and stops" "READY STOPPED 0" \
        "$(timeout 60 "$scratch/$1" 1 "@dqlite-install-$$-$1" "$scratch/data" </dev/null | awk '{ print ($1 == "STOPPED") ? $1 " " $2 : $1 }' | paste -sd' ')"
    rm -r "$scratch/data"
}
${CC:-gcc} -o "$scratch/shared-sqlite" "$scratch/host.o" "${libs[@]}" -lpthread
same "shared-sqlite needs" "libsqlite3" "$(ldd "$scratch/shared-sqlite" | grep -o -e 'libdqlite' -e 'libsqlite3' | sort -u)"
node shared-sqlite
archive=$(${CC:-gcc} -print-file-name=libsqlite3.a)
[ -e "$archive" ] || fail "no libsqlite3.a on this machine"
${CC:-gcc} -o "$scratch/static-sqlite" "$scratch/host.o" "${libs[@]/#-lsqlite3/$archive}" -lz -lpthread
same "static-sqlite needs" "" "$(ldd "$scratch/static-sqlite" | grep -o -e 'libdqlite' -e 'libsqlite3' | sort -u)"
node static-sqlite
echo "install: ok, $checks checks"

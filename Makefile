# Build, install and check libdqlite.
#
#   make                    the shared and the static library, in dist/
#   make install            PREFIX, LIBDIR, INCLUDEDIR and DESTDIR as usual
#   make check              everything that has to pass before a change goes in; ends with each part's result and time
#   make test               of it the Rust tests; bundled-test, ffi-test, install-test, go-test, crash-test, interop-test are the rest
#   make header             write include/dqlite.h anew from src/ffi and cbindgen.toml
#   make demo               three nodes, clients, the leader killed again and again: to look at
#   make failover           how long clients wait for another leader, in 1,000 tries, and 1,000 restarts: an hour
#   make soak               what takes hours: mixed clusters and Debian's programs in every assignment, go-dqlite's suites in full and with
#                           the race detector; in parts: soak-programs, soak-go, soak-race, soak-cluster (ROWS=4 for some of its rows)
#   make bench              benchmarks beside the packaged C library, in short; BENCH= and CLUSTER_BENCH= for all of it
#                           (benches/compare --help, benches/cluster --help)
#   make deps               look for the tools that are needed; install what is missing where apt and root allow
#
# PROFILE=dev (or DEBUG=1) builds fast and unoptimised, in dist/dev.  SQLITE=bundled compiles SQLite into the
# library: for private builds only, since a process must have one SQLite.

PREFIX     ?= /usr/local
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DESTDIR    ?=

CARGO   ?= cargo
LD      ?= ld
AR      ?= ar
OBJCOPY ?= objcopy
INSTALL ?= install

ifdef DEBUG
PROFILE ?= dev
endif
PROFILE ?= release
SQLITE  ?= system
TARGET  := $(or $(CARGO_TARGET_DIR),target)
ifeq ($(PROFILE),release)
DIST ?= dist
BUILT := $(TARGET)/release
else
DIST ?= dist/$(PROFILE)
BUILT := $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
endif

ifeq ($(SQLITE),bundled)
FEATURES := --features bundled
else ifneq ($(SQLITE),system)
$(error SQLITE: expected system or bundled, found '$(SQLITE)')
endif

VERSION  := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SONAME   := libdqlite.so.0
REALNAME := libdqlite.so.0.0.1
SOURCES  := Cargo.toml Cargo.lock build.rs $(shell find src -name '*.rs')
# What a program linked with the static library needs besides SQLite; `rustc --print native-static-libs` tells.
PRIVATE_LIBS := -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc

.PHONY: all shared static install uninstall header check fmt clippy doc deny test bundled-test ffi-test install-test go-test \
	crash-test interop-test soak soak-programs soak-go soak-race soak-cluster bench failover demo deps clean FORCE
.DELETE_ON_ERROR:

all: shared static

shared: $(DIST)/$(REALNAME)
static: $(DIST)/libdqlite.a

# A change of PROFILE or SQLITE must rebuild; this file changes when they do.
$(DIST)/.flavour: FORCE
	@mkdir -p $(DIST)
	@echo '$(PROFILE) $(SQLITE)' | cmp -s - $@ || echo '$(PROFILE) $(SQLITE)' > $@

# With one crate type per call cargo passes the link-time optimisation on to rustc; with several it does not, silently.
$(DIST)/$(REALNAME): $(SOURCES) $(DIST)/.flavour
	@command -v $(CARGO) >/dev/null || { echo "make: cargo not found: install Rust 1.88 or newer (https://rustup.rs)" >&2; exit 1; }
	$(CARGO) rustc --locked --lib --crate-type cdylib --profile $(PROFILE) $(FEATURES)
	@mkdir -p $(DIST)
	cp -f $(BUILT)/libdqlite.so $@
	ln -sf $(REALNAME) $(DIST)/$(SONAME)
	ln -sf $(REALNAME) $(DIST)/libdqlite.so
	@touch $@

# As rustc writes it, the archive shows thousands of Rust symbols and clashes with a second Rust library in one
# program. One relocatable object with everything but the API made local cures both.
$(DIST)/libdqlite.a: $(SOURCES) $(DIST)/.flavour
	@command -v $(CARGO) >/dev/null || { echo "make: cargo not found: install Rust 1.88 or newer (https://rustup.rs)" >&2; exit 1; }
	$(CARGO) rustc --locked --lib --crate-type staticlib --profile $(PROFILE) $(FEATURES)
	@mkdir -p $(DIST)/static
	$(LD) -r -o $(DIST)/static/all.o --whole-archive $(BUILT)/libdqlite.a
	$(OBJCOPY) --wildcard --remove-section=.llvmbc --remove-section=.llvmcmd --keep-global-symbol='dqlite_*' \
		--keep-global-symbol=DW.ref.rust_eh_personality $(DIST)/static/all.o $(DIST)/static/dqlite.o
	rm -f $@
	$(AR) rcs $@ $(DIST)/static/dqlite.o
	rm -rf $(DIST)/static

# Where cargo is not on root's path, what is in dist/ is installed as it is.
install: $(if $(shell command -v $(CARGO) 2>/dev/null),all)
	$(INSTALL) -d '$(DESTDIR)$(LIBDIR)/pkgconfig' '$(DESTDIR)$(INCLUDEDIR)'
	$(INSTALL) -m 644 $(DIST)/$(REALNAME) $(DIST)/libdqlite.a '$(DESTDIR)$(LIBDIR)'
	ln -sf $(REALNAME) '$(DESTDIR)$(LIBDIR)/$(SONAME)'
	ln -sf $(REALNAME) '$(DESTDIR)$(LIBDIR)/libdqlite.so'
	$(INSTALL) -m 644 include/dqlite.h '$(DESTDIR)$(INCLUDEDIR)'
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@VERSION@|$(VERSION)|' \
		-e 's|@PRIVATE_LIBS@|$(PRIVATE_LIBS)|' pkgconfig/dqlite.pc.in > '$(DESTDIR)$(LIBDIR)/pkgconfig/dqlite.pc'
	chmod 644 '$(DESTDIR)$(LIBDIR)/pkgconfig/dqlite.pc'

uninstall:
	rm -f '$(DESTDIR)$(LIBDIR)/$(REALNAME)' '$(DESTDIR)$(LIBDIR)/$(SONAME)' '$(DESTDIR)$(LIBDIR)/libdqlite.so' \
		'$(DESTDIR)$(LIBDIR)/libdqlite.a' '$(DESTDIR)$(INCLUDEDIR)/dqlite.h' '$(DESTDIR)$(LIBDIR)/pkgconfig/dqlite.pc'

header:
	REWRITE=1 $(CARGO) test --locked --test header

# The Rust tests come last: their summary is what one looks for first.
PARTS := fmt clippy doc deny ffi-test install-test go-test crash-test interop-test bundled-test test
check: deps
	@MAKE='$(MAKE)' tools/check $(PARTS)

fmt:
	$(CARGO) fmt --check

clippy:
	$(CARGO) clippy --locked --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(CARGO) doc --locked --no-deps --lib --document-private-items

# Licences and sources of all dependencies, and what is known against them. Says so where there is no cargo-deny, or where its
# list of advisories cannot be had.
deny:
	@tools/deny

# The second run takes turns in SQLite, as in a Go program that put it into single-thread mode.
test: shared
	DQLITE_LIBRARY='$(abspath $(DIST)/$(REALNAME))' $(CARGO) test --locked --no-fail-fast
	LIBDQLITE_SQLITE_THREADS=lock $(CARGO) test --locked --test protocol --test sql_differential --test transcripts

# The newest SQLite in place of the system's: what touches SQLite must not depend on its release.
bundled-test:
	$(CARGO) test --locked --no-fail-fast --features bundled --lib --test sql_differential

ffi-test: all
	ffi-tests/run

install-test: all
	@MAKE='$(MAKE)' tests/install.sh

# Says so where there is no Go toolchain.
go-test: shared
	go-dqlite-compat/run '$(abspath $(DIST))'

# A node on a disk that fails, and one killed under load, again and again; on the disk of the build folder. Then three processes that are
# stopped and go on, PAUSES times, and servers that are not who they should be (tests/crash/identities without --short for all cases).
PAUSES ?= 6
crash-test: shared
	tests/crash/faults '$(abspath $(DIST))'
	tests/crash/kill9 '$(abspath $(DIST))' --cycles 200
	tests/crash/paused '$(abspath $(DIST))' --rounds $(PAUSES)
	tests/crash/identities '$(abspath $(DIST))' --short

# Says so where Debian's packages of the C library cannot be fetched.
interop-test: shared
	tests/interop/run '$(abspath $(DIST))'

soak: soak-programs soak-go soak-race soak-cluster

soak-programs: shared
	tests/interop/programs '$(abspath $(DIST))' --long

# GO=v2 for one release, GO='v2 v1' for some.
soak-go: shared
	FULL=1 go-dqlite-compat/run '$(abspath $(DIST))' $(GO)

soak-race: shared
	FULL=1 RACE=1 go-dqlite-compat/run '$(abspath $(DIST))' v3

soak-cluster: shared
	tests/interop/cluster '$(abspath $(DIST))' --long $(if $(ROWS),--rows $(ROWS))

BENCH ?= --runs 1 --seconds 1
DEBIAN_BENCH ?= --runs 1 --seconds 2
CLUSTER_BENCH ?= --runs 1 --seconds 1 --tries 2 --lag 20 --size 64 --commits 20000
bench: deps
	@$(MAKE) --no-print-directory shared
	benches/compare '$(abspath $(DIST))' sid $(BENCH)
	benches/cluster '$(abspath $(DIST))' sid $(CLUSTER_BENCH)
	benches/debian '$(abspath $(DIST))' $(DEBIAN_BENCH)

failover: deps
	LIVENESS_TRIES=1000 $(CARGO) test --locked --test cluster -- --nocapture --test-threads 1 liveness links::a_leader

demo: deps
	@$(MAKE) --no-print-directory shared
	DIST='$(DIST)' demo/run

deps:
	@tools/deps

clean:
	$(CARGO) clean
	rm -rf dist

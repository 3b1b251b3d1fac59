//! The managed server.
#![expect(unsafe_code, reason = "exported symbols, and pointers that C hands in")]

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::errors::{ERROR, OK};
use super::guard::{bytes, guarded, with_signals_blocked};
use super::handle::{dqlite_connect_func, dqlite_node_id, dqlite_server, with_server};
use super::node::connector;
use crate::admin::Server;
use crate::runtime::trace;

/// Runs `body` on the server; everything that can go wrong is `DQLITE_ERROR`.
///
/// # Safety
/// As [`with_server`].
unsafe fn run(s: *mut dqlite_server, body: impl FnOnce(&mut Server) -> Option<()>) -> c_int {
    let body = |server: &mut Server| if body(server).is_some() { OK } else { ERROR };
    // SAFETY: the caller's contract is the same.
    unsafe { with_server(s, ERROR, body) }
}

/// Runs a setter that takes everything.
///
/// # Safety
/// As [`with_server`].
unsafe fn set(s: *mut dqlite_server, body: impl FnOnce(&mut Server)) -> c_int {
    let body = |server: &mut Server| {
        body(server);
        OK
    };
    // SAFETY: the caller's contract is the same.
    unsafe { with_server(s, ERROR, body) }
}

/// As [`bytes`]; that it is null stands in the log.
///
/// # Safety
/// As [`bytes`].
unsafe fn text<'a>(what: &str, text: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: the caller's contract is the same.
    let found = unsafe { bytes(text) };
    if found.is_none() {
        trace::tell_of_refusal(format_args!("dqlite_server: {what}: a string expected, found NULL"));
    }
    found
}

/// Create a server that keeps its files in the directory at path, which must exist when the server is started.
///
/// *server must be destroyed. All functions for servers return 0, or 1 for whatever goes wrong; what that was, the
/// environment variable LIBDQLITE_TRACE=1 has printed to stderr.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_create(path: *const c_char, server: *mut *mut dqlite_server) -> c_int {
    guarded(ERROR, || {
        // SAFETY: the caller passes null or a string.
        let Some(path) = (unsafe { text("directory", path) }) else { return ERROR };
        if server.is_null() {
            trace::tell_of_refusal(format_args!(
                "dqlite_server: a place for the server expected, found NULL"
            ));
            return ERROR;
        }
        // SAFETY: not null, and the caller passes a place for the handle.
        unsafe { server.write(dqlite_server::into_raw(Server::new(path))) };
        OK
    })
}

/// Set the address that other servers and clients know this one by. Needed for the first start only: later ones
/// take it from the directory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_address(
    server: *mut dqlite_server,
    address: *const c_char,
) -> c_int {
    // SAFETY: the caller passes null or a live handle, and null or a string.
    unsafe { run(server, |server| text("address", address).map(|address| server.set_address(address))) }
}

/// Set whether the first start makes a new cluster. Exactly one server of a cluster must do so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_auto_bootstrap(server: *mut dqlite_server, on: bool) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { set(server, |server| server.set_auto_bootstrap(on)) }
}

/// Give addresses of servers to join on the first start; one that answers is enough. Further calls add to the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_auto_join(
    server: *mut dqlite_server,
    addrs: *const *const c_char,
    n: c_uint,
) -> c_int {
    let add = |server: &mut Server| {
        if addrs.is_null() && n > 0 {
            trace::tell_of_refusal(format_args!("dqlite_server: {n} addresses to join expected, found NULL"));
            return None;
        }
        let count = usize::try_from(n).ok()?;
        // SAFETY: the caller passes an array of `n` strings; a null among them is refused.
        let addresses: Option<Vec<&[u8]>> =
            (0..count).map(|index| unsafe { text("address to join", *addrs.add(index)) }).collect();
        server.add_auto_join(&addresses?);
        Some(())
    };
    // SAFETY: the caller passes null or a live handle.
    unsafe { run(server, add) }
}

/// Set the address to listen on, where it is not the one that others know: see dqlite_node_set_bind_address().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_bind_address(
    server: *mut dqlite_server,
    addr: *const c_char,
) -> c_int {
    // SAFETY: the caller passes null or a live handle, and null or a string.
    unsafe { run(server, |server| text("bind address", addr).map(|addr| server.set_bind_address(addr))) }
}

/// Set the function that connects to other servers, and to this one: see dqlite_node_set_connect_func().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_connect_func(
    server: *mut dqlite_server,
    f: dqlite_connect_func,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { set(server, |server| server.set_connector(connector(f, arg))) }
}

/// Start the server: make or join a cluster on the first start, come back to it on later ones.
///
/// The first start needs an address, and either auto-bootstrap or servers to join. A server that joins becomes a
/// spare: give it a role with a client, or let the leader's program manage roles. Later starts need nothing but the
/// directory, and what is set of address, auto-bootstrap and auto-join does not matter any more.
///
/// Two files in the directory, "server-info" and "node-store", hold who the server is and who its cluster is. The
/// latter is refreshed every 30 seconds, or as often as the environment variable LIBDQLITE_SERVER_REFRESH_MS says.
///
/// Blocks until the cluster was found, for 5 seconds at most beside the time that connecting takes. A server that
/// comes back starts also when its cluster has no leader yet, since it may be the one that is missing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_start(server: *mut dqlite_server) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { run(server, |server| with_signals_blocked(|| server.start_logged())) }
}

/// The id of the server's node; 0 before the first start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_get_id(server: *mut dqlite_server) -> dqlite_node_id {
    // SAFETY: the caller passes null or a live handle.
    unsafe { with_server(server, 0, |server| server.id().0) }
}

/// Hand the server's duties over to others before it is stopped: see dqlite_node_handover(). Stopping alone does
/// not; then the others find out by themselves, an election timeout later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_handover(server: *mut dqlite_server) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { run(server, |server| with_signals_blocked(|| server.handover())) }
}

/// Stop the server. It may be started again, also with the same handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_stop(server: *mut dqlite_server) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { run(server, Server::stop) }
}

/// Free a server and whatever it holds; stops it first if it runs. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_destroy(server: *mut dqlite_server) {
    if !server.is_null() {
        // SAFETY: the caller gives back a handle from dqlite_server_create and does not use it again.
        guarded((), || drop(unsafe { dqlite_server::from_raw(server) }));
    }
}

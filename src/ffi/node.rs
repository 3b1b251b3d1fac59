//! The life of a node.
#![expect(unsafe_code, reason = "exported symbols, and pointers that C hands in")]
#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "the doc comments become the header: brackets are no links"
)]

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

use super::errors::{ERROR, MISUSE, OK};
use super::guard::{bytes, guarded, with_signals_blocked};
use super::handle::{dqlite_connect_func, dqlite_node, dqlite_node_id, with_node};
use crate::admin::{Code, Failure, Node};
use crate::base::NodeId;
use crate::runtime::connect::{Connector, NO_CONNECTION};

/// Create a node.
///
/// The address is the one that other nodes and clients know this node by. It is neither parsed nor bound here:
/// see dqlite_node_set_bind_address(). The data directory must exist, be writable, and belong to this node alone.
/// Both strings are copied.
///
/// A node with the id 1 or 3297041220608546238 makes itself the first member of a new cluster if its directory is
/// new. One with any other id waits to be added to a cluster.
///
/// On success *n is the node. On failure *n is a node as well, good for dqlite_node_errmsg() and
/// dqlite_node_destroy() only, or NULL where there was no memory. Either way it must be destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_create(
    id: dqlite_node_id,
    address: *const c_char,
    data_dir: *const c_char,
    n: *mut *mut dqlite_node,
) -> c_int {
    if n.is_null() {
        return MISUSE;
    }
    let mut handle = ptr::null_mut();
    let result = guarded(ERROR, || {
        // SAFETY: the caller passes null or strings.
        let (address, data_dir) = unsafe { (bytes(address), bytes(data_dir)) };
        let (node, failure) = Node::create(NodeId(id), address, data_dir);
        handle = dqlite_node::into_raw(node);
        let Some(failure) = failure else { return OK };
        // SAFETY: the handle was made here, and only this call knows it.
        unsafe { with_node(handle, |_, _| Err(failure)) }
    });
    // SAFETY: not null, and the caller passes a place for the handle.
    unsafe { n.write(handle) };
    result
}

/// Free a node and whatever it holds; stops it first if it runs. NULL is allowed.
///
/// What dqlite_node_errmsg() and dqlite_node_get_bind_address() returned must not be used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_destroy(n: *mut dqlite_node) {
    if !n.is_null() {
        // SAFETY: the caller gives back a handle from dqlite_node_create and does not use it again.
        guarded((), || drop(unsafe { dqlite_node::from_raw(n) }));
    }
}

/// Start serving the data directory at the bind address.
///
/// Returns once clients can connect. On failure dqlite_node_errmsg() tells why, and the node can only be destroyed.
/// To start again after dqlite_node_stop(), make a new node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_start(n: *mut dqlite_node) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { with_node(n, |node, _| with_signals_blocked(|| node.start())) }
}

/// Hand the node's duties over to other nodes of the cluster before it is stopped: leadership first, then its vote.
///
/// Leadership goes to the voter that is furthest, within an election timeout. Then the best node that does not vote
/// and answers becomes a voter in this one's place, chosen as role management would, and this one a spare. Role
/// management ends on this node. Clients see one error at most that calls for another try.
///
/// Blocks until that is done or has failed. Returns DQLITE_ERROR where nobody took over leadership, or nobody is
/// there to take the vote: so always in a cluster of one node, and, with leadership moved, in one of voters only.
/// It is safe to stop the node then as well. Returns DQLITE_MISUSE where the node does not run. It may be called
/// from any thread but those that run the connect function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_handover(n: *mut dqlite_node) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { with_node(n, |node, _| with_signals_blocked(|| node.handover())) }
}

/// Stop serving: close all connections, finish all files, release the data directory.
///
/// Blocks until that is done. Returns DQLITE_MISUSE where the node does not run. It may be called from any thread
/// but those that run the connect function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_stop(n: *mut dqlite_node) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { with_node(n, |node, _| node.stop()) }
}

/// Set the address to listen on, and bind it at once. Listening begins with dqlite_node_start().
///
/// The address is one of these, all numeric; the default port is 8080, and port 0 lets the system choose one:
///
///   ADDR[:PORT]      an IPv4 address
///   [ADDR]:PORT      an IPv6 address
///   ADDR             an IPv6 address
///   @NAME            an abstract Unix socket, which only the same process may connect to
///   @                the same, with a name that the system chooses
///
/// Returns DQLITE_ERROR if the address is wrong or cannot be had; then the address that was set before stays. The
/// error message does not change: the log says why, and so does dqlite_node_start() where no address was set before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_bind_address(n: *mut dqlite_node, address: *const c_char) -> c_int {
    let set = |node: &mut Node, handle: &dqlite_node| {
        // SAFETY: the caller passes null or a string.
        let address = unsafe { bytes(address) }
            .ok_or_else(|| Failure::logged(Code::Misuse, "bind: an address expected, found NULL"))?;
        let reported = node.bind(address).map_err(Failure::to_log)?;
        // The text came from a C string, or is a socket name without a NUL in it.
        handle.set_bind_address(CString::new(reported).map_err(|error| Failure::logged(Code::Error, error))?);
        Ok(())
    };
    // SAFETY: the caller passes null or a live handle.
    unsafe { with_node(n, set) }
}

/// The address set with dqlite_node_set_bind_address(), NULL if there is none.
///
/// It is as it was given, except that the name of an abstract socket is the one that the system chose where that
/// was asked for. The string belongs to the node, until another address is set or the node is destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_get_bind_address(n: *mut dqlite_node) -> *const c_char {
    // SAFETY: the caller passes null or a live handle.
    unsafe { n.as_ref() }.map_or(ptr::null(), dqlite_node::bind_address)
}

/// What went wrong in the last call of dqlite_node_create(), dqlite_node_start(), dqlite_node_recover(),
/// dqlite_node_recover_ext() or dqlite_node_describe_last_entry() that failed; empty if none did. For NULL it says
/// that the node is NULL.
///
/// The string belongs to the node and lives as long as the node does; its content changes with the next failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_errmsg(n: *mut dqlite_node) -> *const c_char {
    // SAFETY: the caller passes null or a live handle.
    unsafe { n.as_ref() }.map_or(c"node is NULL".as_ptr(), |node| node.error().as_ptr())
}

/// Set the function that connects this node to others. Without one, or with NULL, numeric IP addresses are reached
/// over TCP.
///
/// The function gets arg untouched and the address as the cluster knows it, a string that is valid during the call.
/// It must store a connected stream socket, TCP or Unix, and return 0; the socket then belongs to the library. Or it
/// must return something else and leave nothing open.
///
/// It is called on threads of the library, several calls at a time if need be, until the node is stopped. It may
/// block, but dqlite_node_stop() may have to wait for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_connect_func(
    n: *mut dqlite_node,
    f: Option<unsafe extern "C" fn(arg: *mut c_void, address: *const c_char, fd: *mut c_int) -> c_int>,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the caller passes null or a live handle.
    unsafe { with_node(n, |node, _| node.set_connector(connector(f, arg))) }
}

/// The argument of a connect function, on its way to the threads that call it.
struct Argument(*mut c_void);

// SAFETY: the header says that the function is called on threads of the library with this argument; whatever it
// points to is the program's to guard.
unsafe impl Send for Argument {}
// SAFETY: as above; several calls at a time are announced as well.
unsafe impl Sync for Argument {}

impl Argument {
    /// A method, so that a closure captures the whole of this type and not the pointer in it.
    fn get(&self) -> *mut c_void {
        self.0
    }
}

/// The safe form of a program's connect function.
#[must_use]
pub fn connector(f: dqlite_connect_func, arg: *mut c_void) -> Option<Connector> {
    let f = f?;
    let arg = Argument(arg);
    Some(Connector::new(move |address| {
        let address = CString::new(address).map_err(|_| NO_CONNECTION)?;
        let mut fd: c_int = -1;
        // SAFETY: a function of this type that the program promises to be callable from here until the node is
        // stopped, with the argument that came along, a string and a place for the socket.
        let result = unsafe { f(arg.get(), address.as_ptr(), &raw mut fd) };
        match result {
            0 if fd >= 0 => {
                // SAFETY: on success the socket belongs to the library, so the program promises.
                Ok(unsafe { OwnedFd::from_raw_fd(fd) })
            }
            0 => Err(NO_CONNECTION),
            code => Err(code),
        }
    }))
}

#[cfg(test)]
#[path = "node/tests.rs"]
mod tests;

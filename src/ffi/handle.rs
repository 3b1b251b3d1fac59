//! The types of the header, and how a handle becomes a reference.
#![expect(unsafe_code, reason = "C hands in pointers")]
#![expect(non_camel_case_types, reason = "the names are C's")]

use std::ffi::{CString, c_char, c_int, c_ulonglong, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::errors::{ERROR, ErrorText, MISUSE, OK, code};
use super::guard::guarded;
use crate::admin::{Failure, Node, Server};

/// The identity of a node. 0 stands for none.
pub type dqlite_node_id = c_ulonglong;

/// A node: one member of a cluster, with its databases.
///
/// Use a node from one thread at a time; different nodes are independent of each other. Any thread will do, and
/// no call has to come from the thread that an earlier one came from. dqlite_node_errmsg() and
/// dqlite_node_get_bind_address() may be called at any time.
pub struct dqlite_node {
    node: Mutex<Node>,
    error: ErrorText,
    /// The text of `bind_address`, so that it can be read while another call holds the node.
    bind_address: AtomicPtr<c_char>,
}

/// A server: a node that looks after its own files and finds its cluster again by itself. Experimental.
///
/// Use a server from one thread at a time.
pub struct dqlite_server {
    server: Mutex<Server>,
}

/// A server of a cluster, for dqlite_node_recover().
#[repr(C)]
pub struct dqlite_node_info {
    /// The id of the node.
    pub id: dqlite_node_id,
    /// The address of the node.
    pub address: *const c_char,
}

/// A server of a cluster, for dqlite_node_recover_ext().
#[repr(C)]
pub struct dqlite_node_info_ext {
    /// The size of this struct: sizeof(dqlite_node_info_ext), or DQLITE_NODE_INFO_EXT_SZ_ORIG.
    pub size: u64,
    /// The id of the node.
    pub id: u64,
    /// The address of the node: a const char pointer, cast to an integer.
    pub address: u64,
    /// The role of the node: 0 voter, 1 stand-by, 2 spare.
    pub dqlite_role: u64,
}

/// A function that connects to a peer: see dqlite_node_set_connect_func().
pub type dqlite_connect_func =
    Option<unsafe extern "C" fn(arg: *mut c_void, addr: *const c_char, fd: *mut c_int) -> c_int>;

impl dqlite_node {
    /// A handle that C owns until it gives it back to [`Self::from_raw`].
    #[must_use]
    pub fn into_raw(node: Node) -> *mut Self {
        let handle =
            Self { node: Mutex::new(node), error: ErrorText::new(), bind_address: AtomicPtr::default() };
        Box::into_raw(Box::new(handle))
    }

    /// Takes a handle back; dropping it frees everything.
    ///
    /// # Safety
    /// `handle` came from [`Self::into_raw`], was not taken back yet, and nobody uses it any more.
    #[must_use]
    pub unsafe fn from_raw(handle: *mut Self) -> Box<Self> {
        // SAFETY: the caller's contract is that of `Box::from_raw`.
        unsafe { Box::from_raw(handle) }
    }

    /// The error message, for C to read until the handle is destroyed.
    #[must_use]
    pub fn error(&self) -> &ErrorText {
        &self.error
    }

    /// The bind address, for C to read until the next one is set; null without one.
    #[must_use]
    pub fn bind_address(&self) -> *const c_char {
        self.bind_address.load(Ordering::Acquire)
    }

    /// Replaces the text that [`Self::bind_address`] lends.
    pub fn set_bind_address(&self, text: CString) {
        self.free_bind_address(text.into_raw());
    }

    fn free_bind_address(&self, next: *mut c_char) {
        let old = self.bind_address.swap(next, Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: only `set_bind_address` stores pointers here, from `CString::into_raw`, and each is
            // swapped out once.
            drop(unsafe { CString::from_raw(old) });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Node> {
        // A call that panicked has returned its code; the node itself checks the state it is in.
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for dqlite_node {
    fn drop(&mut self) {
        self.free_bind_address(ptr::null_mut());
    }
}

/// Runs `body` on the node behind `handle`: no null pointer and no panic gets past this function.
///
/// # Safety
/// `handle` is null, or came from `dqlite_node_create` and is not destroyed before this returns.
pub unsafe fn with_node(
    handle: *mut dqlite_node,
    body: impl FnOnce(&mut Node, &dqlite_node) -> Result<(), Failure>,
) -> c_int {
    // SAFETY: the caller's contract above; `as_ref` turns null into None.
    let Some(node) = (unsafe { handle.as_ref() }) else { return MISUSE };
    guarded(ERROR, || match body(&mut node.lock(), node) {
        Ok(()) => OK,
        Err(failure) => {
            if let Some(text) = &failure.text {
                node.error.set(text);
            }
            code(&failure)
        }
    })
}

impl dqlite_server {
    /// A handle that C owns until it gives it back to [`Self::from_raw`].
    #[must_use]
    pub fn into_raw(server: Server) -> *mut Self {
        Box::into_raw(Box::new(Self { server: Mutex::new(server) }))
    }

    /// Takes a handle back; dropping it frees everything.
    ///
    /// # Safety
    /// `handle` came from [`Self::into_raw`], was not taken back yet, and nobody uses it any more.
    #[must_use]
    pub unsafe fn from_raw(handle: *mut Self) -> Box<Self> {
        // SAFETY: the caller's contract is that of `Box::from_raw`.
        unsafe { Box::from_raw(handle) }
    }
}

/// Runs `body` on the server behind `handle`; a null pointer or a panic gives `otherwise`.
///
/// # Safety
/// `handle` is null, or came from `dqlite_server_create` and is not destroyed before this returns.
pub unsafe fn with_server<R>(
    handle: *mut dqlite_server,
    otherwise: R,
    body: impl FnOnce(&mut Server) -> R,
) -> R
where
    R: Copy,
{
    // SAFETY: the caller's contract above; `as_ref` turns null into None.
    let Some(server) = (unsafe { handle.as_ref() }) else { return otherwise };
    guarded(otherwise, || body(&mut server.server.lock().unwrap_or_else(PoisonError::into_inner)))
}

use std::ffi::CStr;
use std::io::Read;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;

use super::*;
use crate::runtime::connect::ConnectError;

/// What a program's connect function does here is in the address.
unsafe extern "C" fn connect(arg: *mut c_void, address: *const c_char, fd: *mut c_int) -> c_int {
    // SAFETY: the argument and the address are those that the tests and the library pass.
    let (calls, address) = unsafe { (&mut *arg.cast::<u32>(), CStr::from_ptr(address)) };
    *calls += 1;
    let given = match address.to_str().unwrap() {
        "works" => UnixStream::pair().unwrap().0.into_raw_fd(),
        "forgets" => -1,
        "fails" => return 16,
        other => panic!("{other}"),
    };
    // SAFETY: the library passes a place for the socket.
    unsafe { fd.write(given) };
    0
}

#[test]
fn the_connect_function_gets_its_argument_and_the_address_and_gives_its_socket_away() {
    let mut calls = 0_u32;
    let connector = connector(Some(connect), (&raw mut calls).cast()).unwrap();
    let stream = UnixStream::from(connector.connect("works").unwrap());
    stream.set_nonblocking(true).unwrap();
    // The other end was closed, and this one is open.
    assert_eq!((&stream).read(&mut [0]).unwrap(), 0);
    assert_eq!(connector.connect("fails").map(drop), Err(ConnectError::Refused(16)));
    assert_eq!(connector.connect("forgets").map(drop), Err(ConnectError::Refused(NO_CONNECTION)));
    assert_eq!(connector.connect("nul\0inside").map(drop), Err(ConnectError::Refused(NO_CONNECTION)));
    drop(connector);
    assert_eq!(calls, 3);
}

#[test]
fn no_connect_function_is_none() {
    assert!(connector(None, ptr::null_mut()).is_none());
}

fn created(directory: &std::path::Path) -> *mut dqlite_node {
    let directory = CString::new(directory.to_str().unwrap()).unwrap();
    let mut node = ptr::null_mut();
    // SAFETY: strings and a place for the handle.
    assert_eq!(unsafe { dqlite_node_create(2, c"1".as_ptr(), directory.as_ptr(), &raw mut node) }, OK);
    node
}

#[test]
fn a_panic_in_a_setter_is_an_error_and_the_node_lives_on() {
    let place = tempfile::tempdir().unwrap();
    let node = created(place.path());
    // SAFETY: a live handle; a string; the handle is destroyed last.
    unsafe {
        let result = with_node(node, |_, _| resume_unwind(Box::new("deliberate")));
        assert_eq!(result, ERROR);
        assert_eq!(dqlite_node_set_bind_address(node, c"@".as_ptr()), OK);
        let name = CStr::from_ptr(dqlite_node_get_bind_address(node)).to_str().unwrap();
        assert_eq!(name.len(), 6);
        dqlite_node_destroy(node);
    }
}

#[test]
fn only_a_failure_with_a_text_changes_the_error_message() {
    let place = tempfile::tempdir().unwrap();
    let node = created(place.path());
    // SAFETY: a live handle that is destroyed last.
    unsafe {
        let message = || CStr::from_ptr(dqlite_node_errmsg(node)).to_str().unwrap();
        assert_eq!(message(), "");
        assert_eq!(with_node(node, |_, _| Err(Failure::error("first"))), ERROR);
        assert_eq!(with_node(node, |_, _| Err(Failure::silent(Code::Misuse))), MISUSE);
        assert_eq!(with_node(node, |_, _| Ok(())), OK);
        assert_eq!(message(), "first");
        dqlite_node_destroy(node);
    }
}

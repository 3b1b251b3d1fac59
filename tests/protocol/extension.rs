//! Functions that the program registers with SQLite for all connections.

#![allow(unsafe_code, reason = "an automatic extension is a C function")]

use std::ffi::{c_char, c_int, c_void};

use rusqlite::ffi;

use crate::serve;

/// `program_answer()` gives 42.
unsafe extern "C" fn answer(context: *mut ffi::sqlite3_context, _: c_int, _: *mut *mut ffi::sqlite3_value) {
    // SAFETY: SQLite calls this with the context of the call.
    unsafe { ffi::sqlite3_result_int(context, 42) };
}

unsafe extern "C" fn register(
    db: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    let none = std::ptr::null_mut::<c_void>();
    let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_DETERMINISTIC;
    // SAFETY: SQLite calls this with a connection that is being opened.
    unsafe {
        let name = c"program_answer".as_ptr();
        ffi::sqlite3_create_function_v2(db, name, 0, flags, none, Some(answer), None, None, None)
    }
}

#[test]
fn functions_of_automatic_extensions_work_in_statements() {
    // SAFETY: the function has the signature of an extension's entry point and lives as long as the process.
    assert_eq!(unsafe { ffi::sqlite3_auto_extension(Some(register)) }, ffi::SQLITE_OK);
    let (_node, mut client) = serve();
    assert_eq!(client.query("SELECT program_answer()", &[]).integer(), 42);
    client.exec("CREATE TABLE t(a); INSERT INTO t VALUES(program_answer() + 1)", &[]).ok();
    client.exec("CREATE INDEX i ON t(a + program_answer())", &[]).ok();
    assert_eq!(client.query("SELECT a FROM t WHERE a + program_answer() = 85", &[]).integer(), 43);
}

//! Version and ids: what needs no handle.
#![expect(unsafe_code, reason = "exported symbols, and strings that C lends")]

use std::ffi::{c_char, c_int};

use super::guard::{bytes, guarded};
use super::handle::dqlite_node_id;
use crate::admin::node_id;

/// A pointer to constant text, as a variable that C reads.
#[repr(transparent)]
pub struct Text(*const c_char);

// SAFETY: it points to a constant, and nobody writes it.
unsafe impl Sync for Text {}

/// The release and the build. A pointer, not an array: programs copy its 8 bytes.
#[unsafe(no_mangle)]
pub static dqlite_version_string: Text =
    Text(concat!(env!("CARGO_PKG_VERSION"), "@rs\0").as_ptr().cast::<c_char>());

const VERSION_NUMBER: c_int = part(env!("CARGO_PKG_VERSION_MAJOR")) * 10_000
    + part(env!("CARGO_PKG_VERSION_MINOR")) * 100
    + part(env!("CARGO_PKG_VERSION_PATCH"));

const fn part(text: &str) -> c_int {
    match c_int::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("the version is made of numbers"),
    }
}

/// The version of the library that the program runs with, as major * 10000 + minor * 100 + release.
///
/// Compare it with DQLITE_VERSION_NUMBER, the version of the header that the program was compiled with. Any
/// thread may call this at any time.
#[unsafe(no_mangle)]
pub extern "C" fn dqlite_version_number() -> c_int {
    VERSION_NUMBER
}

/// Make an id for a new node.
///
/// The id is drawn from the address and the current time: call this once for each node of a cluster and keep
/// the result, which the node needs for the rest of its life.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_generate_node_id(address: *const c_char) -> dqlite_node_id {
    guarded(0, || {
        // SAFETY: the caller passes null or a string.
        let address = unsafe { bytes(address) }.unwrap_or_default();
        node_id::generate_now(address).0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_release_whose_behaviour_this_is() {
        assert_eq!(dqlite_version_number(), 11_807);
        // SAFETY: a constant that ends with a NUL.
        let text = unsafe { bytes(dqlite_version_string.0) };
        assert_eq!(text, Some(b"1.18.7@rs".as_slice()));
    }

    #[test]
    fn two_ids_for_one_address_differ() {
        // SAFETY: a constant that ends with a NUL.
        let pair =
            unsafe { [dqlite_generate_node_id(c"a".as_ptr()), dqlite_generate_node_id(c"a".as_ptr())] };
        assert_ne!(pair[0], pair[1]);
    }
}

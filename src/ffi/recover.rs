//! Operations on a node that does not run.
#![expect(unsafe_code, reason = "exported symbols, and pointers that C hands in")]

use std::ffi::{c_char, c_int};
use std::ptr::with_exposed_provenance;

use super::errors::NOMEM;
use super::guard::bytes;
use super::handle::{dqlite_node, dqlite_node_info, dqlite_node_info_ext, with_node};
use crate::admin::Failure;
use crate::admin::member::{Member, role_from_api};
use crate::base::{NodeId, Role};
use crate::runtime::trace;

/// The size of the struct in its first release: the stride of every array, and the least that `size` may say.
const INFO_BYTES: u64 = size_of::<dqlite_node_info_ext>() as u64;

/// More than any future release will add; a larger `size` is a mistake.
const INFO_BYTES_MAX: u64 = 4096;

/// Make the given servers the members of the cluster, all of them voters. See dqlite_node_recover_ext().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_recover(
    n: *mut dqlite_node,
    infos: *mut dqlite_node_info,
    n_info: c_int,
) -> c_int {
    if !n.is_null() && n_info < 0 {
        // What the C library says to an array of that size, without a text.
        trace::tell_of_refusal(format_args!("recover: a count of servers expected, found {n_info}"));
        return NOMEM;
    }
    // SAFETY: the caller passes an array of `n_info` servers whose addresses are strings or null.
    let read = |index| unsafe {
        let info = &*infos.add(index);
        let address = bytes(info.address).ok_or("an address expected, found NULL")?;
        Ok(Member { id: NodeId(info.id), address: address.to_vec(), role: Role::Voter })
    };
    // SAFETY: the caller passes null or a live handle.
    unsafe { recover(n, infos.is_null(), n_info, read) }
}

/// Make the given servers the members of the cluster, for when too many nodes are lost for ever to have a majority.
///
/// Stop all nodes first. Call this once, on the node with the newest log, see dqlite_node_describe_last_entry();
/// then copy its data directory over those of the other nodes in the list. The list replaces the old members
/// altogether. After this, make new nodes and start them. The file cluster-before-recover.yaml in the directory keeps
/// what the members were, and tells how to go back as long as no node was started.
///
/// The size of each struct must be set. Returns DQLITE_MISUSE for a list that is empty, names an id or an address
/// twice, or holds an id of 0, a NULL address or a wrong size, or no voter, and then changes nothing. Whatever goes
/// wrong, dqlite_node_errmsg() tells what, and what to do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_recover_ext(
    n: *mut dqlite_node,
    infos: *mut dqlite_node_info_ext,
    n_info: c_int,
) -> c_int {
    let read = |index| {
        // SAFETY: the caller passes an array of `n_info` servers, each 32 bytes after the last one, whose addresses
        // are strings or null; where `size` says more, there is as much memory.
        unsafe {
            let info = infos.add(index);
            if !is_understood(info) {
                return Err("a size of 32, or a longer struct with zeros behind that, expected");
            }
            let info = &*info;
            let address =
                usize::try_from(info.address).map_err(|_| "an address expected, found another number")?;
            let address = bytes(with_exposed_provenance::<c_char>(address));
            let address = address.ok_or("an address expected, found NULL")?;
            Ok(Member {
                id: NodeId(info.id),
                address: address.to_vec(),
                role: role_from_api(info.dqlite_role),
            })
        }
    };
    // SAFETY: the caller passes null or a live handle.
    unsafe { recover(n, infos.is_null(), n_info, read) }
}

/// Whether a struct, perhaps of a later release, says nothing beyond what this one knows: what follows is zero.
///
/// # Safety
/// `info` points to as many bytes as its `size` says, and to 32 at least.
unsafe fn is_understood(info: *const dqlite_node_info_ext) -> bool {
    // SAFETY: at least 32 bytes, of which the size is the first word.
    let size = unsafe { (*info).size };
    if !(INFO_BYTES..=INFO_BYTES_MAX).contains(&size) || size % 8 != 0 {
        return false;
    }
    let words = usize::try_from(size / 8).unwrap_or(0);
    // SAFETY: as many words as the size says.
    (size_of::<dqlite_node_info_ext>() / 8..words).all(|word| unsafe { *info.cast::<u64>().add(word) } == 0)
}

/// # Safety
/// As [`with_node`]; and `read` may be called for every index below `n_info` unless `no_list`.
unsafe fn recover(
    n: *mut dqlite_node,
    no_list: bool,
    n_info: c_int,
    read: impl Fn(usize) -> Result<Member, &'static str>,
) -> c_int {
    // SAFETY: the caller's contract is the same.
    unsafe {
        with_node(n, |node, _| {
            let count = usize::try_from(n_info).unwrap_or(0);
            let wrong = |text| Failure::misuse(format!("raft_recover(): {text}; nothing was changed"));
            if no_list {
                return Err(wrong("a list of servers expected, found NULL".to_owned()));
            }
            let read =
                |index| read(index).map_err(|text| wrong(format!("server {index} of the list: {text}")));
            node.recover((0..count).map(read).collect::<Result<_, _>>()?)
        })
    }
}

/// Tell which entry is the last one in the node's log: of several nodes, the one with the higher term, or with the
/// higher index at equal terms, has the newest log. Both are 0 where there is no log.
///
/// The node must not run. The log is loaded for this, so what was damaged may be put aside: see
/// dqlite_node_set_auto_recovery(). On failure nothing is stored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_describe_last_entry(
    n: *mut dqlite_node,
    last_entry_index: *mut u64,
    last_entry_term: *mut u64,
) -> c_int {
    let places = !last_entry_index.is_null() && !last_entry_term.is_null();
    // SAFETY: the caller passes null or a live handle, and two places for numbers, written only if not null.
    unsafe {
        with_node(n, |node, _| {
            if !places {
                let text = "dqlite_node_describe_last_entry(): two places for numbers expected, found NULL";
                return Err(Failure::misuse(text));
            }
            let last = node.describe_last_entry()?;
            last_entry_index.write(last.index.0);
            last_entry_term.write(last.term.0);
            Ok(())
        })
    }
}

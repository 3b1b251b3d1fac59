//! A server of a cluster, as programs name it.

use crate::base::Role;
pub use crate::runtime::client::Member;

/// The role that the C API means by a number. An unknown one makes the server a stand-by, as in C, where that
/// is what the numbers of the log come out at.
#[must_use]
pub fn role_from_api(number: u64) -> Role {
    match number {
        0 => Role::Voter,
        2 => Role::Spare,
        _ => Role::StandBy,
    }
}

/// Why a list cannot be the servers of a cluster.
///
/// # Errors
/// In words.
pub fn check(members: &[Member]) -> Result<(), String> {
    if members.is_empty() {
        return Err("servers: at least one expected, found none".to_owned());
    }
    for (index, member) in members.iter().enumerate() {
        let address = String::from_utf8_lossy(&member.address);
        if member.id.0 == 0 {
            return Err(format!("server '{address}': an id other than 0 expected"));
        }
        let mut before = members.iter().take(index);
        if before.any(|other| other.id == member.id || other.address == member.address) {
            return Err(format!(
                "server {} '{address}': the id or the address is in the list twice",
                member.id
            ));
        }
    }
    if !members.iter().any(|member| member.role == Role::Voter) {
        return Err("servers: a voter expected, found none; without one there is never a leader".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::NodeId;

    fn member(id: u64, address: &str) -> Member {
        Member { id: NodeId(id), address: address.as_bytes().to_vec(), role: Role::Voter }
    }

    #[test]
    fn a_list_names_each_id_and_address_once() {
        assert_eq!(check(&[member(1, "a"), member(2, "b")]), Ok(()));
        for wrong in [
            vec![],
            vec![member(0, "a")],
            vec![Member { role: Role::StandBy, ..member(1, "a") }],
            vec![member(1, "a"), member(2, "b"), member(1, "c")],
            vec![member(1, "a"), member(2, "b"), member(3, "a")],
        ] {
            assert!(check(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn unknown_roles_are_stand_bys() {
        let roles = [0, 1, 2, 3, 9, u64::MAX].map(role_from_api);
        let s = Role::StandBy;
        assert_eq!(roles, [Role::Voter, s, Role::Spare, s, s, s]);
    }
}

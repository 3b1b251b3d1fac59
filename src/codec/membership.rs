//! The configuration of a cluster: payload of log entries of kind change, part of a snapshot's metadata and of
//! the message that carries a snapshot.
//!
//! C leaves the bytes up to the next multiple of 8 uninitialised. They are ignored here and written as zeros;
//! whoever passes an entry on keeps its bytes as they are, since checksums cover them.

use std::collections::BTreeSet;
use std::fmt;

use crate::base::{DecodeError, NodeId, Reader, Role, Writer};

const FORMAT: u8 = 1;
/// Id, the NUL of an empty address, role.
const SERVER_BYTES_MIN: usize = 10;

/// One server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its identity; never 0 in a cluster that C made.
    pub id: NodeId,
    /// Where its peers and clients reach it.
    pub address: String,
    /// What it does.
    pub role: Role,
}

/// The servers of a cluster, in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// No id and no address stands there twice.
    pub servers: Vec<Server>,
}

/// Why bytes are no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipError {
    /// A field is cut or out of range.
    Field(DecodeError),
    /// Two servers have this id.
    DuplicateId(NodeId),
    /// Two servers have this address.
    DuplicateAddress(String),
    /// The address of this server is not UTF-8.
    AddressText(NodeId),
}

impl fmt::Display for MembershipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(error) => write!(f, "configuration: {error}"),
            Self::DuplicateId(id) => {
                write!(f, "configuration: each id once expected, found {id} twice")
            }
            Self::DuplicateAddress(address) => {
                write!(f, "configuration: each address once expected, found '{address}' twice")
            }
            Self::AddressText(id) => {
                write!(f, "configuration: address of server {id}: UTF-8 text expected, found other bytes")
            }
        }
    }
}

impl std::error::Error for MembershipError {}

impl From<DecodeError> for MembershipError {
    fn from(error: DecodeError) -> Self {
        Self::Field(error)
    }
}

/// The number of a role in the log, in snapshots and between peers; the client protocol has others.
#[must_use]
pub fn role_code(role: Role) -> u8 {
    match role {
        Role::StandBy => 0,
        Role::Voter => 1,
        Role::Spare => 2,
    }
}

/// The role with this number in the log.
#[must_use]
pub fn role_from_code(code: u8) -> Option<Role> {
    match code {
        0 => Some(Role::StandBy),
        1 => Some(Role::Voter),
        2 => Some(Role::Spare),
        _ => None,
    }
}

impl Configuration {
    /// Decodes a configuration; what follows the last server is padding.
    ///
    /// # Errors
    /// [`MembershipError`]: cut, an unknown version or role, a duplicate.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembershipError> {
        let mut reader = Reader::new(bytes);
        let format = reader.u8("encoding version")?;
        if format != FORMAT {
            let field = "encoding version";
            return Err(DecodeError::Value { field, expected: "1", found: format.into() }.into());
        }
        let count = reader.count("number of servers", u64::MAX, SERVER_BYTES_MIN)?;
        let mut servers = Vec::with_capacity(count);
        for _ in 0..count {
            servers.push(decode_server(&mut reader)?);
        }
        check_unique(&servers)?;
        Ok(Self { servers })
    }

    /// Encodes the configuration, padded with zeros to a multiple of 8.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(FORMAT).u64(self.servers.len() as u64);
        for server in &self.servers {
            writer.u64(server.id.0).bytes(server.address.as_bytes()).u8(0).u8(role_code(server.role));
        }
        writer.pad();
        writer.into_bytes()
    }

    /// The server with this id.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Server> {
        self.servers.iter().find(|server| server.id == id)
    }

    /// The servers that vote.
    pub fn voters(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.role == Role::Voter)
    }
}

/// Whether each server has an id and an address of its own. There may be hundreds of thousands of them, from whoever
/// connects: looking each up among all others would stop the node for minutes.
fn check_unique(servers: &[Server]) -> Result<(), MembershipError> {
    let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for server in servers {
        if !ids.insert(server.id) {
            return Err(MembershipError::DuplicateId(server.id));
        }
        if !addresses.insert(server.address.as_str()) {
            return Err(MembershipError::DuplicateAddress(server.address.clone()));
        }
    }
    Ok(())
}

fn decode_server(reader: &mut Reader<'_>) -> Result<Server, MembershipError> {
    let id = NodeId(reader.u64("server id")?);
    let address = reader.c_str("server address")?.to_vec();
    let address = String::from_utf8(address).map_err(|_| MembershipError::AddressText(id))?;
    let code = reader.u8("server role")?;
    let Some(role) = role_from_code(code) else {
        let expected = "0 (stand-by), 1 (voter) or 2 (spare)";
        return Err(DecodeError::Value { field: "server role", expected, found: code.into() }.into());
    };
    Ok(Server { id, address, role })
}

#[cfg(test)]
mod tests {
    use super::{Configuration, MembershipError, Server};
    use crate::base::{NodeId, Prng, Role};

    fn three() -> Configuration {
        let server = |id, address: &str, role| Server { id: NodeId(id), address: address.to_owned(), role };
        Configuration {
            servers: vec![
                server(1, "127.0.0.1:9001", Role::Voter),
                server(7, "@x", Role::StandBy),
                server(3, "", Role::Spare),
            ],
        }
    }

    #[test]
    fn servers_are_packed_without_padding_and_the_whole_is_padded() {
        let one = Configuration { servers: three().servers[..1].to_vec() };
        let expected: &[u8] = b"\x01\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x00127.0.0.1:9001\0\x01\0\0\0\0\0\0\0";
        assert_eq!(one.encode(), expected);
        assert_eq!(Configuration::decode(&three().encode()), Ok(three()));
    }

    #[test]
    fn padding_is_ignored_whatever_it_holds() {
        let mut bytes = Configuration { servers: three().servers[..1].to_vec() }.encode();
        let end = bytes.len();
        bytes[end - 7..].copy_from_slice(b"\x01\xfc\xe5\x7f\0\0\x09");
        assert_eq!(Configuration::decode(&bytes).unwrap().servers, three().servers[..1]);
    }

    #[test]
    fn duplicates_unknown_roles_and_versions_are_refused_with_what_was_found() {
        let mut twice = three();
        twice.servers[1].id = NodeId(1);
        let refused = Configuration::decode(&twice.encode());
        assert_eq!(refused, Err(MembershipError::DuplicateId(NodeId(1))));
        let mut twice = three();
        twice.servers[2].address = "@x".to_owned();
        let refused = Configuration::decode(&twice.encode());
        assert_eq!(refused, Err(MembershipError::DuplicateAddress("@x".to_owned())));

        let mut bytes = three().encode();
        bytes[0] = 2;
        let text = Configuration::decode(&bytes).unwrap_err().to_string();
        assert_eq!(text, "configuration: encoding version: 1 expected, found 2");
        let mut bytes = three().encode();
        bytes[32] = 3;
        let text = Configuration::decode(&bytes).unwrap_err().to_string();
        assert!(text.ends_with("expected, found 3"), "{text}");
    }

    #[test]
    fn as_many_servers_as_fit_a_message_are_read_in_no_time() {
        // Looked up one by one they would take minutes.
        let server = |id| Server { id: NodeId(id), address: format!("{id:x}"), role: Role::Spare };
        let mut large = Configuration { servers: (0..250_000).map(server).collect() };
        let bytes = large.encode();
        assert!(bytes.len() as u64 <= crate::base::limits::PEER_HEADER_BYTES_MAX);
        assert_eq!(Configuration::decode(&bytes).as_ref(), Ok(&large));
        large.servers.push(Server { id: NodeId(7), address: "new".to_owned(), role: Role::Spare });
        assert_eq!(Configuration::decode(&large.encode()), Err(MembershipError::DuplicateId(NodeId(7))));
    }

    #[test]
    fn a_huge_count_allocates_nothing_and_no_bytes_panic() {
        let mut bytes = three().encode();
        bytes[1..9].fill(0xff);
        assert!(Configuration::decode(&bytes).is_err());
        let mut prng = Prng::new(5);
        for _ in 0..20_000 {
            let mut bytes = three().encode();
            let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
            bytes[at] = prng.next_u64().to_le_bytes()[0];
            bytes.truncate(usize::try_from(prng.below(80)).unwrap());
            if let Ok(found) = Configuration::decode(&bytes) {
                assert_eq!(Configuration::decode(&found.encode()), Ok(found));
            }
        }
    }
}

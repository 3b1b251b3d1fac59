//! The two text files of a managed server, beside the files of its node: who it is, and who its cluster is.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::member::Member;
use crate::base::{NodeId, Role};

/// The file that holds the server's own address and id.
pub const SERVER_INFO: &str = "server-info";

/// The file that holds the servers of the cluster, as far as they were known last.
pub const NODE_STORE: &str = "node-store";

const VERSION: &str = "v1";

/// Who the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// The address that others know it by.
    pub address: String,
    /// Its node's id.
    pub id: NodeId,
}

/// Why a file does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    file: &'static str,
    expected: &'static str,
    found: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} expected, found '{}'", self.file, self.expected, self.found)
    }
}

impl std::error::Error for Malformed {}

/// Lines, each ended, as strict as in C: what this does not understand, it must not overwrite.
struct Lines<'a> {
    file: &'static str,
    rest: &'a str,
}

impl<'a> Lines<'a> {
    /// The lines after the version.
    fn new(file: &'static str, text: &'a str) -> Result<Self, Malformed> {
        let mut lines = Self { file, rest: text };
        match lines.next("the version v1")? {
            VERSION => Ok(lines),
            other => Err(lines.malformed("the version v1", other)),
        }
    }

    fn malformed(&self, expected: &'static str, found: &str) -> Malformed {
        Malformed { file: self.file, expected, found: found.to_owned() }
    }

    fn next(&mut self, expected: &'static str) -> Result<&'a str, Malformed> {
        let (line, rest) = self.rest.split_once('\n').ok_or_else(|| self.malformed(expected, self.rest))?;
        self.rest = rest;
        Ok(line)
    }

    fn id(&mut self) -> Result<NodeId, Malformed> {
        const EXPECTED: &str = "an id in decimal digits";
        let line = self.next(EXPECTED)?;
        let digits = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit());
        match line.parse() {
            Ok(id) if digits => Ok(NodeId(id)),
            _ => Err(self.malformed(EXPECTED, line)),
        }
    }

    fn role(&mut self) -> Result<Role, Malformed> {
        const EXPECTED: &str = "voter, standby or spare";
        let line = self.next(EXPECTED)?;
        match line {
            "voter" => Ok(Role::Voter),
            "standby" => Ok(Role::StandBy),
            "spare" => Ok(Role::Spare),
            other => Err(self.malformed(EXPECTED, other)),
        }
    }
}

impl ServerInfo {
    /// What the text of `server-info` says; `None` for an empty one, which is that of a server never started.
    ///
    /// # Errors
    /// The text is not exactly three lines as this writes them.
    pub fn decode(text: &str) -> Result<Option<Self>, Malformed> {
        if text.is_empty() {
            return Ok(None);
        }
        let mut lines = Lines::new(SERVER_INFO, text)?;
        let address = lines.next("an address")?.to_owned();
        let id = lines.id()?;
        if lines.rest.is_empty() {
            Ok(Some(Self { address, id }))
        } else {
            Err(lines.malformed("the end of the file", lines.rest))
        }
    }

    /// The text.
    #[must_use]
    pub fn encode(&self) -> String {
        format!("{VERSION}\n{}\n{}\n", self.address, self.id)
    }
}

/// What the text of `node-store` says; `None` for an empty one.
///
/// # Errors
/// The text is not as [`encode_store`] writes it.
pub fn decode_store(text: &str) -> Result<Option<Vec<Member>>, Malformed> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut lines = Lines::new(NODE_STORE, text)?;
    let mut members = Vec::new();
    while !lines.rest.is_empty() {
        let address = lines.next("an address")?.as_bytes().to_vec();
        let id = lines.id()?;
        members.push(Member { id, address, role: lines.role()? });
    }
    Ok(Some(members))
}

/// The text of `node-store`.
#[must_use]
pub fn encode_store(members: &[Member]) -> String {
    let mut text = format!("{VERSION}\n");
    for Member { id, address, role } in members {
        let role = match role {
            Role::Voter => "voter",
            Role::StandBy => "standby",
            Role::Spare => "spare",
        };
        text.push_str(&format!("{}\n{id}\n{role}\n", String::from_utf8_lossy(address)));
    }
    text
}

/// The text of a file, which is made, empty, if there is none.
///
/// # Errors
/// Whatever the system says; `InvalidData` where it is not text.
pub fn read_or_create(directory: &Path, name: &str) -> io::Result<String> {
    let path = directory.join(name);
    OpenOptions::new().create(true).append(true).mode(0o664).open(&path)?;
    fs::read_to_string(&path)
}

/// Replaces the text of a file as a whole, so that neither a crash nor a reader ever meets half of it.
///
/// # Errors
/// Whatever the system says; then the file is as it was.
pub fn replace(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let temporary = directory.join(format!("{name}-tmp"));
    let mode = if name == SERVER_INFO { 0o664 } else { 0o644 };
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    // Before the rename: else a crash can leave the name with no text behind it, which reads as a new server.
    file.sync_data()?;
    fs::rename(&temporary, directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: &str =
        "v1\n127.0.0.1:21201\n3297041220608546238\nvoter\n127.0.0.1:21202\n13394524248352739267\nspare\n";

    #[test]
    fn the_files_of_the_c_library_are_read_and_written() {
        let members = decode_store(STORE).unwrap().unwrap();
        let roles: Vec<_> = members.iter().map(|member| (member.id.0, member.role)).collect();
        assert_eq!(
            roles,
            [(3_297_041_220_608_546_238, Role::Voter), (13_394_524_248_352_739_267, Role::Spare)]
        );
        assert_eq!(encode_store(&members), STORE);
        assert_eq!(decode_store("v1\n").unwrap(), Some(vec![]));
        assert_eq!(decode_store("").unwrap(), None);

        let text = "v1\n127.0.0.1:21201\n3297041220608546238\n";
        let info = ServerInfo::decode(text).unwrap().unwrap();
        assert_eq!((info.address.as_str(), info.id.0), ("127.0.0.1:21201", 3_297_041_220_608_546_238));
        assert_eq!(info.encode(), text);
        assert_eq!(ServerInfo::decode("").unwrap(), None);
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        for (text, reason) in [
            ("v2\na\n1\n", "server-info: the version v1 expected, found 'v2'"),
            ("v1\na\n1", "server-info: an id in decimal digits expected, found '1'"),
            ("v1\na\n+1\n", "server-info: an id in decimal digits expected, found '+1'"),
            (
                "v1\na\n18446744073709551616\n",
                "server-info: an id in decimal digits expected, found '18446744073709551616'",
            ),
            ("v1\na\n1\n\n", "server-info: the end of the file expected, found '\n'"),
        ] {
            assert_eq!(ServerInfo::decode(text).unwrap_err().to_string(), reason);
        }
        for text in
            ["v1", "v1\na\n", "v1\na\n1\n", "v1\na\n1\nVoter\n", "v1\na\n1\nvoter\n\n", "v1\na\n\nvoter\n"]
        {
            decode_store(text).unwrap_err();
        }
    }

    #[test]
    fn a_file_is_made_empty_and_replaced_whole() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(read_or_create(place.path(), NODE_STORE).unwrap(), "");
        replace(place.path(), NODE_STORE, STORE).unwrap();
        assert_eq!(read_or_create(place.path(), NODE_STORE).unwrap(), STORE);
        replace(place.path(), NODE_STORE, "v1\n").unwrap();
        assert_eq!(read_or_create(place.path(), NODE_STORE).unwrap(), "v1\n");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    }
}

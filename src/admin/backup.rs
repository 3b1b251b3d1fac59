//! What a recovery keeps of the state before it: one file of text, small whatever the databases are.
//!
//! It is YAML: the members that were, in the form in which go-dqlite's tools read and write lists of members, so that
//! it can be given to `dqlite_node_recover_ext` or `.reconfigure` again; what else there is to know stands in comments,
//! and how to undo the recovery. Beside that a recovery changes nothing that would have to be kept: of the files that
//! a start tidies up, none is in it that held an entry.
//!
//! Invariant: recovered again before it was started, a directory keeps the file of the first time.

use std::fmt::Write as _;

use crate::base::{Index, Term};
use crate::codec::client::request::role_code;
use crate::format::names::METADATA;
use crate::storage::loader::Loaded;

/// The file. No release of the C library or of go-dqlite looks at files of this name, nor deletes them.
pub const NAME: &str = "cluster-before-recover.yaml";

/// How the lines begin that are read again.
const LAST: &str = "# last entry: index ";
const ADDED: &str = "# added: ";

/// The file's content for a recovery that appends `segment` to what was loaded. `before`: the file of an earlier
/// recovery; `metadata`: the files of that kind.
pub fn content(
    before: Option<&[u8]>,
    loaded: &Loaded,
    metadata: &[(String, Vec<u8>)],
    segment: &str,
) -> String {
    match before.and_then(|before| continued(before, loaded, segment)) {
        Some(content) => content,
        None => fresh(loaded, metadata, segment),
    }
}

fn fresh(loaded: &Loaded, metadata: &[(String, Vec<u8>)], segment: &str) -> String {
    let (index, term) = (loaded.last_index, loaded.last_term);
    let mut text = String::from(
        "# Made by dqlite_node_recover: what this directory was before it. Nothing reads this file but people.\n\
         # Until a node is started here the recovery is undone by deleting the files that were added.\n",
    );
    // Writing to a string does not fail.
    let _ = writeln!(text, "{LAST}{index}, term {term}");
    for name in METADATA {
        let found = metadata.iter().find(|(found, _)| found == name);
        let bytes = found.map_or_else(|| "none".to_owned(), |(_, bytes)| hex(bytes));
        let _ = writeln!(text, "# {name}: {bytes}");
    }
    let _ = writeln!(text, "{ADDED}{segment}");
    if loaded.configuration.servers.is_empty() {
        let _ = writeln!(text, "# the members: not known here");
        text.push_str("[]\n");
        return text;
    }
    let _ = writeln!(text, "# the members, as of entry {}:", loaded.configuration_index);
    for server in &loaded.configuration.servers {
        let role = role_code(server.role);
        let address = quoted(&server.address);
        let _ = write!(text, "- Address: {address}\n  ID: {}\n  Role: {role}\n", server.id);
    }
    text
}

/// The content of before with one more segment, if nothing has happened to the log since but recoveries.
fn continued(before: &[u8], loaded: &Loaded, segment: &str) -> Option<String> {
    let text = std::str::from_utf8(before).ok()?;
    let (index, term) = text.lines().find_map(|line| line.strip_prefix(LAST))?.split_once(", term ")?;
    let (index, term): (u64, u64) = (index.parse().ok()?, term.parse().ok()?);
    // The last of them may have been lost with the power.
    let added: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(ADDED)).collect();
    let present = loaded.last_index.0.checked_sub(index).filter(|present| *present > 0)?;
    let recovered = (index..loaded.last_index.0).all(|before| {
        let at = Index(before).next();
        let entry = loaded.entries.iter().find(|entry| entry.index == at);
        let name = crate::format::names::closed_name(at, at);
        entry.is_some_and(|entry| entry.kind == crate::base::EntryKind::Change && entry.term == Term(1))
            && added.contains(&name.as_str())
    });
    let original = index == 0 || loaded.entries.iter().any(|it| (it.index.0, it.term.0) == (index, term));
    let original =
        original || loaded.snapshot.as_ref().is_some_and(|it| (it.index.0, it.term.0) == (index, term));
    if !recovered || !original || present > added.len() as u64 {
        return None;
    }
    if added.contains(&segment) {
        return Some(text.to_owned());
    }
    let last = added.last()?;
    let line = format!("{ADDED}{last}\n");
    Some(text.replacen(&line, &format!("{line}{ADDED}{segment}\n"), 1))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// As a string in double quotes of YAML.
fn quoted(address: &str) -> String {
    let mut text = String::from("\"");
    for found in address.chars() {
        match found {
            '"' | '\\' => text.extend(['\\', found]),
            found if found.is_control() => {
                let _ = write!(text, "\\U{:08x}", u32::from(found));
            }
            found => text.push(found),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Entry, EntryKind, NodeId, Payload, Role};
    use crate::codec::membership::{Configuration, Server};
    use crate::format::names::closed_name;

    /// A log of entries of these terms, the first of which are commands.
    fn log(commands: u64, terms: &[u64]) -> Loaded {
        let server =
            |id: u64, role, address: &str| Server { id: NodeId(id), address: address.to_owned(), role };
        let servers = vec![
            server(1, Role::Voter, "a:1"),
            server(2, Role::StandBy, "b\"\\\n"),
            server(3, Role::Spare, "@c"),
        ];
        let entry = |(at, term): (usize, &u64)| {
            let index = at as u64 + 1;
            let kind = if index <= commands { EntryKind::Command } else { EntryKind::Change };
            Entry { index: Index(index), term: Term(*term), kind, payload: Payload::from_bytes(&[0; 8]) }
        };
        let entries: Vec<Entry> = terms.iter().enumerate().map(entry).collect();
        Loaded {
            term: Term(2),
            voted_for: NodeId(1),
            metadata_version: 3,
            snapshot: None,
            first_index: Index(1),
            last_index: Index(terms.len() as u64),
            last_term: Term(terms.last().copied().unwrap_or(0)),
            entries,
            configuration: Configuration { servers },
            configuration_index: Index(1),
            configuration_committed: true,
            closed_segments: Vec::new(),
            newest_snapshot_time: 0,
            notes: Vec::new(),
        }
    }

    fn after(before: Option<&str>, loaded: &Loaded) -> String {
        let next = loaded.last_index.next();
        let metadata = [("metadata1".to_owned(), vec![1, 0xab])];
        content(before.map(str::as_bytes), loaded, &metadata, &closed_name(next, next))
    }

    const FIRST: &str = "\
# Made by dqlite_node_recover: what this directory was before it. Nothing reads this file but people.
# Until a node is started here the recovery is undone by deleting the files that were added.
# last entry: index 2, term 2
# metadata1: 01ab
# metadata2: none
# added: 0000000000000003-0000000000000003
# the members, as of entry 1:
- Address: \"a:1\"
  ID: 1
  Role: 0
- Address: \"b\\\"\\\\\\U0000000a\"
  ID: 2
  Role: 1
- Address: \"@c\"
  ID: 3
  Role: 2
";

    #[test]
    fn it_says_what_was_and_how_to_go_back_to_it() {
        assert_eq!(after(None, &log(2, &[2, 2])), FIRST);
    }

    #[test]
    fn recovered_again_the_first_state_stays_and_what_was_added_is_told() {
        let second = after(Some(FIRST), &log(2, &[2, 2, 1]));
        let added =
            "# added: 0000000000000003-0000000000000003\n# added: 0000000000000004-0000000000000004\n";
        assert_eq!(second, FIRST.replace("# added: 0000000000000003-0000000000000003\n", added));
        let third = after(Some(&second), &log(2, &[2, 2, 1, 1]));
        assert!(third.contains(added) && third.contains("# added: 0000000000000005-0000000000000005\n"));
        assert!(third.contains("# last entry: index 2, term 2\n"));
        // The power went before the segment was there.
        assert_eq!(after(Some(&second), &log(2, &[2, 2, 1])), second);
        assert_eq!(after(Some(&second), &log(2, &[2, 2])), FIRST);
    }

    #[test]
    fn a_log_that_went_on_is_a_state_of_its_own() {
        for went_on in [
            log(2, &[2, 2, 1, 3]),
            log(3, &[2, 2, 1]),
            log(2, &[2, 3, 1]),
            log(2, &[2, 2, 1, 1]),
            log(2, &[2]),
        ] {
            let text = after(Some(FIRST), &went_on);
            let last = format!("# last entry: index {}, term {}\n", went_on.last_index, went_on.last_term);
            assert!(text.contains(&last), "{text}");
            assert_eq!(text.matches(ADDED).count(), 1, "{text}");
        }
        for broken in ["", "# last entry: index x", "\0"] {
            assert_eq!(after(Some(broken), &log(2, &[2, 2])), FIRST);
        }
    }

    #[test]
    fn a_node_that_knows_no_members_has_none_in_the_list() {
        let mut loaded = log(0, &[]);
        loaded.configuration = Configuration::default();
        assert!(after(None, &loaded).ends_with("# the members: not known here\n[]\n"));
    }
}

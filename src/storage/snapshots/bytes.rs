//! The bytes of snapshot files as this library writes them: no WAL part.

use crate::base::crc::checksum;
use crate::base::{Index, Writer};

const FORMAT: u64 = 1;

/// The content of a `.meta` file.
pub fn encode_meta(configuration_index: Index, configuration: &[u8]) -> Vec<u8> {
    let mut body = Writer::new();
    body.u64(configuration_index.0).u64(configuration.len() as u64).bytes(configuration);
    let sum = checksum(0, body.as_slice());
    let mut out = Writer::new();
    out.u64(FORMAT).u64(u64::from(sum)).bytes(body.as_slice());
    out.into_bytes()
}

/// What precedes the databases.
pub fn encode_payload_header(databases: u64) -> Vec<u8> {
    let mut out = Writer::new();
    out.u64(FORMAT).u64(databases);
    out.into_bytes()
}

/// What precedes the pages of one database.
pub fn encode_database_header(name: &[u8], main_bytes: u64) -> Vec<u8> {
    let mut out = Writer::new();
    out.text(name).u64(main_bytes).u64(0);
    out.into_bytes()
}

//! What an address given by a program means. Everything is numeric: no name is ever looked up.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

/// The port of an address that names none.
pub const DEFAULT_PORT: u16 = 8080;

/// The longest name of an abstract socket, in bytes: what the system's address has room for.
pub const ABSTRACT_NAME_BYTES_MAX: usize = 107;

/// Where to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindAddress {
    /// An IP address and a port; port 0 lets the kernel choose.
    Ip(SocketAddr),
    /// An abstract Unix socket of this name.
    Abstract(Vec<u8>),
    /// An abstract Unix socket whose name the kernel chooses.
    Autobind,
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    what: &'static str,
    found: String,
}

impl AddressError {
    fn new(what: &'static str, found: &[u8]) -> Self {
        Self { what, found: String::from_utf8_lossy(found).into_owned() }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address: {} expected, found '{}'", self.what, self.found)
    }
}

impl std::error::Error for AddressError {}

/// Reads the text given to `dqlite_node_set_bind_address`.
///
/// # Errors
/// It is none of `@`, `@NAME`, `[ADDR]:PORT`, `ADDR.WITH.DOTS[:PORT]` and `ADDR`, all numeric.
pub fn parse_bind(text: &[u8]) -> Result<BindAddress, AddressError> {
    match text.strip_prefix(b"@") {
        Some([]) => Ok(BindAddress::Autobind),
        Some(name) if name.len() <= ABSTRACT_NAME_BYTES_MAX => Ok(BindAddress::Abstract(name.to_vec())),
        Some(name) => Err(AddressError::new("an abstract name of at most 107 bytes", name)),
        None => parse_ip(text).map(BindAddress::Ip),
    }
}

/// Reads an IP address with or without a port.
///
/// # Errors
/// It is none of `[ADDR]:PORT`, `ADDR.WITH.DOTS[:PORT]` and `ADDR`, all numeric.
pub fn parse_ip(text: &[u8]) -> Result<SocketAddr, AddressError> {
    let whole = std::str::from_utf8(text).map_err(|_| AddressError::new("text", text))?;
    if let Some(rest) = whole.strip_prefix('[') {
        let (host, port) = rest.split_once("]:").ok_or_else(|| AddressError::new("[ADDRESS]:PORT", text))?;
        return socket_address(host, parse_port(port)?);
    }
    // An address with a dot is not an IPv6 one here: what follows its first colon is the port.
    match whole.split_once(':').filter(|_| whole.contains('.')) {
        Some((host, port)) => socket_address(host, parse_port(port)?),
        None => socket_address(whole, DEFAULT_PORT),
    }
}

/// No digit at all means a port that the kernel chooses.
fn parse_port(text: &str) -> Result<u16, AddressError> {
    if text.is_empty() {
        return Ok(0);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| AddressError::new("a port from 0 to 65535", text.as_bytes()))
}

fn socket_address(host: &str, port: u16) -> Result<SocketAddr, AddressError> {
    if let Some(v4) = parse_ipv4(host) {
        return Ok(SocketAddr::V4(SocketAddrV4::new(v4, port)));
    }
    let (address, scope) = match host.split_once('%') {
        Some((address, scope)) => (address, scope_id(scope)),
        None => (host, Some(0)),
    };
    match (Ipv6Addr::from_str(address), scope) {
        (Ok(v6), Some(scope)) => Ok(SocketAddr::V6(SocketAddrV6::new(v6, port, 0, scope))),
        _ => Err(AddressError::new("a numeric IPv4 or IPv6 address", host.as_bytes())),
    }
}

/// A network interface, by number or by name.
fn scope_id(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
    rustix::net::netdevice::name_to_index(socket.ok()?, text).ok()
}

/// The forms that `inet_aton` takes: one to four parts, each decimal, octal or hexadecimal, the last one
/// filling what is left of the 32 bits.
fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.').rev().map(parse_part);
    let last = parts.next()??;
    let leading = parts.rev().collect::<Option<Vec<u32>>>()?;
    if leading.len() > 3 || leading.iter().any(|part| *part > 255) {
        return None;
    }
    let (mut high, mut free_bits) = (0_u64, 32_u32);
    for part in leading {
        free_bits -= 8;
        high |= u64::from(part) << free_bits;
    }
    if u64::from(last) >= 1 << free_bits {
        return None;
    }
    u32::try_from(high | u64::from(last)).ok().map(Ipv4Addr::from_bits)
}

fn parse_part(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', _, ..] => (text.get(1..)?, 8),
        _ => (text, 10),
    };
    // `from_str_radix` would take a sign.
    if !digits.starts_with(|first: char| first.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::{BindAddress, parse_bind};

    fn parsed(text: &str) -> String {
        match parse_bind(text.as_bytes()) {
            Ok(BindAddress::Ip(address)) => address.to_string(),
            Ok(BindAddress::Abstract(name)) => format!("abstract {}", String::from_utf8_lossy(&name)),
            Ok(BindAddress::Autobind) => "autobind".to_owned(),
            Err(_) => "refused".to_owned(),
        }
    }

    #[test]
    fn every_form_of_the_bind_table_means_what_the_c_library_takes_it_for() {
        for (text, meaning) in [
            ("@", "autobind"),
            ("@a/b", "abstract a/b"),
            ("@bad name", "abstract bad name"),
            ("[::1]:21109", "[::1]:21109"),
            ("[127.0.0.1]:5", "127.0.0.1:5"),
            ("[::1%7]:5", "[::1%7]:5"),
            ("[fe80::1%lo]:5", "[fe80::1%1]:5"),
            ("[::1]", "refused"),
            ("[::1:5", "refused"),
            ("127.0.0.1", "127.0.0.1:8080"),
            ("127.0.0.1:21110", "127.0.0.1:21110"),
            ("127.0.0.1:21110:5", "refused"),
            ("127.1:21111", "127.0.0.1:21111"),
            ("0x7f.1:1", "127.0.0.1:1"),
            ("0177.0.1:1", "127.0.0.1:1"),
            ("127.0.0.1:", "127.0.0.1:0"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1:65535", "127.0.0.1:65535"),
            ("127.0.0.1:65536", "refused"),
            ("127.0.0.1:99999", "refused"),
            ("127.0.0.1:http", "refused"),
            ("127.0.0.1:+1", "refused"),
            ("::1", "[::1]:8080"),
            ("2130706433", "127.0.0.1:8080"),
            ("4294967295", "255.255.255.255:8080"),
            ("4294967296", "refused"),
            ("1.16777216:1", "refused"),
            ("256.1:1", "refused"),
            ("1.2.3.4.5:1", "refused"),
            ("1.2..4:1", "refused"),
            ("0x.1:1", "refused"),
            ("+1.2.3.4:1", "refused"),
            ("09.1:1", "refused"),
            ("localhost", "refused"),
            ("localhost:1", "refused"),
            ("*:1", "refused"),
            (":1", "refused"),
            ("0:1", "refused"),
            ("::1:21109:x", "refused"),
            ("::ffff:1.2.3.4", "refused"),
            ("", "refused"),
            ("999.1.1.1:1", "refused"),
            ("unix:/x", "refused"),
        ] {
            assert_eq!(parsed(text), meaning, "for '{text}'");
        }
    }

    #[test]
    fn an_abstract_name_has_at_most_107_bytes() {
        assert_eq!(parsed(&format!("@{}", "n".repeat(107))), format!("abstract {}", "n".repeat(107)));
        assert_eq!(parsed(&format!("@{}", "n".repeat(108))), "refused");
    }

    #[test]
    fn a_refusal_says_what_was_expected_and_found() {
        let error = parse_bind(b"127.0.0.1:x").unwrap_err();
        assert_eq!(error.to_string(), "address: a port from 0 to 65535 expected, found 'x'");
    }
}

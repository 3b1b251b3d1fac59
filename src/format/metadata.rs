//! `metadata1` and `metadata2`: the current term and the vote in it. No checksum; the file of the version
//! before always stays intact.

use super::{Class, FormatError, names};
use crate::base::{NodeId, Reader, Term, Writer};

/// The exact size of a metadata file.
pub const METADATA_BYTES: usize = 32;
const FORMAT: u64 = 1;

/// What one metadata file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// From 1, one more at every store.
    pub version: u64,
    /// The current term.
    pub term: Term,
    /// Whom this node voted for in that term; 0 when for nobody.
    pub voted_for: NodeId,
}

impl Metadata {
    /// The content of the file.
    #[must_use]
    pub fn encode(&self) -> [u8; METADATA_BYTES] {
        let mut writer = Writer::with_capacity(METADATA_BYTES);
        writer.u64(FORMAT).u64(self.version).u64(self.term.0).u64(self.voted_for.0);
        let mut bytes = [0; METADATA_BYTES];
        bytes.copy_from_slice(writer.as_slice());
        bytes
    }
}

/// Decodes the content of the metadata file `name`. `None`: too short, which counts as absent, since a crash
/// between creating and writing leaves just that.
///
/// # Errors
/// What C calls corrupt or malformed.
pub fn decode(name: &str, bytes: &[u8]) -> Result<Option<Metadata>, FormatError> {
    if bytes.len() > METADATA_BYTES {
        let text = format!("{name} has size {} instead of {METADATA_BYTES}", bytes.len());
        return Err(FormatError::new(Class::Corrupt, text));
    }
    let mut reader = Reader::new(bytes);
    let mut field = || reader.u64(names::METADATA[0]).ok();
    let (Some(format), Some(version), Some(term), Some(voted_for)) = (field(), field(), field(), field())
    else {
        return Ok(None);
    };
    if format != FORMAT {
        let text = format!("decode content of {name}: bad format version {format}");
        return Err(FormatError::new(Class::Malformed, text));
    }
    if version == 0 {
        let text = format!("decode content of {name}: version is set to zero");
        return Err(FormatError::new(Class::Corrupt, text));
    }
    Ok(Some(Metadata { version, term: Term(term), voted_for: NodeId(voted_for) }))
}

/// The newer one of both files.
///
/// # Errors
/// When both claim to be the same version.
pub fn newer(first: Option<Metadata>, second: Option<Metadata>) -> Result<Option<Metadata>, FormatError> {
    let (Some(a), Some(b)) = (first, second) else {
        return Ok(first.or(second));
    };
    if a.version == b.version {
        let text = format!("metadata1 and metadata2 are both at version {}", a.version);
        return Err(FormatError::new(Class::Corrupt, text));
    }
    Ok(Some(if a.version > b.version { a } else { b }))
}

#[cfg(test)]
mod tests {
    use super::{Metadata, decode, newer};
    use crate::base::{NodeId, Term};

    fn sample(version: u64) -> Metadata {
        Metadata { version, term: Term(2), voted_for: NodeId(9) }
    }

    #[test]
    fn what_was_encoded_is_decoded_and_anything_shorter_counts_as_absent() {
        let bytes = sample(3).encode();
        assert_eq!(decode("metadata1", &bytes), Ok(Some(sample(3))));
        for len in 0..bytes.len() {
            assert_eq!(decode("metadata1", &bytes[..len]), Ok(None));
        }
    }

    #[test]
    fn defects_have_the_texts_of_c() {
        let text = |bytes: &[u8]| decode("metadata2", bytes).unwrap_err().text;
        assert_eq!(text(&[0; 40]), "metadata2 has size 40 instead of 32");
        let mut bytes = sample(3).encode();
        bytes[0] = 7;
        assert_eq!(text(&bytes), "decode content of metadata2: bad format version 7");
        assert_eq!(text(&sample(0).encode()), "decode content of metadata2: version is set to zero");
        let both = newer(Some(sample(3)), Some(sample(3))).unwrap_err().text;
        assert_eq!(both, "metadata1 and metadata2 are both at version 3");
    }

    #[test]
    fn the_higher_version_wins_wherever_it_stands() {
        assert_eq!(newer(Some(sample(4)), Some(sample(3))), Ok(Some(sample(4))));
        assert_eq!(newer(None, Some(sample(3))), Ok(Some(sample(3))));
        assert_eq!(newer(None, None), Ok(None));
    }
}

//! Changes to bytes as they are likely to matter to a decoder.

use dqlite::base::Prng;

/// Values at the borders of what lengths and counts may be.
const WORDS: [u64; 16] = [
    0,
    1,
    7,
    8,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x1_0000,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX / 2,
    u64::MAX,
];

fn below(prng: &mut Prng, limit: usize) -> usize {
    usize::try_from(prng.below(limit.max(1) as u64)).unwrap()
}

/// A few changes to `bytes`, some with parts of `other`.
pub fn mutate(prng: &mut Prng, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=below(prng, 4) {
        if bytes.is_empty() {
            bytes.push(0);
        }
        let at = below(prng, bytes.len());
        match below(prng, 9) {
            0 => bytes[at] ^= 1 << below(prng, 8),
            1 => bytes[at] = WORDS[below(prng, WORDS.len())].to_le_bytes()[0],
            // A number, most often where one is.
            2 | 3 => {
                let width = [2, 4, 8][below(prng, 3)];
                let at = at / width * width;
                let near = below(prng, 5) as u64;
                let word = WORDS[below(prng, WORDS.len())].wrapping_add(near).wrapping_sub(2).to_le_bytes();
                for (to, from) in bytes.iter_mut().skip(at).zip(word).take(width) {
                    *to = from;
                }
            }
            4 => bytes.truncate(at),
            5 => {
                let end = (at + 1 + below(prng, 64)).min(bytes.len());
                bytes.drain(at..end);
            }
            6 => {
                let part = bytes[at..(at + 1 + below(prng, 64)).min(bytes.len())].to_vec();
                let to = below(prng, bytes.len());
                bytes.splice(to..to, part);
            }
            7 => bytes.splice(at..at, std::iter::repeat_n(0, 1 + below(prng, 32))).for_each(drop),
            _ if !other.is_empty() => {
                let from = below(prng, other.len());
                let part = other[from..(from + 1 + below(prng, 256)).min(other.len())].to_vec();
                let end = (at + part.len()).min(bytes.len());
                bytes.splice(at..end, part);
            }
            _ => {}
        }
    }
    bytes
}

//! The one checksum of the data directory: CRC-32, polynomial `04C11DB7`, most significant bit first,
//! not reflected, initial value 0, no final exclusive-or.

use crc::{Algorithm, Crc, Table};

const ALGORITHM: Algorithm<u32> = Algorithm {
    width: 32,
    poly: 0x04c1_1db7,
    init: 0,
    refin: false,
    refout: false,
    xorout: 0,
    check: 0x89a1_897f,
    residue: 0,
};

static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&ALGORITHM);

/// The checksum of `bytes`, going on from `initial` (0 for a fresh one).
#[must_use]
pub fn checksum(initial: u32, bytes: &[u8]) -> u32 {
    let mut digest = CRC.digest_with_initial(initial);
    digest.update(bytes);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn the_check_value_of_the_specification_comes_out() {
        assert_eq!(checksum(0, b"123456789"), 0x89a1_897f);
    }

    #[test]
    fn parts_chain_to_the_checksum_of_the_whole() {
        assert_eq!(checksum(checksum(0, b"1234"), b"56789"), checksum(0, b"123456789"));
    }
}

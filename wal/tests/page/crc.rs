//! The checksum, implemented from `docs/log-format.md` alone.

use crate::page::Page;

/// CRC-32 by the parameters on the page, bit by bit.
pub(crate) struct Crc {
    poly: u32,
    init: u32,
    xorout: u32,
}

impl Crc {
    pub(crate) fn of(page: &Page) -> Self {
        let vector = page.vector("crc-32");
        for (field, value) in [("width", 32), ("refin", 1), ("refout", 1)] {
            assert_eq!(vector.number::<u32>(field), value, "{field}");
        }
        let reflected = |field| vector.number::<u32>(field).reverse_bits();
        let crc = Self { poly: reflected("poly"), init: reflected("init"), xorout: vector.number("xorout") };
        assert_eq!(crc.plain(b"123456789"), vector.number::<u32>("check"));
        crc
    }

    fn run(&self, register: u32, bytes: &[u8]) -> u32 {
        let bits = bytes.iter().flat_map(|byte| (0..8).map(move |bit| u32::from(byte >> bit & 1)));
        bits.fold(register, |register, bit| (register >> 1) ^ if (register ^ bit) & 1 == 1 { self.poly } else { 0 })
            ^ self.xorout
    }

    pub(crate) fn plain(&self, bytes: &[u8]) -> u32 {
        self.run(self.init, bytes)
    }

    pub(crate) fn seeded(&self, seed: u32, bytes: &[u8]) -> u32 {
        self.run(seed ^ self.xorout, bytes)
    }
}

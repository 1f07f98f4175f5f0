//! Reading fixed-width integers out of a slice; `None` past its end.

/// Byte order of the file being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endian {
    Little,
    Big,
}

/// A slice with absolute offsets.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    pub(super) data: &'a [u8],
    pub(super) endian: Endian,
}

impl<'a> Bytes<'a> {
    pub(super) fn little(data: &'a [u8]) -> Self {
        Self { data, endian: Endian::Little }
    }

    pub(super) fn big(data: &'a [u8]) -> Self {
        Self { data, endian: Endian::Big }
    }

    fn array<const N: usize>(self, offset: usize) -> Option<[u8; N]> {
        self.data.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }

    pub(super) fn u8(self, offset: usize) -> Option<u8> {
        self.data.get(offset).copied()
    }

    pub(super) fn u16(self, offset: usize) -> Option<u16> {
        let bytes = self.array(offset)?;
        Some(match self.endian {
            Endian::Little => u16::from_le_bytes(bytes),
            Endian::Big => u16::from_be_bytes(bytes),
        })
    }

    /// Three bytes, always little-endian: WebP is their only user.
    pub(super) fn u24_le(self, offset: usize) -> Option<u32> {
        let [a, b, c] = self.array(offset)?;
        Some(u32::from_le_bytes([a, b, c, 0]))
    }

    pub(super) fn u32(self, offset: usize) -> Option<u32> {
        let bytes = self.array(offset)?;
        Some(match self.endian {
            Endian::Little => u32::from_le_bytes(bytes),
            Endian::Big => u32::from_be_bytes(bytes),
        })
    }

    pub(super) fn u64(self, offset: usize) -> Option<u64> {
        let bytes = self.array(offset)?;
        Some(match self.endian {
            Endian::Little => u64::from_le_bytes(bytes),
            Endian::Big => u64::from_be_bytes(bytes),
        })
    }

    /// `len` bytes at `offset`.
    pub(super) fn slice(self, offset: usize, len: usize) -> Option<&'a [u8]> {
        self.data.get(offset..offset.checked_add(len)?)
    }

    pub(super) fn tag(self, offset: usize) -> Option<[u8; 4]> {
        self.array(offset)
    }
}

//! Little-endian numbers at byte offsets.
//!
//! Offsets are sums of the layout's own constants and of counts that were checked against the geometry;
//! one outside the slice is a bug and panics.

macro_rules! number {
    ($get:ident, $put:ident, $type:ty) => {
        /// Reads at a byte offset.
        #[inline]
        #[must_use]
        pub fn $get(bytes: &[u8], at: usize) -> $type {
            <$type>::from_le_bytes(
                bytes[at..at + size_of::<$type>()].try_into().expect("length by construction"),
            )
        }

        /// Writes at a byte offset.
        #[inline]
        pub fn $put(bytes: &mut [u8], at: usize, value: $type) {
            bytes[at..at + size_of::<$type>()].copy_from_slice(&value.to_le_bytes());
        }
    };
}

number!(get_u16, put_u16, u16);
number!(get_u32, put_u32, u32);
number!(get_u64, put_u64, u64);
number!(get_f32, put_f32, f32);

/// Signed bytes as unsigned ones.
#[must_use]
pub fn to_unsigned(codes: &[i8]) -> Vec<u8> {
    codes.iter().map(|&c| c.cast_unsigned()).collect()
}

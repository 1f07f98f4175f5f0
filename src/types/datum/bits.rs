//! Bit strings to return.

use super::metadata;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::pg_sys;
use std::ptr;

/// The server's VarBit, which pgrx does not bind: the bits follow, most significant first.
#[repr(C)]
struct BitLayout {
    varlena_header: u32,
    bit_count: i32,
    bits: [u8; 0],
}

/// A `bit` value to return.
pub struct NewBits(pub Vec<bool>);

// SAFETY: the datum points to a complete VarBit in the caller's memory context.
unsafe impl BoxRet for NewBits {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        let bytes = size_of::<BitLayout>() + self.0.len().div_ceil(8);
        // SAFETY: palloc0 gives `bytes` zeroed bytes, the header and a byte for every 8 bits.
        unsafe {
            let bits = pg_sys::palloc0(bytes).cast::<BitLayout>();
            pgrx::set_varsize_4b(bits.cast(), i32::try_from(bytes).expect("a few kB"));
            (*bits).bit_count = i32::try_from(self.0.len()).expect("16,000 at most");
            let data = ptr::addr_of_mut!((*bits).bits).cast::<u8>();
            for (i, _) in self.0.iter().enumerate().filter(|(_, bit)| **bit) {
                *data.add(i / 8) |= 0x80 >> (i % 8);
            }
            fcinfo.return_raw_datum(pg_sys::Datum::from(bits))
        }
    }
}

sql_name!(NewBits, "bit");

//! What the server does with numbers and bytes: the shortest decimal of a float4, and hashes.

unsafe extern "C" {
    fn float_to_shortest_decimal_bufn(value: f32, buffer: *mut u8) -> i32;
    fn hash_bytes(key: *const u8, length: i32) -> u32;
    fn hash_bytes_extended(key: *const u8, length: i32, seed: u64) -> u64;
}

/// Appends the shortest decimal that reads back as `value`, exactly as float4's output does.
pub fn push_shortest_decimal(value: f32, out: &mut Vec<u8>) {
    // FLOAT_SHORTEST_DECIMAL_LEN of the server's common/shortest_dec.h.
    let mut buffer = [0u8; 16];
    // SAFETY: the buffer has the length that the function asks for.
    let length = unsafe { float_to_shortest_decimal_bufn(value, buffer.as_mut_ptr()) };
    out.extend_from_slice(&buffer[..usize::try_from(length).expect("a length")]);
}

/// The server's hash of bytes; the two widths agree in their low 32 bits for seed 0.
pub fn hash(bytes: &[u8]) -> u32 {
    let length = i32::try_from(bytes.len()).expect("64 kB at most");
    // SAFETY: `bytes` is readable for `length`.
    unsafe { hash_bytes(bytes.as_ptr(), length) }
}

/// The server's seeded hash of bytes.
pub fn hash_extended(bytes: &[u8], seed: u64) -> u64 {
    let length = i32::try_from(bytes.len()).expect("64 kB at most");
    // SAFETY: `bytes` is readable for `length`.
    unsafe { hash_bytes_extended(bytes.as_ptr(), length, seed) }
}

//! The btree order and the hash. Vectors of different dimensions compare; the shorter prefix is less.

use super::datum::{Vector, hash, hash_extended};
use imgvec_vector::arithmetic::{compare, hash_bits};
use pgrx::prelude::*;

macro_rules! comparison_function {
    ($name:ident, $test:ident) => {
        #[pg_extern(immutable, parallel_safe)]
        fn $name(a: Vector<'_>, b: Vector<'_>) -> bool {
            compare(a.elements(), b.elements()).$test()
        }
    };
}

comparison_function!(imgvec_lt, is_lt);
comparison_function!(imgvec_le, is_le);
comparison_function!(imgvec_eq, is_eq);
comparison_function!(imgvec_ne, is_ne);
comparison_function!(imgvec_ge, is_ge);
comparison_function!(imgvec_gt, is_gt);

#[pg_extern(immutable, parallel_safe)]
fn imgvec_cmp(a: Vector<'_>, b: Vector<'_>) -> i32 {
    compare(a.elements(), b.elements()) as i32
}

fn key(vector: &Vector<'_>) -> Vec<u8> {
    vector.elements().iter().flat_map(|&element| hash_bits(element).to_ne_bytes()).collect()
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_hash(vector: Vector<'_>) -> i32 {
    hash(&key(&vector)).cast_signed()
}

#[pg_extern(immutable, parallel_safe)]
fn imgvec_hash_extended(vector: Vector<'_>, seed: i64) -> i64 {
    hash_extended(&key(&vector), seed.cast_unsigned()).cast_signed()
}

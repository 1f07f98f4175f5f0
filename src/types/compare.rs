//! The btree order and the hash. Vectors of different dimensions compare; the shorter prefix is less.

use super::datum::{Element, Vector, hash, hash_extended};
use half::f16;
use imgvec_vector::arithmetic::{compare, hash_bits};
use pgrx::prelude::*;

fn key<T: Element>(vector: &Vector<'_, T>) -> Vec<u8> {
    vector.elements().iter().flat_map(|&element| hash_bits(element).to_ne_bytes()).collect()
}

macro_rules! comparison_functions {
    ($element:ident: $($name:ident $test:ident),*; $cmp:ident, $hash:ident, $hash_extended:ident) => {
        $(
            #[pg_extern(immutable, parallel_safe)]
            fn $name(a: Vector<'_, $element>, b: Vector<'_, $element>) -> bool {
                compare(a.elements(), b.elements()).$test()
            }
        )*

        #[pg_extern(immutable, parallel_safe)]
        fn $cmp(a: Vector<'_, $element>, b: Vector<'_, $element>) -> i32 {
            compare(a.elements(), b.elements()) as i32
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $hash(vector: Vector<'_, $element>) -> i32 {
            hash(&key(&vector)).cast_signed()
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $hash_extended(vector: Vector<'_, $element>, seed: i64) -> i64 {
            hash_extended(&key(&vector), seed.cast_unsigned()).cast_signed()
        }
    };
}

comparison_functions!(
    f32: imgvec_lt is_lt, imgvec_le is_le, imgvec_eq is_eq, imgvec_ne is_ne, imgvec_ge is_ge, imgvec_gt is_gt;
    imgvec_cmp, imgvec_hash, imgvec_hash_extended
);
comparison_functions!(
    f16: imghalf_lt is_lt, imghalf_le is_le, imghalf_eq is_eq, imghalf_ne is_ne, imghalf_ge is_ge, imghalf_gt is_gt;
    imghalf_cmp, imghalf_hash, imghalf_hash_extended
);

//! The distance operators' functions and the norm. Names and results are pgvector's. Vectors of half precision are compared
//! in single precision, with each other as with those of single precision.

use super::datum::{Element, NewVector, Vector};
use half::f16;
use imgvec_vector::{arithmetic, distance};
use pgrx::prelude::*;

/// Raises an error if the dimensions differ.
pub fn require_same_dims<A: Element, B: Element>(a: &Vector<'_, A>, b: &Vector<'_, B>) {
    if a.dim() != b.dim() {
        A::WORDS.different_dims(a.dim(), b.dim()).raise();
    }
}

macro_rules! distance_function {
    ($name:ident, $a:ident, $b:ident, $kernel:expr) => {
        #[pg_extern(immutable, parallel_safe)]
        fn $name(a: Vector<'_, $a>, b: Vector<'_, $b>) -> f64 {
            require_same_dims(&a, &b);
            ($kernel)(&a.widen(), &b.widen())
        }
    };
}

/// A distance between vectors of each precision: single, half, half and single, single and half.
macro_rules! distance_functions {
    ($single:ident, $half:ident, $half_single:ident, $single_half:ident, $kernel:expr) => {
        distance_function!($single, f32, f32, $kernel);
        distance_function!($half, f16, f16, $kernel);
        distance_function!($half_single, f16, f32, $kernel);
        distance_function!($single_half, f32, f16, $kernel);
    };
}

fn negative_inner_product(a: &[f32], b: &[f32]) -> f64 {
    -distance::inner_product(a, b)
}

distance_functions!(
    imgvec_l2_distance,
    imghalf_l2_distance,
    imghalf_imgvec_l2_distance,
    imgvec_imghalf_l2_distance,
    distance::l2
);
distance_functions!(
    imgvec_negative_inner_product,
    imghalf_negative_inner_product,
    imghalf_imgvec_negative_inner_product,
    imgvec_imghalf_negative_inner_product,
    negative_inner_product
);
distance_functions!(
    imgvec_cosine_distance,
    imghalf_cosine_distance,
    imghalf_imgvec_cosine_distance,
    imgvec_imghalf_cosine_distance,
    distance::cosine
);
distance_functions!(
    imgvec_l1_distance,
    imghalf_l1_distance,
    imghalf_imgvec_l1_distance,
    imgvec_imghalf_l1_distance,
    distance::l1
);
distance_function!(imgvec_inner_product, f32, f32, distance::inner_product);
distance_function!(imghalf_inner_product, f16, f16, distance::inner_product);
distance_function!(imgvec_l2_squared_distance, f32, f32, distance::l2_squared);
distance_function!(imgvec_spherical_distance, f32, f32, distance::spherical);

fn normalized<T: Element>(vector: &Vector<'_, T>) -> NewVector<T> {
    let mut unit = NewVector::zeroed(vector.dim());
    arithmetic::normalize(vector.elements(), unit.elements_mut());
    unit
}

macro_rules! functions_of_one {
    ($element:ident, $dims:ident, $norm:ident, $l2_normalize:ident) => {
        #[pg_extern(immutable, parallel_safe)]
        fn $dims(vector: Vector<'_, $element>) -> i32 {
            i32::try_from(vector.dim()).expect("16,000 at most")
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $norm(vector: Vector<'_, $element>) -> f64 {
            distance::norm(&vector.widen())
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $l2_normalize(vector: Vector<'_, $element>) -> NewVector<$element> {
            normalized(&vector)
        }
    };
}

functions_of_one!(f32, imgvec_dims, imgvec_norm, imgvec_l2_normalize);
functions_of_one!(f16, imghalf_dims, imghalf_norm, imghalf_l2_normalize);

//! Element-wise operators, concatenation, slices and bits.

use super::datum::{Element, NewBits, NewVector, Vector};
use super::distance::require_same_dims;
use crate::error::OrRaise;
use half::f16;
use imgvec_vector::arithmetic::{self, RangeError};
use pgrx::prelude::*;

/// Two vectors of one length into a third.
type Operation<T> = fn(&[T], &[T], &mut [T]) -> Result<(), RangeError>;

fn elementwise<T: Element>(a: &Vector<'_, T>, b: &Vector<'_, T>, operation: Operation<T>) -> NewVector<T> {
    require_same_dims(a, b);
    let mut out = NewVector::zeroed(a.dim());
    let done = operation(a.elements(), b.elements(), out.elements_mut());
    done.map_err(|error| T::WORDS.out_of_scale(error)).or_raise();
    out
}

fn scale<T: Element>(a: &Vector<'_, T>, factor: f64) -> NewVector<T> {
    if !factor.is_finite() {
        T::WORDS.factor_not_finite(factor).raise();
    }
    let mut out = NewVector::zeroed(a.dim());
    let done = arithmetic::scale(a.elements(), factor, out.elements_mut());
    done.map_err(|error| T::WORDS.out_of_scale(error)).or_raise();
    out
}

fn concatenate<T: Element>(a: &Vector<'_, T>, b: &Vector<'_, T>) -> NewVector<T> {
    let mut out = NewVector::zeroed(a.dim() + b.dim());
    let (front, back) = out.elements_mut().split_at_mut(a.dim());
    front.copy_from_slice(a.elements());
    back.copy_from_slice(b.elements());
    out
}

/// `count` elements from the 1-based `start` on, as `substr` has it: positions outside are left out.
fn part<T: Element>(vector: &Vector<'_, T>, start: i32, count: i32) -> NewVector<T> {
    let dim = i64::try_from(vector.dim()).expect("16,000 at most");
    let first = i64::from(start).max(1);
    let end = (i64::from(start) + i64::from(count)).min(dim + 1);
    let range = usize::try_from(first - 1).unwrap_or(0)..usize::try_from(end - 1).unwrap_or(0);
    NewVector::from_slice(vector.elements().get(range).unwrap_or(&[]))
}

/// One bit an element: 1 where it is greater than zero.
fn signs<T: Element>(vector: &Vector<'_, T>) -> NewBits {
    NewBits(vector.elements().iter().map(|&element| element > T::from_f32(0.0)).collect())
}

macro_rules! functions_of_vectors {
    ($element:ident, $add:ident, $sub:ident, $mul:ident, $mul_scalar:ident, $scalar_mul:ident, $concat:ident, $subvector:ident, $binary_quantize:ident) => {
        #[pg_extern(immutable, parallel_safe)]
        fn $add(a: Vector<'_, $element>, b: Vector<'_, $element>) -> NewVector<$element> {
            elementwise(&a, &b, arithmetic::add)
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $sub(a: Vector<'_, $element>, b: Vector<'_, $element>) -> NewVector<$element> {
            elementwise(&a, &b, arithmetic::subtract)
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $mul(a: Vector<'_, $element>, b: Vector<'_, $element>) -> NewVector<$element> {
            elementwise(&a, &b, arithmetic::multiply)
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $mul_scalar(a: Vector<'_, $element>, factor: f64) -> NewVector<$element> {
            scale(&a, factor)
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $scalar_mul(factor: f64, a: Vector<'_, $element>) -> NewVector<$element> {
            scale(&a, factor)
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $concat(a: Vector<'_, $element>, b: Vector<'_, $element>) -> NewVector<$element> {
            concatenate(&a, &b)
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $subvector(vector: Vector<'_, $element>, start: i32, count: i32) -> NewVector<$element> {
            part(&vector, start, count)
        }

        #[pg_extern(immutable, parallel_safe)]
        fn $binary_quantize(vector: Vector<'_, $element>) -> NewBits {
            signs(&vector)
        }
    };
}

functions_of_vectors!(
    f32,
    imgvec_add,
    imgvec_sub,
    imgvec_mul,
    imgvec_mul_scalar,
    imgvec_scalar_mul,
    imgvec_concat,
    imgvec_subvector,
    imgvec_binary_quantize
);
functions_of_vectors!(
    f16,
    imghalf_add,
    imghalf_sub,
    imghalf_mul,
    imghalf_mul_scalar,
    imghalf_scalar_mul,
    imghalf_concat,
    imghalf_subvector,
    imghalf_binary_quantize
);

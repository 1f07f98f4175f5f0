//! What an operator class says: the metric, and what vectors are made of. Its support function 1 answers with
//! a code.

use super::keys;
use crate::error::{Code, Report};
use crate::fault;
use crate::storage::Relation;
use crate::types::Vector;
use crate::types::datum::AnyVector;
use half::f16;
use imgvec_ann::Metric;
use pgrx::datum::FromDatum;
use pgrx::{Internal, pg_sys};
use std::ops::Deref;

/// Strategy number of the ordering operator of an operator class.
pub const ORDER_STRATEGY: u16 = 1;
/// Number of the support function, which tells metric and element type.
pub const SUPPORT_KIND: u16 = 1;

const COSINE: i32 = 1;
const L2: i32 = 2;
const INNER_PRODUCT: i32 = 3;
/// Added to the metric where elements are half-precision numbers.
const HALF: i32 = 16;

/// Support function of `imgvec_cosine_ops`, and of pgvector's `vector_cosine_ops`, whose values have the same layout.
#[pgrx::pg_extern(sql = false)]
fn ann_imgvec_cosine(_unused: Internal) -> i32 {
    COSINE
}

/// Support function of `imgvec_l2_ops` and `vector_l2_ops`.
#[pgrx::pg_extern(sql = false)]
fn ann_imgvec_l2(_unused: Internal) -> i32 {
    L2
}

/// Support function of `imgvec_ip_ops` and `vector_ip_ops`.
#[pgrx::pg_extern(sql = false)]
fn ann_imgvec_ip(_unused: Internal) -> i32 {
    INNER_PRODUCT
}

/// Support function of `imghalf_cosine_ops`, and of pgvector's `halfvec_cosine_ops`, whose values have the same layout.
#[pgrx::pg_extern(sql = false)]
fn ann_halfvec_cosine(_unused: Internal) -> i32 {
    HALF + COSINE
}

/// Support function of `imghalf_l2_ops` and `halfvec_l2_ops`.
#[pgrx::pg_extern(sql = false)]
fn ann_halfvec_l2(_unused: Internal) -> i32 {
    HALF + L2
}

/// Support function of `imghalf_ip_ops` and `halfvec_ip_ops`.
#[pgrx::pg_extern(sql = false)]
fn ann_halfvec_ip(_unused: Internal) -> i32 {
    HALF + INNER_PRODUCT
}

/// What the values of an index column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    Single,
    Half,
}

/// What an index's operator class says.
#[derive(Clone, Copy, Debug)]
pub struct OpClass {
    pub metric: Metric,
    pub elements: Elements,
}

impl OpClass {
    pub fn of(index: Relation) -> Self {
        fault::point("read the operator class");
        let code = index.support_code(0, SUPPORT_KIND);
        let elements = if code & HALF != 0 { Elements::Half } else { Elements::Single };
        let metric = match code & !HALF {
            COSINE => Metric::Cosine,
            L2 => Metric::L2,
            INNER_PRODUCT => Metric::InnerProduct,
            _ if keys::strategies(code).is_some() => Report::new(
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("the first column of index \"{}\" is not a vector", index.name()),
            )
            .detail("An ann index holds a vector, followed by columns that queries filter by.")
            .hint("Name the column of vectors first, or create a btree index.")
            .raise(),
            _ => Report::new(
                Code::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("operator class of index \"{}\" is not one of ann", index.name()),
            )
            .detail(format!("Its support function 1 returns {code}."))
            .hint("Use an operator class of imgvec or imgvec_pgvector.")
            .raise(),
        };
        Self { metric, elements }
    }
}

/// A vector in single precision.
pub enum Singles<'a> {
    Stored(Vector<'a>),
    Widened(Vec<f32>),
}

impl Deref for Singles<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Stored(vector) => vector.elements(),
            Self::Widened(elements) => elements,
        }
    }
}

impl<'a> Singles<'a> {
    fn widened(vector: &Vector<'a, f16>) -> Self {
        Self::Widened(vector.widen().into_owned())
    }
}

/// The vector of an index tuple, `None` if NULL.
///
/// # Safety
/// `value` and `is_null` belong to the first column of an index whose operator class says `elements`.
pub unsafe fn vector<'a>(value: pg_sys::Datum, is_null: bool, elements: Elements) -> Option<Singles<'a>> {
    fault::point("read a vector");
    // SAFETY: by contract.
    unsafe {
        match elements {
            Elements::Single => Vector::<f32>::from_datum(value, is_null).map(Singles::Stored),
            Elements::Half => {
                Vector::<f16>::from_datum(value, is_null).map(|vector| Singles::widened(&vector))
            }
        }
    }
}

/// What a query asks for, `None` if NULL. Operators of a class take vectors of its own precision and of the other.
///
/// # Safety
/// `value` and `is_null` are the right operand of an ordering operator of one of our classes.
pub unsafe fn query<'a>(value: pg_sys::Datum, is_null: bool) -> Option<Singles<'a>> {
    fault::point("read a query");
    // SAFETY: by contract.
    Some(match unsafe { AnyVector::from_datum(value, is_null) }? {
        AnyVector::Single(vector) => Singles::Stored(vector),
        AnyVector::Half(vector) => Singles::widened(&vector),
    })
}

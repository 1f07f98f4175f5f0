//! What an operator class says: the metric. Its support function 1 answers with a code.

use super::handler::SUPPORT_KIND;
use crate::error::{Code, Report};
use crate::storage::Relation;
use crate::types::Vector;
use imgvec_ann::Metric;
use pgrx::datum::FromDatum;
use pgrx::{Internal, pg_sys};

const COSINE: i32 = 1;
const L2: i32 = 2;
const INNER_PRODUCT: i32 = 3;

/// Support function of `imgvec_cosine_ops`.
#[pgrx::pg_extern(sql = false)]
fn ann_imgvec_cosine(_unused: Internal) -> i32 {
    COSINE
}

/// Support function of `imgvec_l2_ops`.
#[pgrx::pg_extern(sql = false)]
fn ann_imgvec_l2(_unused: Internal) -> i32 {
    L2
}

/// Support function of `imgvec_ip_ops`.
#[pgrx::pg_extern(sql = false)]
fn ann_imgvec_ip(_unused: Internal) -> i32 {
    INNER_PRODUCT
}

/// The metric of an index's operator class.
pub fn metric(index: Relation) -> Metric {
    match index.support_code(SUPPORT_KIND) {
        COSINE => Metric::Cosine,
        L2 => Metric::L2,
        INNER_PRODUCT => Metric::InnerProduct,
        code => Report::new(
            Code::ERRCODE_INVALID_OBJECT_DEFINITION,
            format!("operator class of index \"{}\" is not one of ann", index.name()),
        )
        .detail(format!("Its support function 1 answers {code}."))
        .raise(),
    }
}

/// The vector of an index tuple, `None` if NULL.
///
/// # Safety
/// `value` and `is_null` belong to the first column of an index of ours.
pub unsafe fn vector<'a>(value: pg_sys::Datum, is_null: bool) -> Option<Vector<'a>> {
    // SAFETY: operator classes of ann are for imgvec.
    unsafe { Vector::from_datum(value, is_null) }
}

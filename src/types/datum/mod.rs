//! Datums as safe Rust values: every raw pointer of SQL values lives here.

use pgrx::pgrx_sql_entity_graph::metadata;

/// Declares how the schema generator names a Rust type. Our SQL is written by hand in `sql/`.
macro_rules! sql_name {
    ($type:ty, $name:literal) => {
        // SAFETY: only names are declared; ArgAbi and BoxRet beside it do the conversions.
        unsafe impl metadata::SqlTranslatable for $type {
            const TYPE_IDENT: &'static str = concat!("imgvec::", stringify!($type));
            const TYPE_ORIGIN: metadata::TypeOrigin = metadata::TypeOrigin::External;
            const ARGUMENT_SQL: Result<metadata::SqlMappingRef, metadata::ArgumentError> =
                Ok(metadata::SqlMappingRef::literal($name));
            const RETURN_SQL: Result<metadata::ReturnsRef, metadata::ReturnsError> =
                Ok(metadata::ReturnsRef::One(metadata::SqlMappingRef::literal($name)));
        }
    };
}

mod array;
mod bits;
mod bytes;
mod number;
mod record;
mod text;
mod vector;

pub use array::{Numbers, typmods};
pub use bits::NewBits;
pub use bytes::{Bytea, take_message};
pub use number::{hash, hash_extended, push_shortest_decimal};
pub use record::NewRecord;
pub use text::{NewText, Text};
pub use vector::{AnyVector, Element, NewVector, NewVectorArray, Vector};

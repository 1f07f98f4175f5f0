//! Messages for the errors of `crates/ann`.

use super::{Code, Report};
use crate::storage::Relation;
use imgvec_ann::AccessError;
use imgvec_ann::build::AddError;
use imgvec_ann::layout::{BlockNumber, GeometryError, HeapTid, MAX_DIM};
use imgvec_ann::space::{MAX_NORM, VectorError};
use std::convert::Infallible;

/// An index that cannot be read or grown.
pub fn damage(index: Relation, error: AccessError<Infallible>) -> Report {
    let name = index.name();
    match error {
        AccessError::Store(never) => match never {},
        AccessError::Damaged { block, error } => {
            Report::new(Code::ERRCODE_INDEX_CORRUPTED, format!("index \"{name}\" is damaged"))
                .detail(format!("Block {}: {error}.", block.0))
                .hint("REINDEX the index.")
        }
        AccessError::EndlessChain { block } => {
            Report::new(Code::ERRCODE_INDEX_CORRUPTED, format!("index \"{name}\" is damaged"))
                .detail(format!("The chain of pages at block {} has no end.", block.0))
                .hint("REINDEX the index.")
        }
        AccessError::Full => {
            Report::new(Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED, format!("index \"{name}\" is full"))
                .detail("An ann index holds at most 2^32 - 1 different vectors.")
                .hint("Partition the table, and index the partitions.")
        }
    }
}

/// A link to a page that an index does not have.
pub fn no_such_page(index: Relation, block: BlockNumber) -> Report {
    Report::new(Code::ERRCODE_INDEX_CORRUPTED, format!("index \"{}\" is damaged", index.name()))
        .detail(format!("A link points to block {}, which is not in its file.", block.0))
        .hint("REINDEX the index.")
}

/// Pages that were made for other key columns than the catalogs name.
pub fn other_columns(index: Relation) -> Report {
    Report::new(Code::ERRCODE_INDEX_CORRUPTED, format!("index \"{}\" is damaged", index.name()))
        .detail("Its first page and the catalogs name different key columns.")
        .hint("REINDEX the index.")
}

/// A row in a block that the table does not have.
pub fn no_such_row(index: Relation, tid: HeapTid) -> Report {
    Report::new(Code::ERRCODE_INDEX_CORRUPTED, format!("index \"{}\" is damaged", index.name()))
        .detail(format!("It has row ({},{}), but the table has no such block.", tid.block, tid.offset))
        .hint("REINDEX the index.")
}

/// An index without a page: no build of it finished, or its file was truncated.
pub fn no_pages(index: Relation) -> Report {
    let name = index.name();
    let report = if index.is_valid() {
        Report::new(Code::ERRCODE_INDEX_CORRUPTED, format!("index \"{name}\" is damaged"))
            .detail("Its file is empty.")
    } else {
        Report::new(Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("index \"{name}\" is not built"))
            .detail("The command that was building it did not finish and left it empty.")
    };
    report.hint("REINDEX the index, or drop it and create it again.")
}

/// An index that may lack rows, because the command that was building it did not finish.
pub fn not_valid(index: Relation) -> Report {
    Report::new(
        Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("index \"{}\" is not valid", index.name()),
    )
    .detail("The command that was building it did not finish, so rows may be missing.")
    .hint("REINDEX the index, or drop it and create it again.")
}

/// A vector that an index cannot hold or search for.
pub fn vector(index: Relation, error: VectorError) -> Report {
    let name = index.name();
    match error {
        VectorError::Dimensions { expected, found } => {
            Report::new(Code::ERRCODE_DATA_EXCEPTION, format!("expected {expected} dimensions, not {found}"))
                .detail(format!("Index \"{name}\" holds vectors of {expected} dimensions."))
                .hint("Use vectors of the model whose embeddings are in the index.")
        }
        VectorError::TooLong => Report::new(
            Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            format!("vector is too long for index \"{name}\""),
        )
        .detail(format!("The norm of a row's vector may be at most {MAX_NORM:e} with this operator class."))
        .hint("Normalize the vectors, or use an operator class for cosine distance."),
        // Not written by us: neither type takes such an element.
        VectorError::NotFinite => {
            Report::new(Code::ERRCODE_DATA_CORRUPTED, format!("vector for index \"{name}\" is not finite"))
                .detail("One of its elements is NaN or infinite.")
                .hint("Restore the row from a backup.")
        }
    }
}

/// A row that a build could not add.
pub fn added(index: Relation, error: AddError) -> Report {
    match error {
        AddError::Vector(error) => vector(index, error),
        AddError::Spill(error) => temporary_file(&error),
        AddError::TooManyRows => too_many_rows(),
    }
}

/// A temporary file of a build that cannot be used; most errors of files are the server's own.
pub fn temporary_file(error: &std::io::Error) -> Report {
    Report::new(Code::ERRCODE_IO_ERROR, "could not use a temporary file of an index build")
        .detail(format!("The error is: {error}."))
        .hint("Increase maintenance_work_mem to build without temporary files.")
}

/// More rows than an index has ids for.
pub fn too_many_rows() -> Report {
    Report::new(Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too many rows for one ann index")
        .detail("An ann index holds at most 2^32 - 1 different vectors.")
        .hint("Partition the table, and index the partitions.")
}

/// Dimensions that no index can have.
pub fn geometry(index: Relation, error: GeometryError, dim: usize) -> Report {
    let _ = error;
    Report::new(
        Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        format!("column cannot have more than {MAX_DIM} dimensions for an ann index"),
    )
    .detail(format!("Vectors of index \"{}\" would have {dim} dimensions.", index.name()))
    .hint("Index the first dimensions, for example (subvector(embedding, 1, 2000)::imgvec(2000)).")
}

//! Words for what can go wrong with columns that keep their embeddings.

use super::{Code, Report};

pub fn not_the_owner(table: &str, owner: &str) -> Report {
    Report::new(Code::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {table}"))
        .detail("Its embeddings are written with its owner's rights.")
        .hint(format!("Let role \"{owner}\", a member of it, or a superuser do this."))
}

pub fn wrong_kind(name: &str) -> Report {
    Report::new(Code::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" is not a table"))
        .detail("Embeddings are kept in columns of tables and partitioned tables.")
        .hint("Name the table that the rows are stored in.")
}

pub fn temporary(name: &str) -> Report {
    Report::new(
        Code::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("cannot keep embeddings in temporary table \"{name}\""),
    )
    .detail("No other session could work its queue, and it ends with this one.")
    .hint("Update the column with embed_image or embed_text, or use a permanent table.")
}

pub fn no_relation(oid: u32) -> Report {
    Report::new(Code::ERRCODE_UNDEFINED_TABLE, format!("relation with oid {oid} does not exist"))
        .detail("It may have been dropped meanwhile.")
        .hint("Name the table, as in 'photos'::regclass.")
}

pub fn missing_argument(name: &str) -> Report {
    Report::new(Code::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("argument \"{name}\" is missing"))
        .detail("NULL does not stand for anything here.")
        .hint("Call imgvec_maintain as in SELECT imgvec_maintain('photos', source => 'data', target => 'embedding', model => 'starter').")
}

pub fn no_column(table: &str, column: &str) -> Report {
    Report::new(
        Code::ERRCODE_UNDEFINED_COLUMN,
        format!("column \"{column}\" of table {table} does not exist"),
    )
    .detail("The embedding needs a column to go to.")
    .hint(format!(
        "Add it with ALTER TABLE {table} ADD COLUMN ... imgvec(n), where n is the model's dimensions."
    ))
}

pub fn generated(column: &str) -> Report {
    Report::new(
        Code::ERRCODE_INVALID_OBJECT_DEFINITION,
        format!("column \"{column}\" computes its own value"),
    )
    .detail("A generated or identity column cannot be updated.")
    .hint(
        "Keep the generated column as it is, or turn it into a plain one with ALTER TABLE ... ALTER COLUMN ... \
         DROP EXPRESSION.",
    )
}

pub fn wrong_target_type(column: &str, found: &str) -> Report {
    Report::new(
        Code::ERRCODE_DATATYPE_MISMATCH,
        format!("column \"{column}\" cannot hold embeddings, since its type is {found}"),
    )
    .detail("An embedding is an imgvec, which must convert to the column's type on assignment.")
    .hint("Use a column of type imgvec(n), or with pgvector vector(n) or halfvec(n) and the extension imgvec_pgvector.")
}

pub fn wrong_source_type(source: &str, found: &str) -> Report {
    Report::new(
        Code::ERRCODE_DATATYPE_MISMATCH,
        format!("cannot embed \"{source}\", since its type is {found}"),
    )
    .detail("A picture is a bytea value, a text is of type text or one like it.")
    .hint("Cast it to text, or name the column with the picture's bytes.")
}

pub fn source_reads_target(target: &str) -> Report {
    Report::new(
        Code::ERRCODE_INVALID_OBJECT_DEFINITION,
        format!("the source of column \"{target}\" reads the column itself"),
    )
    .detail("Each embedding would ask for another one.")
    .hint("Leave the column out of the source.")
}

pub fn wrong_modality(model: &str, what: &str) -> Report {
    Report::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, format!("model \"{model}\" does not embed {what}"))
        .detail("The source's type says which of the two is wanted: bytea is a picture.")
        .hint("The column \"modalities\" of the view imgvec_models says what each model embeds.")
}

pub fn wrong_dimensions(column: &str, expected: i32, model: &str, dim: usize) -> Report {
    Report::new(Code::ERRCODE_DATA_EXCEPTION, format!("expected {expected} dimensions, not {dim}"))
        .detail(format!(
            "Column \"{column}\" is declared for {expected} dimensions; model \"{model}\" has {dim}."
        ))
        .hint(format!("Use a column of type imgvec({dim}), or a model of {expected} dimensions."))
}

pub fn no_key(table: &str) -> Report {
    Report::new(
        Code::ERRCODE_INVALID_OBJECT_DEFINITION,
        format!("table {table} has nothing that tells its rows apart"),
    )
    .detail("Waiting rows are remembered by their key: a primary key, or a unique index of columns that are NOT NULL.")
    .hint(format!(
        "Add one, as in ALTER TABLE {table} ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY."
    ))
}

pub fn key_is_gone(table: &str) -> Report {
    Report::new(
        Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the key of table {table} is gone"),
    )
    .detail("The unique index that waiting rows were found by has been dropped, or is of other columns now.")
    .hint("Create it again; or end it with imgvec_maintain(..., stop => true) and declare the column again.")
}

pub fn already_maintained(table: &str, target: &str, source: &str, model: &str) -> Report {
    Report::new(
        Code::ERRCODE_DUPLICATE_OBJECT,
        format!("column \"{target}\" of table {table} keeps its embeddings already"),
    )
    .detail(format!("Its source is {source}, its model is \"{model}\"."))
    .hint("End that first, with imgvec_maintain(..., target => ..., stop => true).")
}

pub fn not_maintained(table: &str, target: Option<&str>) -> Report {
    let what = match target {
        Some(target) => format!("column \"{target}\" of table {table} does not keep its embeddings"),
        None => format!("no column of table {table} keeps its embeddings"),
    };
    Report::new(Code::ERRCODE_UNDEFINED_OBJECT, what)
        .detail("It was never declared by imgvec_maintain, or was ended, or its triggers were dropped.")
        .hint("The view imgvec_progress lists the columns that do.")
}

pub fn bad_choice(name: &str, found: &str, choices: &str) -> Report {
    Report::new(
        Code::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("\"{found}\" is not a value of argument \"{name}\""),
    )
    .detail(format!("It may be {choices}."))
    .hint("Leave it out for the first of them.")
}

pub fn in_transaction() -> Report {
    Report::new(
        Code::ERRCODE_INVALID_TRANSACTION_TERMINATION,
        "imgvec_work cannot run inside a transaction block or function",
    )
    .detail("Each of its batches is a transaction of its own.")
    .hint("Call it by itself, outside of BEGIN and COMMIT, and not together with other statements in one string.")
}

pub fn not_a_trigger_call() -> Report {
    Report::new(Code::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED, "imgvec_enqueue cannot be called by itself")
        .detail("It is the function of the triggers that imgvec_maintain creates.")
        .hint("Call imgvec_maintain.")
}

pub fn damaged_trigger(table: &str, why: &str) -> Report {
    Report::new(
        Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("rows of table \"{table}\" cannot be queued for embedding"),
    )
    .detail(why)
    .hint("End it with imgvec_maintain(..., stop => true), and declare the column again.")
}

pub fn in_recovery(function: &str) -> Report {
    Report::new(Code::ERRCODE_READ_ONLY_SQL_TRANSACTION, format!("{function} cannot run on a standby"))
        .detail("A standby cannot write; it receives embeddings from its primary.")
        .hint("Call it on the primary.")
}

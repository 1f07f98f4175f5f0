//! Messages for errors of maintained columns.

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
    .detail("No other session could work on its queue, and the table ends with this session.")
    .hint("Update the column with embed_image or embed_text, or use a permanent table.")
}

pub fn has_children(name: &str, child: &str) -> Report {
    Report::new(
        Code::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("cannot keep embeddings in table \"{name}\", as other tables inherit from it"),
    )
    .detail(format!("Rows of {child} would be left without an embedding."))
    .hint("Declare a column of each child, and none of the parent, or use a partitioned table.")
}

pub fn has_rule(name: &str, rule: &str) -> Report {
    Report::new(
        Code::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("cannot keep embeddings in table \"{name}\", as it has a rule for UPDATE"),
    )
    .detail(format!("Rule \"{rule}\" would rewrite the statement that stores embeddings."))
    .hint("Replace the rule by a trigger.")
}

pub fn no_relation(oid: u32) -> Report {
    Report::new(Code::ERRCODE_UNDEFINED_TABLE, format!("relation with oid {oid} does not exist"))
        .detail("It may have been dropped meanwhile.")
        .hint("Name the table, as in 'photos'::regclass.")
}

pub fn missing_argument(name: &str) -> Report {
    Report::new(Code::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("argument \"{name}\" is missing"))
        .detail("NULL has no meaning here.")
        .hint("As in SELECT imgvec_maintain('photos', source => 'data', target => 'embedding', model => 'starter'), or CALL imgvec_migrate('photos', 'embedding', model => 'starter').")
}

pub fn no_column(table: &str, column: &str) -> Report {
    Report::new(
        Code::ERRCODE_UNDEFINED_COLUMN,
        format!("column \"{column}\" of table {table} does not exist"),
    )
    .detail("The embedding needs a column.")
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
        format!("column \"{column}\" cannot hold embeddings, because its type is {found}"),
    )
    .detail("An embedding is an imgvec, which must convert to the column's type on assignment.")
    .hint("Use a column of type imgvec(n) or imghalf(n), or with pgvector vector(n) or halfvec(n) and the extension imgvec_pgvector.")
}

pub fn wrong_source_type(source: &str, found: &str) -> Report {
    Report::new(
        Code::ERRCODE_DATATYPE_MISMATCH,
        format!("cannot embed \"{source}\", because its type is {found}"),
    )
    .detail("An image must be a bytea value, and a text must be of type text or a similar one.")
    .hint("Cast it to text, or name the column with the image's bytes.")
}

pub fn source_reads_target(target: &str) -> Report {
    Report::new(
        Code::ERRCODE_INVALID_OBJECT_DEFINITION,
        format!("the source of column \"{target}\" reads the column itself"),
    )
    .detail("Each embedding would require another one.")
    .hint("Leave the column out of the source.")
}

pub fn wrong_modality(model: &str, what: &str) -> Report {
    Report::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, format!("model \"{model}\" does not embed {what}"))
        .detail("The type of the source decides: bytea is an image, other types are text.")
        .hint("The column \"modalities\" of the view imgvec_models shows what each model embeds.")
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
        format!("table {table} has no key that identifies its rows"),
    )
    .detail("The queue identifies rows by a primary key, or by a unique index of NOT NULL columns.")
    .hint(format!(
        "Add one, as in ALTER TABLE {table} ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY."
    ))
}

pub fn key_is_gone(table: &str) -> Report {
    Report::new(
        Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the key of table {table} is missing"),
    )
    .detail("The unique index that identified waiting rows was dropped, or has other columns now.")
    .hint("Create it again; or call imgvec_maintain(..., stop => true) and declare the column again.")
}

pub fn suppressed(table: &str) -> Report {
    Report::new(
        Code::ERRCODE_TRIGGERED_ACTION_EXCEPTION,
        format!("a trigger of table {table} suppressed the update that writes the embedding"),
    )
    .detail("A BEFORE UPDATE trigger returned NULL for the row.")
    .hint("Let the trigger pass updates of the embedding, then call imgvec_retry.")
}

pub fn already_maintained(table: &str, target: &str, source: &str, model: &str) -> Report {
    Report::new(
        Code::ERRCODE_DUPLICATE_OBJECT,
        format!("column \"{target}\" of table {table} is already maintained"),
    )
    .detail(format!("Its source is {source}, its model is \"{model}\"."))
    .hint("To change that, first call imgvec_maintain(..., target => ..., stop => true).")
}

pub fn not_maintained(table: &str, target: Option<&str>) -> Report {
    let what = match target {
        Some(target) => format!("column \"{target}\" of table {table} is not maintained"),
        None => format!("no column of table {table} is maintained"),
    };
    Report::new(Code::ERRCODE_UNDEFINED_OBJECT, what)
        .detail("It was never declared with imgvec_maintain, or was stopped, or its triggers were dropped.")
        .hint("The view imgvec_progress lists the maintained columns.")
}

/// Names that an error lists.
const MOST_NAMES: usize = 20;

pub fn column_failed(column: &str, why: &Report) -> Report {
    Report {
        code: why.code,
        origin: why.origin.clone(),
        is_foreign: why.is_foreign,
        message: format!("could not embed rows of column {column}: {}", why.message),
        detail: why.detail.clone(),
        hint: why.hint.clone(),
    }
}

/// Columns that could not be worked, while others could. Code and hint are those of the first.
pub fn columns_failed(failed: &[(String, Report)]) -> Report {
    let (first, why) = &failed[0];
    if failed.len() == 1 {
        return column_failed(first, why);
    }
    let names: Vec<&str> = failed.iter().take(MOST_NAMES).map(|(name, _)| name.as_str()).collect();
    let more = match failed.len() - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let report = column_failed(first, why);
    Report {
        message: format!("could not embed rows of {} columns: {}{more}", failed.len(), names.join(", ")),
        detail: Some(format!(
            "{first}: {}",
            [Some(format!("{}.", why.message)), report.detail]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" ")
        )),
        hint: report.hint.or_else(|| Some("The view imgvec_progress shows the error of each.".to_owned())),
        ..report
    }
}

pub fn bad_choice(name: &str, found: &str, choices: &str) -> Report {
    Report::new(
        Code::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("\"{found}\" is not a value of argument \"{name}\""),
    )
    .detail(format!("It may be {choices}."))
    .hint("Leave the argument out for the first of them.")
}

pub fn in_transaction(procedure: &str) -> Report {
    Report::new(
        Code::ERRCODE_INVALID_TRANSACTION_TERMINATION,
        format!("{procedure} cannot run inside a transaction block or function"),
    )
    .detail("Each of its steps is a separate transaction.")
    .hint("Call it alone: outside of BEGIN and COMMIT, and not with other statements in one string.")
}

pub fn not_a_trigger_call() -> Report {
    Report::new(Code::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED, "imgvec_enqueue cannot be called directly")
        .detail("It is the function of the triggers that imgvec_maintain creates.")
        .hint("Call imgvec_maintain.")
}

pub fn damaged_trigger(table: &str, why: &str) -> Report {
    Report::new(
        Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("rows of table \"{table}\" cannot be queued for embedding"),
    )
    .detail(why)
    .hint("Call imgvec_maintain(..., stop => true), and declare the column again.")
}

/// A declaration that does not count; `is_right` if a right is missing.
pub fn doubtful(column: &str, why: &str, is_right: bool) -> Report {
    let code = if is_right {
        Code::ERRCODE_INSUFFICIENT_PRIVILEGE
    } else {
        Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
    };
    Report::new(code, format!("the declaration of column {column} in a trigger is not valid")).detail(why).hint(
        "Give queue and log to the table's owner, or call imgvec_maintain(..., stop => true) and declare the \
         column again.",
    )
}

pub fn in_recovery(function: &str) -> Report {
    Report::new(Code::ERRCODE_READ_ONLY_SQL_TRANSACTION, format!("{function} cannot run on a standby"))
        .detail("A standby cannot write; it receives embeddings from its primary.")
        .hint("Call it on the primary.")
}

pub fn bad_recall(found: f64) -> Report {
    Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "min_recall is out of range")
        .detail(format!("It is {found}, and must be between 0 and 1."))
        .hint("Leave the argument out for its default, or give 0 to measure nothing.")
}

pub fn other_migration(column: &str, model: &str) -> Report {
    Report::new(
        Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("column {column} is being migrated to model \"{model}\""),
    )
    .detail("A column can have only one migration at a time.")
    .hint("To continue, call imgvec_migrate with that model, or without one. To end it, add give_up => true.")
}

pub fn no_migration(column: &str) -> Report {
    Report::new(
        Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("column {column} is not being migrated"),
    )
    .detail("No migration was started, or another session completed it or gave it up.")
    .hint("The view imgvec_progress shows the column's model.")
}

pub fn unknown_dimensions(model: &str) -> Report {
    Report::new(
        Code::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("the number of dimensions of model \"{model}\" is not known"),
    )
    .detail("Its package does not state it, so no column for its embeddings can be created.")
    .hint("Embed one input with the model in this session, and call imgvec_migrate again.")
}

pub fn in_the_way(column: &str, objects: &[String]) -> Report {
    Report::new(
        Code::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
        format!("cannot give column {column} another model"),
    )
    .detail(format!("The column is dropped at the end, and these objects depend on it: {}.", objects.join(", ")))
    .hint("Drop them and create them again afterwards, or embed into a second column yourself, as docs/pipeline.md describes.")
}

pub fn is_partition(table: &str) -> Report {
    Report::new(Code::ERRCODE_WRONG_OBJECT_TYPE, format!("table {table} is a partition"))
        .detail("A partition has the columns of its parent.")
        .hint("Declare and migrate the column of the partitioned table.")
}

pub fn rows_would_be_lost(column: &str, next: &str, model: &str, count: i64) -> Report {
    let rows = if count == 1 { "1 row" } else { &format!("{count} rows") };
    Report::new(
        Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("{rows} of column {column} would lose their embedding"),
    )
    .detail(format!("Model \"{model}\" could not embed rows that the current model embedded."))
    .hint(format!(
        "See imgvec_failures where target is \"{next}\"; call imgvec_retry and then imgvec_migrate again, with accept_failures => true to leave them without an embedding."
    ))
}

pub fn no_index_builder(name: &str, old: &str, column: &str) -> Report {
    Report::new(
        Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        format!("could not start a worker to build index \"{name}\""),
    )
    .detail("The server has no free background worker, and a procedure cannot build an index concurrently itself.")
    .hint(format!(
        "Raise max_worker_processes; or run CREATE INDEX CONCURRENTLY of this name yourself, like index \"{old}\" but on column \"{column}\". \
         Then call imgvec_migrate again."
    ))
}

pub fn index_not_built(name: &str, why: Option<String>) -> Report {
    let why = why.unwrap_or_else(|| "The worker that builds it ended without an error message.".to_owned());
    Report::new(
        Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("could not build index \"{name}\""),
    )
    .detail(why)
    .hint("Fix that and call imgvec_migrate again: it continues where it stopped. The server's log may have more information.")
}

pub fn low_recall(index: &str, found: f64, least: f64) -> Report {
    Report::new(
        Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("index {index} finds too few of the nearest rows"),
    )
    .detail(format!("It finds {found:.3} of them, and min_recall is {least}."))
    .hint(
        "Raise its target_recall with ALTER INDEX and call imgvec_migrate again; or give a lower min_recall.",
    )
}

pub fn other_model(index: &str, expected: &str, found: &str) -> Report {
    Report::new(
        Code::ERRCODE_DATA_EXCEPTION,
        format!("cannot search index \"{index}\" of model \"{expected}\" by an embedding of model \"{found}\""),
    )
    .detail("Distances between embeddings of different models have no meaning.")
    .hint(format!(
        "Embed the query with \"{expected}\", or with embed_text_for or embed_image_for, which use the column's model. If the index \
         has another model now, correct it with ALTER INDEX ... SET (model = ...)."
    ))
}

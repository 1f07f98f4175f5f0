//! What a maintained column is, as its triggers' argument says it: JSON, so that a dump carries it.

use crate::embed::Inputs;
use crate::server::{catalog, raw};
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the format.
pub const VERSION: u32 = 1;

/// The kind of input, as JSON has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Image,
    Text,
}

impl From<Kind> for Inputs {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Image => Inputs::Images,
            Kind::Text => Inputs::Texts,
        }
    }
}

/// A declaration. Columns have the names that they had when it was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Definition {
    pub version: u32,
    /// The column that holds the embedding.
    pub target: String,
    /// The expression that is embedded, with names that need no search path.
    pub source: String,
    pub kind: Kind,
    pub model: String,
    /// Schema and name of the table of waiting rows.
    pub queue: (String, String),
    /// Schema and name of the table of failures, progress and the backfill's place.
    pub log: (String, String),
    /// The table's oid when the declaration was made: while it is the same, numbers of columns tell what renamed columns
    /// are called now, and oids what queue and log are called. A dump that is restored has another, and names count.
    pub relation: u32,
    /// Oids of queue and log.
    #[serde(default)]
    pub tables: (u32, u32),
    /// Numbers of the columns that are named here.
    pub columns: BTreeMap<String, i16>,
    /// The columns that distinguish rows.
    pub key: Vec<String>,
    /// The columns that the source reads.
    pub watch: Vec<String>,
    /// Whether the source is nothing but a column, so that NULL can be seen without evaluating it.
    pub is_column: bool,
    /// The column whose place this one is to take, while a migration goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeds: Option<String>,
}

impl Definition {
    /// The argument of a trigger.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings, numbers and lists")
    }

    /// Reads the argument of a trigger; `None` for what is none, or of a newer version, or has zero characters, which no name
    /// and no SQL has.
    pub fn from_json(text: &str) -> Option<Self> {
        let definition: Self = serde_json::from_str(text).ok()?;
        let is_text = !definition.texts().any(|text| text.contains('\0'));
        (definition.version == VERSION && is_text).then_some(definition)
    }

    fn texts(&self) -> impl Iterator<Item = &String> {
        let tables = [&self.queue, &self.log].into_iter().flat_map(|(schema, name)| [schema, name]);
        let rest = [&self.target, &self.source, &self.model].into_iter().chain(&self.succeeds);
        let columns = self.columns.keys().chain(&self.key).chain(&self.watch);
        tables.chain(rest).chain(columns)
    }

    /// The number that a column of the declaration has in a table that has the declaration: its own, a partition of that,
    /// or a copy of it, in which names count.
    pub fn number_in(&self, relation: pg_sys::Oid, name: &str) -> Option<i16> {
        let declared = pg_sys::Oid::from(self.relation);
        let known = self.columns.get(name).copied();
        if relation == declared {
            return known;
        }
        // A partition has its root's declaration, while its columns may have other numbers and new names.
        if let Some(now) = known.and_then(|number| catalog::column_name(declared, number))
            && raw::is_partition_of(relation, declared)
        {
            return catalog::column_number(relation, &now);
        }
        catalog::column_number(relation, name)
    }
}

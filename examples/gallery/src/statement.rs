//! One SQL statement with its parameters: how every request asks the database.
//!
//! [`run`] sends text, types and values in one message. So a statement needs one round trip and leaves nothing prepared
//! in the session: that works through a pooler in transaction mode, and the server plans it for the values at hand.

use std::fmt::{Debug, Write as _};
use std::time::{Duration, Instant};

use deadpool_postgres::Pool;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::problem::Problem;

/// Elements of a vector that a plan shows; a literal of 256 numbers hides what is around it.
const SHOWN_ELEMENTS: usize = 3;

/// A value for a statement.
pub trait Value: ToSql + Debug + Send + Sync {}
impl<T: ToSql + Debug + Send + Sync> Value for T {}

/// A statement as it is written piece by piece. Values are always bound; no value becomes part of the text.
#[derive(Debug, Default)]
pub struct Statement {
    /// The statement, with `$1`, `$2` and so on in place of values.
    pub sql: String,
    values: Vec<(Box<dyn Value>, Type)>,
}

/// What a statement returned, and how long that took, with sending and receiving.
#[derive(Debug)]
pub struct Answer {
    /// The rows.
    pub rows: Vec<Row>,
    /// From sending the statement to the last row.
    pub elapsed: Duration,
}

impl Statement {
    /// A statement that needs no pieces.
    pub fn new(sql: &str) -> Self {
        Self { sql: sql.to_owned(), values: Vec::new() }
    }

    /// Binds the next value of a statement that is written already.
    pub fn with(mut self, value: impl Value + 'static, of: Type) -> Self {
        self.bind(value, of);
        self
    }

    /// Binds a value and returns its place in the text, such as `$3`.
    pub fn bind(&mut self, value: impl Value + 'static, of: Type) -> String {
        self.values.push((Box::new(value), of));
        format!("${}", self.values.len())
    }

    /// The values for people, in their order; pictures as their size.
    pub fn values(&self) -> Vec<String> {
        let shown = |(value, of): &(Box<dyn Value>, Type)| {
            if *of == Type::BYTEA { "a picture".to_owned() } else { shortened(&format!("{value:?}"), 200) }
        };
        self.values.iter().map(shown).collect()
    }

    /// The statement that explains this one by running it.
    pub fn explained(mut self) -> Self {
        self.sql.insert_str(0, "EXPLAIN (ANALYZE, BUFFERS)\n");
        self
    }
}

/// Runs a statement.
///
/// # Errors
/// The server's error, with the statement.
pub async fn run(pool: &Pool, statement: &Statement) -> Result<Answer, Problem> {
    let client = pool.get().await.map_err(|error| Problem::unreachable(&error))?;
    let values: Vec<(&(dyn ToSql + Sync), Type)> =
        statement.values.iter().map(|(value, of)| (&**value as &(dyn ToSql + Sync), of.clone())).collect();
    let begin = Instant::now();
    let rows = client.query_typed(&statement.sql, &values).await;
    let elapsed = begin.elapsed();
    rows.map(|rows| Answer { rows, elapsed }).map_err(|error| Problem::of_server(&error, &statement.sql))
}

/// The lines of a plan, with vectors cut to their first elements.
pub fn plan(answer: &Answer) -> String {
    let mut text = String::new();
    for row in &answer.rows {
        text.push_str(&with_short_vectors(row.get(0)));
        text.push('\n');
    }
    text
}

/// Replaces `'[0.1,0.2, ...]'` by its first elements and their number.
fn with_short_vectors(line: &str) -> String {
    let mut short = String::with_capacity(line.len().min(400));
    let mut rest = line;
    while let Some(begin) = rest.find("'[") {
        let Some(length) = rest[begin..].find("]'") else { break };
        let elements: Vec<&str> = rest[begin + 2..begin + length].split(',').collect();
        short.push_str(&rest[..begin + 2]);
        short.push_str(&elements[..elements.len().min(SHOWN_ELEMENTS)].join(","));
        if elements.len() > SHOWN_ELEMENTS {
            let _ = write!(short, ", … {} numbers", elements.len());
        }
        rest = &rest[begin + length..];
    }
    short.push_str(rest);
    short
}

/// The first characters of a text.
pub fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

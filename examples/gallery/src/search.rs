//! Search: words, a picture, what was liked, and filters, in one statement.

use axum::http::StatusCode;
use serde::Deserialize;
use tokio_postgres::types::Type;

use crate::problem::Problem;
use crate::schema::Model;
use crate::statement::Statement;

/// Pictures of a page.
pub const PAGE: usize = 40;
/// So many rows of the same distance may stand at the end of a page; of more, some would be left out.
const TIES: usize = 20;
/// Where the page should not repeat itself, it is chosen from so many of the nearest.
const CANDIDATES: usize = 400;
/// Pictures of each model where models are compared.
const COMPARED: usize = 12;
/// Longer queries are refused; models read fewer words.
const QUERY_CHARACTERS: usize = 500;
/// Taste beside words or a picture.
const TASTE_WEIGHT: f64 = 0.6;

/// What is asked, as the page's form sends it. All of it is text, since a form sends empty fields as well.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Search {
    /// Words.
    pub q: String,
    /// A picture of the library to be like.
    pub like: String,
    /// A picture that was dropped or pasted.
    pub picture: String,
    /// The words' part where there are words and a picture, 0 to 100.
    pub weight: String,
    /// Whether the marks steer.
    pub taste: String,
    /// 0, the most similar first, to 10, the most diverse.
    pub diverse: String,
    /// Filters.
    pub folder: String,
    /// A filter.
    pub year: String,
    /// A filter.
    pub format: String,
    /// A filter.
    pub label: String,
    /// A filter: the number of a cluster.
    pub cluster: String,
    /// The last row of the page before: distance and id, or place.
    pub after: String,
    /// The place of the model among those of the gallery; 0 without it.
    pub model: String,
}

impl Search {
    /// The form's fields and values, without those that are empty.
    pub fn fields(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("q", &self.q),
            ("like", &self.like),
            ("picture", &self.picture),
            ("weight", &self.weight),
            ("taste", &self.taste),
            ("diverse", &self.diverse),
            ("folder", &self.folder),
            ("year", &self.year),
            ("format", &self.format),
            ("label", &self.label),
            ("cluster", &self.cluster),
            ("after", &self.after),
            ("model", &self.model),
        ];
        all.into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name, value.as_str()))
            .collect()
    }

    /// The same for an address.
    pub fn query_string(&self) -> String {
        query_string_of(&self.fields())
    }

    /// The page that follows a row.
    pub fn from(&self, after: String) -> Self {
        Self { after, ..self.clone() }
    }

    /// How diverse, 0 to 1.
    fn diversity(&self) -> Result<f64, Problem> {
        Ok(number::<u32>(&self.diverse, "diverse")?.map_or(0.0, |tenths| f64::from(tenths.min(10)) / 10.0))
    }

    /// The statement.
    ///
    /// # Errors
    /// If a field is none of those that the form sends.
    pub fn statement(&self, models: &[Model]) -> Result<Statement, Problem> {
        if self.q.chars().count() > QUERY_CHARACTERS {
            return Err(bad(&format!("a query has {QUERY_CHARACTERS} characters at most")));
        }
        let place = number::<usize>(&self.model, "model")?.unwrap_or(0);
        let model = models.get(place).ok_or_else(|| bad("there is no such model"))?;
        let mut statement = Statement::default();
        let (with, vector) = self.vector(model, &mut statement)?;
        let mut conditions = self.filters(&mut statement)?;
        let Some(vector) = vector else { return self.browse(statement, &conditions) };

        let distance = format!("{} <=> {vector}", model.column);
        let diversity = self.diversity()?;
        let (columns, shown, marked) = (COLUMNS, SHOWN, MARKED);
        if diversity > 0.0 {
            let after = number::<i64>(&self.after, "after")?.unwrap_or(0);
            let (diversity, after) =
                (statement.bind(diversity, Type::FLOAT8), statement.bind(after, Type::INT8));
            let (filter, column) = (filter(&conditions), &model.column);
            statement.sql = format!(
                "{with}SELECT {shown}, distance, place{marked}\nFROM (\n    SELECT *, diverse_rank({column}, -distance, {diversity}) OVER () AS place\n    \
                 FROM (\n        SELECT {columns}, {column}, {distance} AS distance\n        FROM pictures{filter}\n        \
                 ORDER BY {distance} LIMIT {CANDIDATES}\n    ) AS candidates\n) AS ranked\n\
                 WHERE place > {after} ORDER BY place LIMIT {PAGE}"
            );
            return Ok(statement);
        }
        if let Some((last, id)) = self.after()? {
            let (last, id) = (statement.bind(last, Type::FLOAT8), statement.bind(id, Type::INT8));
            conditions.push(format!("({distance}, id) > ({last}, {id})"));
        }
        let filter = filter(&conditions);
        // The index orders by distance alone. Some rows more than the page has come along, so that rows of one distance may
        // then be put in the order of their ids; FETCH FIRST ... WITH TIES would do that without a bound, but uses no index.
        let rows = PAGE + TIES;
        statement.sql = format!(
            "{with}SELECT {shown}, distance{marked}\nFROM (\n    SELECT {columns}, {distance} AS distance\n    \
             FROM pictures{filter}\n    ORDER BY {distance} LIMIT {rows}\n) AS nearest\n\
             ORDER BY distance, id LIMIT {PAGE}"
        );
        Ok(statement)
    }

    /// The vector to be near to, as an expression, and the WITH clause that it needs; `None` without a query.
    fn vector(&self, model: &Model, statement: &mut Statement) -> Result<(String, Option<String>), Problem> {
        let (column, name) = (&model.column, model.literal());
        let words = self.q.trim();
        let has_picture = !(self.like.is_empty() && self.picture.is_empty());
        let of_words = match number::<u32>(&self.weight, "weight")? {
            Some(percent) if has_picture && !words.is_empty() => f64::from(percent.min(100)) / 100.0,
            _ => 0.5,
        };
        let mut parts = Vec::new();
        if !words.is_empty() {
            let words = statement.bind(words.to_owned(), Type::TEXT);
            parts.push((format!("embed_text({words}, {name})"), of_words));
        }
        if let Some(id) = number::<i64>(&self.like, "like")? {
            let id = statement.bind(id, Type::INT8);
            parts.push((format!("(SELECT {column} FROM pictures WHERE id = {id})"), 1.0 - of_words));
        } else if let Some(id) = number::<i64>(&self.picture, "picture")? {
            let id = statement.bind(id, Type::INT8);
            parts.push((
                format!("embed_image((SELECT data FROM asked WHERE id = {id}), {name})"),
                1.0 - of_words,
            ));
        }
        if !self.taste.is_empty() {
            let taste = format!("(SELECT taste({column}, weight) FROM marks JOIN pictures ON id = picture)");
            parts.push((taste, TASTE_WEIGHT));
        }
        let Some((first, _)) = parts.first() else { return Ok((String::new(), None)) };
        if parts.len() == 1 {
            return Ok((String::new(), Some(first.clone())));
        }
        let vectors: Vec<&str> = parts.iter().map(|(vector, _)| vector.as_str()).collect();
        let weights: Vec<f64> = parts.iter().map(|&(_, weight)| weight).collect();
        let weights = statement.bind(weights, Type::FLOAT8_ARRAY);
        let with = format!(
            "WITH query AS (\n    SELECT embed_mix(ARRAY[\n        {}\n    ], {weights}) AS vector\n)\n",
            vectors.join(",\n        ")
        );
        Ok((with, Some("(SELECT vector FROM query)".to_owned())))
    }

    /// Conditions on columns of the index, then those on others.
    fn filters(&self, statement: &mut Statement) -> Result<Vec<String>, Problem> {
        let mut conditions = Vec::new();
        for (column, value) in [("folder", &self.folder), ("format", &self.format), ("label", &self.label)] {
            if !value.is_empty() {
                conditions.push(format!("{column} = {}", statement.bind(value.clone(), Type::TEXT)));
            }
        }
        if let Some(year) = number::<i32>(&self.year, "year")? {
            conditions.push(format!("year = {}", statement.bind(year, Type::INT4)));
        }
        if let Some(cluster) = number::<i32>(&self.cluster, "cluster")? {
            let cluster = statement.bind(cluster, Type::INT4);
            conditions.push(format!("id IN (SELECT picture FROM clusters WHERE cluster = {cluster})"));
        }
        if let Some(id) = number::<i64>(&self.like, "like")? {
            conditions.push(format!("id <> {}", statement.bind(id, Type::INT8)));
        }
        if !self.taste.is_empty() && self.q.trim().is_empty() {
            conditions.push("NOT EXISTS (SELECT FROM marks WHERE picture = id)".to_owned());
        }
        Ok(conditions)
    }

    /// All pictures in the order they came in.
    fn browse(&self, mut statement: Statement, conditions: &[String]) -> Result<Statement, Problem> {
        let mut conditions = conditions.to_vec();
        if let Some((_, id)) = self.after()? {
            conditions.push(format!("id > {}", statement.bind(id, Type::INT8)));
        }
        statement.sql = format!(
            "SELECT {COLUMNS}{MARKED}\nFROM pictures{}\nORDER BY id LIMIT {PAGE}",
            filter(&conditions)
        );
        Ok(statement)
    }

    /// Distance and id of the last row that is there.
    fn after(&self) -> Result<Option<(f64, i64)>, Problem> {
        let Some((distance, id)) = self.after.split_once(',') else { return Ok(None) };
        let parsed = distance.parse().ok().zip(id.parse().ok());
        parsed.map(Some).ok_or_else(|| bad("\"after\" is no row of a page"))
    }
}

/// What each model finds for the same words, best first.
///
/// # Errors
/// If there are too many words.
pub fn compared(words: &str, models: &[Model]) -> Result<Statement, Problem> {
    if words.chars().count() > QUERY_CHARACTERS {
        return Err(bad(&format!("a query has {QUERY_CHARACTERS} characters at most")));
    }
    let mut statement = Statement::default();
    let words = statement.bind(words.to_owned(), Type::TEXT);
    let of_each: Vec<String> = models
        .iter()
        .enumerate()
        .map(|(place, model)| {
            let (column, name) = (&model.column, model.literal());
            format!(
                "(SELECT {place} AS model, {COLUMNS}, {column} <=> embed_text({words}, {name}) AS distance\n \
                 FROM pictures ORDER BY {column} <=> embed_text({words}, {name}) LIMIT {COMPARED})"
            )
        })
        .collect();
    statement.sql = format!("{}\nORDER BY model, distance, id", of_each.join("\nUNION ALL\n"));
    Ok(statement)
}

/// What a card shows.
const COLUMNS: &str = "id, name, label, format, width, height, left(digest, 12) AS version";
/// The same of a subquery.
const SHOWN: &str = "id, name, label, format, width, height, version";
const MARKED: &str = ",\n    (SELECT weight FROM marks WHERE picture = id) AS mark";

fn filter(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!("\nWHERE {}", conditions.join(" AND ")) }
}

/// The number in a field; `None` if the field is empty.
pub fn number<T: std::str::FromStr>(text: &str, field: &str) -> Result<Option<T>, Problem> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| bad(&format!("{field:?} must be a number")))
}

fn bad(message: &str) -> Problem {
    Problem::of_request(StatusCode::BAD_REQUEST, message)
}

/// Names and values as a query string.
pub fn query_string_of(fields: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for &byte in value.as_bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    text
}

//! The tables, and the connections that find them.

use std::error::Error;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio_postgres::{Config, NoTls};

/// Sessions at a time. Each loads the model once, at its first call.
const CONNECTIONS: usize = 6;

/// A model of `imgvec_models`, and the column that holds its embeddings.
#[derive(Clone, Debug)]
pub struct Model {
    /// As `imgvec_models` has it.
    pub name: String,
    /// `embedding`, `embedding_2` and so on.
    pub column: String,
}

impl Model {
    /// The name as a literal of SQL.
    pub fn literal(&self) -> String {
        literal(&self.name)
    }
}

/// Everything lives in a schema of its own, which `DROP SCHEMA imgvec_gallery CASCADE` removes.
pub const SCHEMA: &str = "imgvec_gallery";

const PICTURES: &str = "\
CREATE TABLE pictures (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    folder text NOT NULL,
    name text NOT NULL,
    label text,
    year integer,
    thumbnail bytea,
    data bytea NOT NULL,
    digest text GENERATED ALWAYS AS (encode(sha256(data), 'hex')) STORED UNIQUE,
    format text GENERATED ALWAYS AS ((image_info(data)).format) STORED,
    width integer GENERATED ALWAYS AS ((image_info(data)).width) STORED,
    height integer GENERATED ALWAYS AS ((image_info(data)).height) STORED";

const OTHERS: &str = "\
CREATE TABLE asked (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    data bytea NOT NULL
);
CREATE TABLE marks (
    picture bigint PRIMARY KEY REFERENCES pictures ON DELETE CASCADE,
    weight integer NOT NULL
);
CREATE TABLE map (
    picture bigint PRIMARY KEY REFERENCES pictures ON DELETE CASCADE,
    x double precision NOT NULL,
    y double precision NOT NULL
);
CREATE TABLE clusters (
    picture bigint PRIMARY KEY REFERENCES pictures ON DELETE CASCADE,
    cluster integer
);
CREATE INDEX clusters_cluster ON clusters (cluster);
CREATE TABLE copies (
    picture bigint PRIMARY KEY REFERENCES pictures ON DELETE CASCADE,
    number integer
);
CREATE TABLE refused (
    folder text NOT NULL,
    name text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (folder, name)
);
CREATE TABLE models (place integer PRIMARY KEY, name text NOT NULL)";

/// Creates the extension and the tables where they are missing, and returns a pool of sessions that find them.
///
/// # Errors
/// If the server refuses, a model is not there, or the tables were made for other models.
pub async fn open(config: &Config, names: &[String]) -> Result<(Pool, Vec<Model>), Box<dyn Error>> {
    let (client, connection) = config.connect(NoTls).await?;
    let connection = tokio::spawn(connection);
    let models: Vec<Model> = names
        .iter()
        .enumerate()
        .map(|(place, name)| Model {
            name: name.clone(),
            column: if place == 0 { "embedding".to_owned() } else { format!("embedding_{}", place + 1) },
        })
        .collect();

    client.batch_execute("CREATE EXTENSION IF NOT EXISTS imgvec").await?;
    let query = "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'imgvec'";
    let of_extension: String = client.query_one(query, &[]).await?.get(0);
    let path = format!("SET search_path = {SCHEMA}, {of_extension}, pg_temp");
    client.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {SCHEMA}; {path}")).await?;

    if client.query_one("SELECT to_regclass('models') IS NULL", &[]).await?.get(0) {
        let mut columns = String::new();
        for model in &models {
            let query =
                "SELECT dims, modalities @> '{image,text}', detail FROM imgvec_models WHERE name = $1";
            let row = client.query_opt(query, &[&model.name]).await?;
            let row =
                row.ok_or_else(|| format!("there is no model {:?} on imgvec.model_path", model.name))?;
            if row.get::<_, Option<bool>>(1) != Some(true) {
                let detail: Option<String> = row.get(2);
                return Err(format!(
                    "model {:?} does not embed images and texts. {}",
                    model.name,
                    detail.unwrap_or_default()
                )
                .into());
            }
            let (column, dims, name) = (&model.column, row.get::<_, i32>(0), model.literal());
            columns += &format!(
                ",\n    {column} imgvec({dims}) GENERATED ALWAYS AS (embed_image(data, {name})) STORED"
            );
        }
        let mut sql = format!("BEGIN;\n{PICTURES}{columns}\n);\n{OTHERS};\n");
        for (place, Model { name, column }) in models.iter().enumerate() {
            // Columns that searches filter by follow the vector.
            sql += &format!(
                "CREATE INDEX pictures_{column} ON pictures USING ann ({column}, folder, year, format, label);\n"
            );
            sql += &format!("INSERT INTO models VALUES ({place}, {});\n", literal(name));
        }
        client.batch_execute(&(sql + "COMMIT")).await?;
    }
    let rows = client.query("SELECT name FROM models ORDER BY place", &[]).await?;
    let there: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if there != *names {
        return Err(format!(
            "the schema {SCHEMA} holds embeddings by {}: set MODELS to these, or drop the schema",
            there.join(", ")
        )
        .into());
    }
    drop(client);
    let _ = connection.await;

    let mut config = config.clone();
    // Of an option's text, white space ends it and a backslash quotes.
    let escaped = of_extension.replace('\\', "\\\\").replace(' ', "\\ ");
    config.application_name("imgvec gallery").options(format!(
        "-c search_path={SCHEMA},{escaped},pg_temp -c statement_timeout=120s -c idle_in_transaction_session_timeout=60s"
    ));
    let manager =
        Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    let pool = Pool::builder(manager)
        .max_size(CONNECTIONS)
        .runtime(deadpool_postgres::Runtime::Tokio1)
        .wait_timeout(Some(Duration::from_secs(30)))
        .build()?;
    Ok((pool, models))
}

/// Loads the model in every session of the pool, so that nobody's first search waits for that.
pub async fn warm(pool: Pool, model: Model) {
    let mut sessions = Vec::new();
    for _ in 0..CONNECTIONS {
        let Ok(session) = pool.get().await else { return };
        // What is wrong with the model, the first search will say.
        let _ = session.batch_execute(&format!("SELECT embed_text('warm', {})", model.literal())).await;
        sessions.push(session);
    }
}

/// A text as a literal of SQL, for the names of models: a call that names its model in the text is immutable.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

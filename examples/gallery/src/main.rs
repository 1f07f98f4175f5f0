//! A picture library in the browser, on PostgreSQL alone.
//!
//! ```text
//! make gallery                                  sample pictures, on a private server that ends with the gallery
//! make gallery PHOTOS=~/Photos                  a person's own pictures
//! make gallery DATABASE_URL=postgres:///photos  in a schema of one's own server, which keeps them
//! ```
//!
//! It is also an example of how to write such an application: every request is one SQL statement, and each page shows it. Start
//! at `search.rs`, which builds the statement of a search, and `web.rs`, which answers with it.

#[path = "../../../tests/cluster/mod.rs"]
mod cluster;
mod import;
mod library;
mod page;
#[path = "../../demo/src/pictures.rs"]
mod pictures;
mod problem;
mod schema;
mod search;
mod statement;
mod web;

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use cluster::Cluster;
use import::Progress;
use pictures::Picture;

const PORT: u16 = 8100;

fn main() -> ExitCode {
    match gallery() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut told = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                told = format!("{told}: {error}");
                cause = error.source();
            }
            eprintln!("gallery: {told}");
            ExitCode::FAILURE
        }
    }
}

/// A variable of the environment, if it says something.
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn gallery() -> Result<(), Box<dyn Error>> {
    let address = setting("DATABASE_URL");
    let models: Vec<String> = setting("MODELS")
        .unwrap_or_else(|| "starter".to_owned())
        .split(',')
        .map(|name| name.trim().to_owned())
        .collect();
    let port = setting("PORT").map_or(Ok(PORT), |port| port.parse())?;
    let pictures = pictures(address.is_some())?;

    // The private server, started before there are threads; dropped, and so ended, after them.
    let (cluster, config) = match &address {
        Some(address) => (None, address.parse()?),
        None => {
            println!("Starting a private PostgreSQL ...");
            let mut builder = Cluster::new("gallery")
                .conf("shared_buffers = '256MB'")
                .conf("maintenance_work_mem = '512MB'");
            if let Some(path) = setting("MODEL_PATH") {
                builder = builder.conf(&format!("imgvec.model_path = '{}'", path.replace('\'', "''")));
            }
            let cluster = builder.start_empty();
            let mut config = tokio_postgres::Config::new();
            config.host_path(cluster.directory()).user("postgres").dbname("postgres");
            (Some(cluster), config)
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(&config, &models, port, pictures))?;
    drop(runtime);
    drop(cluster);
    Ok(())
}

/// The pictures to begin with: a directory's, the samples, or none on a server that keeps its own.
fn pictures(is_kept: bool) -> Result<Vec<Picture>, Box<dyn Error>> {
    if let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) {
        let (pictures, others) = pictures::own(&directory)?;
        println!("{}: {} pictures, {others} other files", directory.display(), pictures.len());
        return Ok(pictures);
    }
    if is_kept {
        return Ok(Vec::new());
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    pictures::library(&target)
}

async fn serve(
    config: &tokio_postgres::Config,
    models: &[String],
    port: u16,
    pictures: Vec<Picture>,
) -> Result<(), Box<dyn Error>> {
    let (pool, models) = schema::open(config, models).await?;
    let progress = Arc::new(Progress::default());
    let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
    let listener = listener.map_err(|error| format!("port {port}: {error}; PORT=8101 takes another"))?;
    println!("The gallery: http://127.0.0.1:{}/   (Control-C ends it)", listener.local_addr()?.port());
    schema::warm(pool.clone(), models[0].clone()).await;
    if !pictures.is_empty() {
        tokio::spawn(import::store_all(pool.clone(), models[0].clone(), pictures, Arc::clone(&progress)));
    }
    let served = axum::serve(listener, web::router(pool, models, progress));
    tokio::select! {
        result = served => result?,
        signal = tokio::signal::ctrl_c() => signal?,
    }
    println!();
    Ok(())
}

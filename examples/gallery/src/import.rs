//! Pictures become rows: a thumbnail is made here, the database does the rest.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use deadpool_postgres::Pool;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder as _, ImageReader, Limits};
use tokio_postgres::types::Type;

use crate::library::{self, Asked};
use crate::pictures::{Picture, on_white};
use crate::problem::Problem;
use crate::schema::Model;
use crate::statement::{Statement, run};

/// Pictures that are worked at a time, while the gallery answers.
const AT_A_TIME: usize = 2;
const THUMBNAIL_PIXELS: u32 = 360;
/// Decoding for a thumbnail stops here; the gallery then shows the picture itself.
const DECODED_BYTES: u64 = 256 << 20;

const INSERT: &str = "\
INSERT INTO pictures (folder, name, label, year, thumbnail, data)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (digest) DO NOTHING
RETURNING id";

const REFUSE: &str = "\
INSERT INTO refused (folder, name, reason) VALUES ($1, $2, $3)
ON CONFLICT (folder, name) DO UPDATE SET reason = excluded.reason";

/// A picture that wants to be a row.
#[derive(Debug)]
pub struct NewPicture {
    /// Where it came from: a path, or nothing.
    pub folder: String,
    /// The file's name.
    pub name: String,
    /// What it shows, if that is known.
    pub label: Option<String>,
    /// The year of its file, where the picture itself tells none.
    pub year: Option<i32>,
    /// The file.
    pub data: Vec<u8>,
}

/// How far the pictures are that the gallery was started with.
#[derive(Debug, Default)]
pub struct Progress {
    /// All.
    pub total: AtomicUsize,
    /// Stored, there already, or refused.
    pub done: AtomicUsize,
    /// Refused.
    pub refused: AtomicUsize,
}

/// Stores a picture with its embeddings; its id, or nothing if the same file is there already.
///
/// # Errors
/// What the server has against it. The table `refused` then says so too.
pub async fn store(pool: &Pool, picture: NewPicture) -> Result<Option<i64>, Problem> {
    let prepared = tokio::task::spawn_blocking(move || {
        let (thumbnail, taken) = thumbnail(&picture.data);
        (picture, thumbnail, taken)
    });
    let (NewPicture { folder, name, label, year, data }, thumbnail, taken) =
        prepared.await.map_err(|error| Problem::unreachable(&error))?;
    let statement = Statement::new(INSERT)
        .with(folder.clone(), Type::TEXT)
        .with(name.clone(), Type::TEXT)
        .with(label, Type::TEXT)
        .with(taken.or(year), Type::INT4)
        .with(thumbnail, Type::BYTEA)
        .with(data, Type::BYTEA);
    match run(pool, &statement).await {
        Ok(answer) => Ok(answer.rows.first().map(|row| row.get(0))),
        Err(problem) => {
            let reason = problem.reason();
            let refused = Statement::new(REFUSE)
                .with(folder, Type::TEXT)
                .with(name, Type::TEXT)
                .with(reason, Type::TEXT);
            run(pool, &refused).await?;
            Err(problem)
        }
    }
}

/// Stores many pictures, then looks at the whole library. Runs beside the gallery.
pub async fn store_all(pool: Pool, model: Model, pictures: Vec<Picture>, progress: Arc<Progress>) {
    progress.total.store(pictures.len(), Ordering::Relaxed);
    let waiting = Arc::new(std::sync::Mutex::new(pictures.into_iter()));
    let workers: Vec<_> = (0..AT_A_TIME)
        .map(|_| {
            let (pool, waiting, progress) = (pool.clone(), Arc::clone(&waiting), Arc::clone(&progress));
            tokio::spawn(async move {
                loop {
                    let next = waiting.lock().expect("no holder panics").next();
                    let Some(picture) = next else { return };
                    if let Err(reason) = store_file(&pool, &picture).await {
                        eprintln!("refused {}: {reason}", picture.name);
                        progress.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    progress.done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for worker in workers {
        let _ = worker.await;
    }
    let asked = Asked::default();
    let passes =
        [library::find_copies(&asked), library::find_clusters(&asked), Ok(library::draw_map(&model))];
    let analyze = Statement::new("ANALYZE pictures");
    for statement in std::iter::once(Ok(analyze)).chain(passes) {
        let result = match statement {
            Ok(statement) => run(&pool, &statement).await.map(|answer| (statement, answer)),
            Err(problem) => Err(problem),
        };
        match result {
            Ok((statement, answer)) => {
                let first = statement.sql.lines().next().unwrap_or_default();
                println!("{first} ... took {} ms", answer.elapsed.as_millis());
            }
            Err(problem) => eprintln!("gallery: {}", problem.reason()),
        }
    }
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    println!(
        "{} pictures are in, {} were refused",
        count(&progress.done) - count(&progress.refused),
        count(&progress.refused)
    );
}

async fn store_file(pool: &Pool, picture: &Picture) -> Result<(), String> {
    let data = picture.read().map_err(|error| error.to_string())?;
    let (folder, name) = picture.name.rsplit_once('/').unwrap_or(("", &picture.name));
    let folder = picture.folder.clone().unwrap_or_else(|| folder.to_owned());
    let new = NewPicture {
        folder,
        name: name.to_owned(),
        label: picture.label.clone(),
        year: picture.year(),
        data,
    };
    store(pool, new).await.map(drop).map_err(|problem| problem.reason())
}

/// A small JPEG of a picture, and the year that its camera recorded. Of a picture that cannot be decoded here, none.
fn thumbnail(data: &[u8]) -> (Option<Vec<u8>>, Option<i32>) {
    let Some((image, year)) = decode(data) else { return (None, None) };
    let small = image.thumbnail(THUMBNAIL_PIXELS.min(image.width()), THUMBNAIL_PIXELS.min(image.height()));
    let mut encoded = Vec::new();
    let written = on_white(&small).write_with_encoder(JpegEncoder::new_with_quality(&mut encoded, 84));
    (written.is_ok().then_some(encoded), year)
}

/// The picture as its camera meant it to be seen.
fn decode(data: &[u8]) -> Option<(DynamicImage, Option<i32>)> {
    let mut decoder = ImageReader::new(Cursor::new(data)).with_guessed_format().ok()?.into_decoder().ok()?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODED_BYTES);
    decoder.set_limits(limits).ok()?;
    let year = decoder.exif_metadata().ok().flatten().and_then(year);
    let orientation = decoder.orientation().ok()?;
    if decoder.total_bytes() > DECODED_BYTES {
        return None;
    }
    let mut image = DynamicImage::from_decoder(decoder).ok()?;
    image.apply_orientation(orientation);
    Some((image, year))
}

/// The year of `DateTimeOriginal`, such as `2021:07:30 12:00:00`.
fn year(exif: Vec<u8>) -> Option<i32> {
    let exif = exif::Reader::new().read_raw(exif).ok()?;
    let field = exif.get_field(exif::Tag::DateTimeOriginal, exif::In::PRIMARY)?;
    let exif::Value::Ascii(texts) = &field.value else { return None };
    let digits = std::str::from_utf8(texts.first()?.get(..4)?).ok()?;
    digits.parse().ok().filter(|year| (1800..=2200).contains(year))
}

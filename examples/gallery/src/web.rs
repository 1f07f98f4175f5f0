//! Addresses and answers. Each handler builds one statement, runs it, and writes what it returned.
//!
//! The gallery has no accounts, so it is for whoever sits at the machine: it listens on the loopback address alone, answers only to
//! names of that, and takes changes only from its own pages.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Form, Path, Query, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use deadpool_postgres::Pool;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_postgres::types::Type;

use crate::import::{self, NewPicture, Progress};
use crate::library::{self, Asked};
use crate::page;
use crate::problem::Problem;
use crate::schema::Model;
use crate::search::{self, Search, query_string_of};
use crate::statement::{Statement, plan, run, shortened};

/// A picture that is uploaded.
const UPLOAD_BYTES: usize = 32 << 20;
/// Pictures that are taken in at a time; others wait.
const UPLOADS: usize = 4;
const NAME_CHARACTERS: usize = 300;
/// Values of a filter that are offered.
const OFFERED: i64 = 300;

const POLICY: &str = "default-src 'none'; img-src 'self' blob:; style-src 'self'; script-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const FILTERS: &str = "\
SELECT folder, year, format, label, count(*)
FROM pictures
GROUP BY GROUPING SETS ((folder), (year), (format), (label))
HAVING num_nonnulls(folder, year, format, label) = 1
ORDER BY count(*) DESC, folder, year DESC, format, label LIMIT $1";

const MARK: &str = "\
INSERT INTO marks (picture, weight) VALUES ($1, $2)
ON CONFLICT (picture) DO UPDATE SET weight = CASE WHEN marks.weight = excluded.weight THEN 0 ELSE excluded.weight END
RETURNING weight";

const REMOVE: &str = "DELETE FROM pictures WHERE id = ANY ($1)";

/// A dropped picture is kept until a hundred others were dropped.
const ASK: &str = "\
WITH old AS (DELETE FROM asked WHERE id <= (SELECT max(id) - 100 FROM asked))
INSERT INTO asked (data) VALUES ($1) RETURNING id";

const REFUSED: &str = "SELECT folder, name, reason FROM refused ORDER BY folder, name LIMIT 200";

/// What handlers share.
#[derive(Clone)]
pub struct Gallery {
    pool: Pool,
    models: Arc<Vec<Model>>,
    progress: Arc<Progress>,
    uploads: Arc<Semaphore>,
}

type Answered = Result<Response, Problem>;

/// All addresses.
pub fn router(pool: Pool, models: Vec<Model>, progress: Arc<Progress>) -> Router {
    let gallery =
        Gallery { pool, models: Arc::new(models), progress, uploads: Arc::new(Semaphore::new(UPLOADS)) };
    Router::new()
        .route("/", get(front))
        .route("/results", get(results))
        .route("/compare", get(compare))
        .route("/picture/{id}", get(picture))
        .route("/asked", post(ask))
        .route("/asked/{id}", get(asked_image))
        .route("/asked/{id}/labels", get(asked_labels))
        .route("/thumbnail/{id}", get(thumbnail))
        .route("/original/{id}", get(original))
        .route("/mark", post(mark))
        .route("/remove", post(remove))
        .route("/duplicates", get(duplicates).post(find_duplicates))
        .route("/clusters", get(clusters).post(find_clusters))
        .route("/map", get(map).post(draw_map))
        .route("/map.json", get(places))
        .route("/upload", get(upload_page))
        .route("/pictures", post(upload))
        .route("/progress", get(progress_of))
        .route("/plan/search", get(plan_of_search))
        .route("/plan/compare", get(plan_of_compare))
        .route("/plan/picture/{id}", get(plan_of_picture))
        .route("/plan/{page}", get(plan_of_page))
        .route("/gallery.css", get(|| asset("text/css; charset=utf-8", include_str!("gallery.css"))))
        .route("/gallery.js", get(|| asset("text/javascript; charset=utf-8", include_str!("gallery.js"))))
        .route("/favicon.svg", get(|| asset("image/svg+xml", include_str!("favicon.svg"))))
        .fallback(|| async { Problem::of_request(StatusCode::NOT_FOUND, "there is no such page") })
        .layer(DefaultBodyLimit::max(UPLOAD_BYTES))
        .layer(middleware::from_fn(guard))
        .with_state(gallery)
}

/// Refuses what comes from another site, and tells the browser what a page may do.
async fn guard(request: Request, next: Next) -> Response {
    let (is_here, is_ours) = {
        let text = |name: HeaderName| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let (host, origin) = (text(header::HOST), text(header::ORIGIN));
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let is_ours = origin.is_empty() || origin.strip_prefix("http://") == Some(host);
        (["localhost", "127.0.0.1", "[::1]"].contains(&name), is_ours)
    };
    let mut response = if !is_here {
        Problem::of_request(StatusCode::MISDIRECTED_REQUEST, "the gallery answers on this machine only")
            .into_response()
    } else if request.method() == Method::POST && !is_ours {
        Problem::of_request(StatusCode::FORBIDDEN, "another site asked for this").into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

/// Whether the gallery's own script asks for a piece of a page.
fn wants_fragment(headers: &HeaderMap) -> bool {
    headers.contains_key("x-fragment")
}

fn document(title: &str, path: &str, content: &Markup) -> Response {
    Html(page::whole(title, path, content).into_string()).into_response()
}

impl Gallery {
    fn model(&self) -> &Model {
        &self.models[0]
    }
}

async fn front(State(gallery): State<Gallery>, Query(search): Query<Search>) -> Answered {
    let statement = Statement::new(FILTERS).with(OFFERED, Type::INT8);
    let answer = run(&gallery.pool, &statement).await?;
    // Each row has a value of one column, and how many pictures have it.
    let offered = |column: usize| -> Vec<(String, i64)> {
        let value = |row: &tokio_postgres::Row| match column {
            1 => row.get::<_, Option<i32>>(1).map(|year| year.to_string()),
            column => row.get(column),
        };
        answer.rows.iter().filter_map(|row| Some((value(row)?, row.get(4)))).collect()
    };
    let path = if !search.taste.is_empty() && search.q.is_empty() { "/?taste=1" } else { "/" };
    let has_picture = !(search.like.is_empty() && search.picture.is_empty());
    let select = |name: &str, all: &str, chosen: &str, values: &[(String, i64)]| {
        html! {
            select name=(name) aria-label=(name) {
                option value="" { (all) }
                @if !chosen.is_empty() && !values.iter().any(|(value, _)| value == chosen) { option value=(chosen) selected { (chosen) } }
                @for (value, count) in values {
                    option value=(value) selected[value == chosen] { (if value.is_empty() { "no folder" } else { value }) " (" (count) ")" }
                }
            }
        }
    };
    let content = html! {
        form id="search" method="get" action="/" role="search" {
            div class="ask" {
                @if has_picture {
                    span class="asked" {
                        @if !search.like.is_empty() {
                            img src={ "/thumbnail/" (search.like) } alt="the picture that is asked for";
                            input type="hidden" name="like" value=(search.like);
                        } @else {
                            img src={ "/asked/" (search.picture) } alt="the picture that is asked for";
                            input type="hidden" name="picture" value=(search.picture);
                        }
                        a class="without" href={ "/?" (Search { like: String::new(), picture: String::new(), ..search.clone() }.query_string()) }
                            aria-label="Ask without this picture" title="Ask without this picture" { "✕" }
                    }
                }
                input type="search" name="q" value=(search.q) maxlength="500" autofocus autocomplete="off" spellcheck="false"
                    placeholder=(if has_picture { "and words, such as “in the snow”" } else { "What do you look for? Type words, or drop a picture" })
                    aria-label="Words to look for";
                label class="button file" title="Search by a picture: choose, drop or paste one" {
                    "Picture" input type="file" accept="image/*" id="by-picture";
                }
                button class="primary" { "Search" }
            }
            div class="filters" {
                (select("folder", "All folders", &search.folder, &offered(0)))
                (select("year", "All years", &search.year, &offered(1)))
                (select("format", "All formats", &search.format, &offered(2)))
                input name="label" list="known-labels" value=(search.label) placeholder="Label" aria-label="Label" size="12";
                datalist id="known-labels" { @for (label, _) in offered(3) { option value=(label) {} } }
                @if gallery.models.len() > 1 {
                    select name="model" aria-label="Model" {
                        @for (place, model) in gallery.models.iter().enumerate() {
                            option value=(if place == 0 { String::new() } else { place.to_string() }) selected[search.model == place.to_string()] { (model.name) }
                        }
                    }
                    a href={ "/compare?" (query_string_of(&[("q", &search.q)])) } { "side by side" }
                }
                @if !search.cluster.is_empty() { input type="hidden" name="cluster" value=(search.cluster); }
                label class="slide" { "similar" input type="range" name="diverse" min="0" max="10" value=(if search.diverse.is_empty() { "0" } else { &search.diverse }) aria-label="From similar to diverse"; "diverse" }
                @if has_picture {
                    label class="slide" { "picture" input type="range" name="weight" min="0" max="100" value=(if search.weight.is_empty() { "50" } else { &search.weight }) aria-label="Weight of picture and words"; "words" }
                }
                label class="check" { input type="checkbox" name="taste" value="1" checked[!search.taste.is_empty()]; "my taste" }
            }
        }
        @if !search.picture.is_empty() {
            div class="fragment" data-source={ "/asked/" (search.picture) "/labels" } {}
        }
        div id="results" class="fragment" data-source={ "/results?" (search.query_string()) } aria-live="polite" {
            noscript { a href={ "/results?" (search.query_string()) } { "Show the results" } }
        }
        (page::statement(&statement, answer.elapsed, "/plan/filters"))
    };
    Ok(document("Search", path, &content))
}

#[derive(Deserialize)]
struct Words {
    #[serde(default)]
    q: String,
}

async fn compare(State(gallery): State<Gallery>, Query(Words { q }): Query<Words>) -> Answered {
    let statement = search::compared(&q, &gallery.models)?;
    let answer = run(&gallery.pool, &statement).await?;
    Ok(document("Models", "/compare", &page::compared(&q, &gallery.models, &statement, &answer)))
}

async fn results(
    State(gallery): State<Gallery>,
    headers: HeaderMap,
    Query(search): Query<Search>,
) -> Answered {
    let shown = async {
        let statement = search.statement(&gallery.models)?;
        let answer = run(&gallery.pool, &statement).await?;
        Ok(page::results(&search, &statement, &answer))
    };
    respond(&headers, "Results", shown.await)
}

/// A piece of a page for the script, or a page with it. The script shows a problem in the place of the piece.
fn respond(headers: &HeaderMap, title: &str, shown: Result<Markup, Problem>) -> Answered {
    match shown {
        Ok(markup) if wants_fragment(headers) => Ok(Html(markup.into_string()).into_response()),
        Ok(markup) => Ok(document(title, "", &markup)),
        Err(problem) if wants_fragment(headers) => {
            Ok((problem.status, Html(problem.as_markup().into_string())).into_response())
        }
        Err(problem) => Err(problem),
    }
}

async fn picture(
    State(gallery): State<Gallery>,
    Path(id): Path<i64>,
    Query(asked): Query<Asked>,
) -> Answered {
    let statement = library::picture_statement(id, &asked, gallery.model())?;
    let answer = run(&gallery.pool, &statement).await?;
    let content = library::picture(id, &asked, &statement, &answer)?;
    Ok(document("Picture", "", &content))
}

/// Keeps a picture to search by; the search itself decodes it.
async fn ask(State(gallery): State<Gallery>, data: Bytes) -> Response {
    let statement = Statement::new(ASK).with(data.to_vec(), Type::BYTEA);
    match run(&gallery.pool, &statement).await {
        Ok(answer) => Json(json!({ "id": answer.rows[0].get::<_, i64>(0) })).into_response(),
        Err(problem) => (problem.status, Json(problem.as_json())).into_response(),
    }
}

async fn asked_labels(
    State(gallery): State<Gallery>,
    headers: HeaderMap,
    Path(id): Path<i64>,
    Query(asked): Query<Asked>,
) -> Answered {
    let shown = async {
        let statement = library::asked_statement(id, &asked, gallery.model())?;
        let answer = run(&gallery.pool, &statement).await?;
        Ok(html! {
            details class="shown-asked" {
                summary { "What is in it: " @for row in answer.rows.iter().take(3) { b { (row.get::<_, &str>("shown")) } (format!(" {:.0} %  ", 100.0 * row.get::<_, f32>("score"))) } }
                (page::statement(&statement, answer.elapsed, ""))
            }
        })
    };
    respond(&headers, "Labels", shown.await)
}

async fn asked_image(State(gallery): State<Gallery>, Path(id): Path<i64>) -> Answered {
    let statement = Statement::new("SELECT data, (image_info(data)).format FROM asked WHERE id = $1")
        .with(id, Type::INT8);
    image(&gallery.pool, &statement).await
}

async fn thumbnail(State(gallery): State<Gallery>, Path(id): Path<i64>) -> Answered {
    let sql = "SELECT coalesce(thumbnail, data), CASE WHEN thumbnail IS NULL THEN format ELSE 'jpeg' END FROM pictures WHERE id = $1";
    image(&gallery.pool, &Statement::new(sql).with(id, Type::INT8)).await
}

async fn original(State(gallery): State<Gallery>, Path(id): Path<i64>) -> Answered {
    image(
        &gallery.pool,
        &Statement::new("SELECT data, format FROM pictures WHERE id = $1").with(id, Type::INT8),
    )
    .await
}

/// An image, under a type that no browser takes for a page.
async fn image(pool: &Pool, statement: &Statement) -> Answered {
    let answer = run(pool, statement).await?;
    let row = answer.rows.into_iter().next();
    let row = row.ok_or_else(|| Problem::of_request(StatusCode::NOT_FOUND, "there is no such picture"))?;
    let kind = match row.get::<_, Option<&str>>(1) {
        Some("jpeg") => "image/jpeg",
        Some("png") => "image/png",
        Some("gif") => "image/gif",
        Some("webp") => "image/webp",
        Some("bmp") => "image/bmp",
        Some("tiff") => "image/tiff",
        _ => "application/octet-stream",
    };
    let headers =
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "private, max-age=31536000, immutable")];
    Ok((headers, Body::from(row.get::<_, Vec<u8>>(0))).into_response())
}

#[derive(Deserialize)]
struct Mark {
    picture: i64,
    weight: i32,
}

async fn mark(
    State(gallery): State<Gallery>,
    headers: HeaderMap,
    Form(Mark { picture, weight }): Form<Mark>,
) -> Answered {
    let statement = Statement::new(MARK).with(picture, Type::INT8).with(weight.signum(), Type::INT4);
    let answer = run(&gallery.pool, &statement).await?;
    if wants_fragment(&headers) {
        return Ok(Html(page::marks(picture, answer.rows.first().map(|row| row.get(0))).into_string())
            .into_response());
    }
    Ok(back(&headers))
}

#[derive(Deserialize)]
struct Remove {
    pictures: String,
}

async fn remove(
    State(gallery): State<Gallery>,
    headers: HeaderMap,
    Form(Remove { pictures }): Form<Remove>,
) -> Answered {
    let ids: Result<Vec<i64>, _> = pictures.split(',').map(str::parse).collect();
    let ids =
        ids.map_err(|_| Problem::of_request(StatusCode::BAD_REQUEST, "\"pictures\" must be numbers"))?;
    run(&gallery.pool, &Statement::new(REMOVE).with(ids, Type::INT8_ARRAY)).await?;
    if wants_fragment(&headers) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(back(&headers))
}

/// To the page that the form was on, if that is one of ours; from a picture's page to the front, as it may be gone.
fn back(headers: &HeaderMap) -> Response {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let ours = format!("http://{}/", text(header::HOST));
    let path = text(header::REFERER)
        .strip_prefix(&ours)
        .filter(|path| !path.starts_with(['/', '\\']) && !path.starts_with("picture/"));
    Redirect::to(&format!("/{}", path.unwrap_or_default())).into_response()
}

async fn duplicates(State(gallery): State<Gallery>, Query(asked): Query<Asked>) -> Answered {
    let statement = library::copies_statement(&asked)?;
    let answer = run(&gallery.pool, &statement).await?;
    Ok(document("Duplicates", "/duplicates", &library::copies(&asked, &statement, &answer)))
}

async fn find_duplicates(State(gallery): State<Gallery>, Form(asked): Form<Asked>) -> Answered {
    run(&gallery.pool, &library::find_copies(&asked)?).await?;
    Ok(Redirect::to("/duplicates").into_response())
}

async fn clusters(State(gallery): State<Gallery>, Query(asked): Query<Asked>) -> Answered {
    let statement = library::clusters_statement(&asked, gallery.model())?;
    let answer = run(&gallery.pool, &statement).await?;
    Ok(document("Clusters", "/clusters", &library::clusters(&asked, &statement, &answer)))
}

async fn find_clusters(State(gallery): State<Gallery>, Form(asked): Form<Asked>) -> Answered {
    run(&gallery.pool, &library::find_clusters(&asked)?).await?;
    Ok(Redirect::to("/clusters").into_response())
}

async fn map(State(gallery): State<Gallery>) -> Answered {
    let statement = library::newer_statement("map");
    let answer = run(&gallery.pool, &statement).await?;
    Ok(document("Map", "/map", &library::map(&statement, &answer)))
}

async fn draw_map(State(gallery): State<Gallery>) -> Answered {
    run(&gallery.pool, &library::draw_map(gallery.model())).await?;
    Ok(Redirect::to("/map").into_response())
}

async fn places(State(gallery): State<Gallery>) -> Answered {
    let answer = run(&gallery.pool, &library::map_statement()).await?;
    let text: Option<String> = answer.rows[0].get(0);
    Ok(([(header::CONTENT_TYPE, "application/json")], text.unwrap_or_else(|| "[]".to_owned()))
        .into_response())
}

async fn upload_page(State(gallery): State<Gallery>) -> Answered {
    let statement = Statement::new(REFUSED);
    let answer = run(&gallery.pool, &statement).await?;
    let content = html! {
        h1 { "Add pictures" }
        p class="lead" { "They are copied into the database, which embeds them. Nothing leaves this machine." }
        div id="drop" class="drop" {
            p { "Drop files or a folder here, or" }
            label class="button file" { "choose files" input type="file" id="files" multiple accept="image/*"; }
            label class="button file" { "choose a folder" input type="file" id="folder" webkitdirectory multiple; }
            progress id="upload-progress" max="1" value="0" hidden {}
            p id="upload-status" role="status" {}
        }
        ul id="uploaded" {}
        @if !answer.rows.is_empty() {
            h2 { "Refused" }
            table class="refused" {
                @for row in &answer.rows {
                    tr { th scope="row" { (row.get::<_, &str>(0)) @if !row.get::<_, &str>(0).is_empty() { "/" } (row.get::<_, &str>(1)) } td { (row.get::<_, &str>(2)) } }
                }
            }
        }
        (page::statement(&statement, answer.elapsed, "/plan/refused"))
    };
    Ok(document("Add pictures", "/upload", &content))
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Upload {
    folder: String,
    name: String,
    year: String,
}

async fn upload(State(gallery): State<Gallery>, Query(upload): Query<Upload>, data: Bytes) -> Response {
    let _place = gallery.uploads.acquire().await;
    let picture = NewPicture {
        folder: shortened(&upload.folder, NAME_CHARACTERS),
        name: shortened(&upload.name, NAME_CHARACTERS),
        label: None,
        year: upload.year.parse().ok(),
        data: data.to_vec(),
    };
    match import::store(&gallery.pool, picture).await {
        Ok(id) => Json(json!({ "id": id })).into_response(),
        Err(problem) => (problem.status, Json(problem.as_json())).into_response(),
    }
}

async fn progress_of(State(gallery): State<Gallery>) -> Json<serde_json::Value> {
    let of = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::Relaxed);
    let progress = &gallery.progress;
    Json(
        json!({ "total": of(&progress.total), "done": of(&progress.done), "refused": of(&progress.refused) }),
    )
}

async fn plan_of_search(
    State(gallery): State<Gallery>,
    headers: HeaderMap,
    Query(search): Query<Search>,
) -> Answered {
    explained(&gallery, &headers, search.statement(&gallery.models)).await
}

async fn plan_of_compare(
    State(gallery): State<Gallery>,
    headers: HeaderMap,
    Query(Words { q }): Query<Words>,
) -> Answered {
    explained(&gallery, &headers, search::compared(&q, &gallery.models)).await
}

async fn plan_of_picture(
    State(gallery): State<Gallery>,
    headers: HeaderMap,
    Path(id): Path<i64>,
    Query(asked): Query<Asked>,
) -> Answered {
    explained(&gallery, &headers, library::picture_statement(id, &asked, gallery.model())).await
}

async fn plan_of_page(
    State(gallery): State<Gallery>,
    headers: HeaderMap,
    Path(page): Path<String>,
    Query(asked): Query<Asked>,
) -> Answered {
    let statement = match page.as_str() {
        "filters" => Ok(Statement::new(FILTERS).with(OFFERED, Type::INT8)),
        "duplicates" => library::copies_statement(&asked),
        "clusters" => library::clusters_statement(&asked, gallery.model()),
        "map" => Ok(library::map_statement()),
        "refused" => Ok(Statement::new(REFUSED)),
        _ => Err(Problem::of_request(StatusCode::NOT_FOUND, "there is no such page")),
    };
    explained(&gallery, &headers, statement).await
}

/// Runs a statement under EXPLAIN. Only statements that read have an address for that.
async fn explained(
    gallery: &Gallery,
    headers: &HeaderMap,
    statement: Result<Statement, Problem>,
) -> Answered {
    let shown = async {
        let statement = statement?.explained();
        let answer = run(&gallery.pool, &statement).await?;
        Ok(html! { pre class="plan" { (plan(&answer)) } })
    };
    respond(headers, "Plan", shown.await)
}

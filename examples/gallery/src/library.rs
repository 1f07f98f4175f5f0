//! Duplicates, clusters, the map, and one picture with what it shows.
//!
//! What looks at the whole library is computed by one statement into a table, when pictures came or somebody asks, and read from there.

use axum::http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::page::{self, alternative, thumbnail};
use crate::problem::Problem;
use crate::schema::Model;
use crate::search::{number, query_string_of};
use crate::statement::{Answer, Statement};

/// Pictures of a group that differ less than this are copies, unless somebody says otherwise.
const WITHIN: f64 = 0.06;
const MIN_SIZE: i32 = 4;
const LABELS: usize = 200;
const LABEL_CHARACTERS: usize = 100;

/// What a picture may be, unless somebody names other labels.
const USUAL_LABELS: &str = "animal, cat, dog, horse, cow, bird, fish, butterfly, insect, bear, rabbit, fruit, vegetable, cake, cup of coffee, flower, \
    tree, mushroom, car, truck, motorcycle, bicycle, train, airplane, ship, rocket, planet, moon, house, building, flag, road sign, guitar, drum, \
    ball, clothing, hat, shoe, shirt, tool, knife, hammer, chair, clock, coins, candle, pumpkin, person, beach, mountain, forest, temple, galaxy, printed page";

const PICTURE: &str = "\
SELECT id, name, folder, p.label, year, format, width, height, octet_length(data) AS bytes, left(digest, 12) AS version,
    (SELECT weight FROM marks WHERE picture = id) AS mark, shown.label AS shown, shown.score
FROM pictures AS p
CROSS JOIN LATERAL (SELECT * FROM classify_embedding(COLUMN, $2, MODEL) ORDER BY score DESC LIMIT 8) AS shown
WHERE id = $1
ORDER BY shown.score DESC";

const ASKED: &str = "SELECT label AS shown, score FROM classify_image((SELECT data FROM asked WHERE id = $1), $2, MODEL) ORDER BY score DESC LIMIT 8";

const FIND_COPIES: &str = "\
INSERT INTO copies (picture, number)
SELECT p.id, g.number
FROM pictures AS p LEFT JOIN ann_groups('pictures_embedding', $1) AS g ON g.tid = p.ctid
ON CONFLICT (picture) DO UPDATE SET number = excluded.number";

const COPIES: &str = "\
SELECT * FROM (
    SELECT number, id, name, folder, label, width, height, octet_length(data) AS bytes, left(digest, 12) AS version,
        count(*) OVER (PARTITION BY number) AS members,
        row_number() OVER (PARTITION BY number ORDER BY width::bigint * height DESC, octet_length(data) DESC, id) AS place
    FROM copies JOIN pictures ON id = picture
    WHERE number > $1
) AS groups
WHERE members > 1 ORDER BY number, place LIMIT 200";

const FIND_CLUSTERS: &str = "\
INSERT INTO clusters (picture, cluster)
SELECT p.id, c.cluster
FROM ann_clusters('pictures_embedding', $1) AS c JOIN pictures AS p ON p.ctid = c.tid
ON CONFLICT (picture) DO UPDATE SET cluster = excluded.cluster";

const CLUSTERS: &str = "\
WITH means AS (
    SELECT cluster, count(*) AS size, avg(COLUMN) AS mean
    FROM clusters JOIN pictures ON id = picture WHERE cluster IS NOT NULL
    GROUP BY cluster ORDER BY size DESC, cluster LIMIT 60
)
SELECT means.cluster, size, named.label AS named, p.*
FROM means
CROSS JOIN LATERAL (SELECT label FROM classify_embedding(mean, $1, MODEL) ORDER BY score DESC LIMIT 1) AS named
CROSS JOIN LATERAL (
    SELECT id, name, label, width, height, left(digest, 12) AS version
    FROM clusters AS c JOIN pictures ON id = c.picture WHERE c.cluster = means.cluster
    ORDER BY COLUMN <=> mean LIMIT 9
) AS p
ORDER BY size DESC, means.cluster";

const DRAW_MAP: &str = "\
INSERT INTO map (picture, x, y)
SELECT id, place[0], place[1] FROM (SELECT id, embedding_map(COLUMN) OVER () AS place FROM pictures) AS m
ON CONFLICT (picture) DO UPDATE SET x = excluded.x, y = excluded.y";

const MAP: &str = "\
SELECT json_agg(json_build_array(id, round(x::numeric, 4), round(y::numeric, 4), coalesce(cluster, 0), left(digest, 12),
        coalesce(label, name), width, height) ORDER BY id)::text
FROM map JOIN pictures ON id = map.picture LEFT JOIN clusters ON clusters.picture = id";

/// Pictures that came after the pass over the library.
const NEWER: &str = "SELECT count(*) FROM pictures WHERE NOT EXISTS (SELECT FROM TABLE WHERE picture = id)";

/// What these pages are asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Labels, separated by commas.
    pub labels: String,
    /// A distance.
    pub within: String,
    /// Fewer pictures are no cluster.
    pub min_size: String,
    /// The last group of the page before.
    pub after: String,
}

impl Asked {
    /// The labels to choose from: those given, or the usual.
    ///
    /// # Errors
    /// If there are too many, or one is too long.
    pub fn labels(&self) -> Result<Vec<String>, Problem> {
        let given = if self.labels.trim().is_empty() { USUAL_LABELS } else { &self.labels };
        let mut labels: Vec<String> = Vec::new();
        for label in given.split(',').map(|label| label.split_whitespace().collect::<Vec<_>>().join(" ")) {
            if !label.is_empty() && !labels.contains(&label) {
                labels.push(label);
            }
        }
        if labels.is_empty() {
            return Err(bad("name a label at least"));
        }
        if labels.len() > LABELS || labels.iter().any(|label| label.chars().count() > LABEL_CHARACTERS) {
            return Err(bad(&format!("give {LABELS} labels of {LABEL_CHARACTERS} characters at most")));
        }
        Ok(labels)
    }

    fn query_string(&self) -> String {
        let fields = [("labels", self.labels.as_str()), ("after", self.after.as_str())];
        query_string_of(&fields.into_iter().filter(|(_, value)| !value.is_empty()).collect::<Vec<_>>())
    }
}

fn of_model(sql: &str, model: &Model) -> Statement {
    Statement::new(&sql.replace("COLUMN", &model.column).replace("MODEL", &model.literal()))
}

fn bad(message: &str) -> Problem {
    Problem::of_request(StatusCode::BAD_REQUEST, message)
}

/// One picture and what it shows.
pub fn picture_statement(id: i64, asked: &Asked, model: &Model) -> Result<Statement, Problem> {
    Ok(of_model(PICTURE, model).with(id, Type::INT8).with(asked.labels()?, Type::TEXT_ARRAY))
}

/// What a dropped picture shows.
pub fn asked_statement(id: i64, asked: &Asked, model: &Model) -> Result<Statement, Problem> {
    Ok(of_model(ASKED, model).with(id, Type::INT8).with(asked.labels()?, Type::TEXT_ARRAY))
}

/// Labels and their scores, with a form for labels of one's own.
pub fn shown(answer: &Answer, asked: &Asked) -> Markup {
    html! {
        section class="shown" {
            h2 { "What is in this picture" }
            table {
                @for row in &answer.rows {
                    @let (label, score): (String, f32) = (row.get("shown"), row.get("score"));
                    tr {
                        th scope="row" { (label) }
                        td { meter min="0" max="1" value=(score) { } }
                        td { (format!("{:.0} %", 100.0 * score)) }
                    }
                }
            }
            form method="get" class="labels" {
                label for="labels" { "Labels of your own, separated by commas" }
                input id="labels" name="labels" value=(asked.labels) placeholder="cat, dog, a red car" maxlength="4000";
                button { "Ask" }
            }
        }
    }
}

/// The page of a picture.
///
/// # Errors
/// If there is no such picture.
pub fn picture(id: i64, asked: &Asked, statement: &Statement, answer: &Answer) -> Result<Markup, Problem> {
    let row = answer.rows.first();
    let row = row.ok_or_else(|| Problem::of_request(StatusCode::NOT_FOUND, "there is no such picture"))?;
    let (name, folder): (String, String) = (row.get("name"), row.get("folder"));
    let (label, year): (Option<String>, Option<i32>) = (row.get("label"), row.get("year"));
    let (format, width, height, bytes): (String, i32, i32, i32) =
        (row.get("format"), row.get("width"), row.get("height"), row.get("bytes"));
    let version: String = row.get("version");
    Ok(html! {
        article class="one" data-id=(id) {
            a class="whole" href={ "/original/" (id) "?v=" (version) } {
                img src={ "/original/" (id) "?v=" (version) } alt=(alternative(row)) width=(width) height=(height);
            }
            div {
                h1 { (label.as_deref().unwrap_or(&name)) }
                p class="soft" {
                    (name) br;
                    a href={ "/?" (query_string_of(&[("folder", &folder)])) } { (if folder.is_empty() { "no folder" } else { &folder }) }
                    " · " (width) " × " (height) " · " (format) " · " (kilobytes(bytes))
                    @if let Some(year) = year { " · " a href={ "/?year=" (year) } { (year) } }
                }
                (page::marks(id, row.get("mark")))
                (shown(answer, asked))
                (page::statement(statement, answer.elapsed, &format!("/plan/picture/{id}?{}", asked.query_string())))
                form method="post" action="/remove" class="remove" data-confirm="Remove this picture from the gallery?" {
                    input type="hidden" name="pictures" value=(id);
                    button class="quiet" { "Remove from the gallery" }
                }
            }
        }
        h2 { "More like this" }
        div class="fragment" data-source={ "/results?like=" (id) } {
            a class="button" href={ "/?like=" (id) } { "Show more like this" }
        }
    })
}

/// Finds copies in the whole library.
pub fn find_copies(asked: &Asked) -> Result<Statement, Problem> {
    let within = number::<f64>(&asked.within, "within")?.unwrap_or(WITHIN);
    if !(0.0..=0.5).contains(&within) {
        return Err(bad("the distance must be between 0 and 0.5"));
    }
    Ok(Statement::new(FIND_COPIES).with(within, Type::FLOAT8))
}

/// The groups that were found.
pub fn copies_statement(asked: &Asked) -> Result<Statement, Problem> {
    Ok(Statement::new(COPIES).with(number::<i32>(&asked.after, "after")?.unwrap_or(0), Type::INT4))
}

/// The groups, to review.
pub fn copies(asked: &Asked, statement: &Statement, answer: &Answer) -> Markup {
    let number = |row: &Row| row.get::<_, i32>("number");
    // The last group may continue on the next page.
    let is_full = answer.rows.len() == 200;
    let mut groups: Vec<&[Row]> = answer.rows.chunk_by(|a, b| number(a) == number(b)).collect();
    if is_full && groups.len() > 1 {
        groups.pop();
    }
    let next = groups.last().filter(|_| is_full).map(|group| number(&group[0]));
    html! {
        h1 { "Duplicates" }
        p class="lead" { "Pictures that are nearly the same, in groups. The largest of each group comes first. Removing a picture here removes it from the gallery, not from your disk." }
        form method="post" action="/duplicates" class="pass" {
            label { "As near as " input type="range" name="within" min="0.005" max="0.25" step="0.005" value=(WITHIN) { } output { (WITHIN) } }
            button { "Find duplicates" }
        }
        (page::statement(statement, answer.elapsed, &format!("/plan/duplicates?{}", asked.query_string())))
        @if groups.is_empty() { p class="empty" { "No duplicates were found." } }
        @for group in groups {
            section class="group" {
                div class="cards" {
                    @for row in group {
                        @let (id, bytes): (i64, i32) = (row.get("id"), row.get("bytes"));
                        @let (width, height): (i32, i32) = (row.get("width"), row.get("height"));
                        figure class="card" {
                            a class="picture" href={ "/picture/" (id) } {
                                img src=(thumbnail(row)) alt=(alternative(row)) width=(width) height=(height) loading="lazy";
                            }
                            figcaption {
                                span class="name" title=(row.get::<_, &str>("name")) { (row.get::<_, &str>("name")) }
                                span class="similarity" { (width) "×" (height) ", " (kilobytes(bytes)) }
                            }
                            form method="post" action="/remove" class="remove" {
                                input type="hidden" name="pictures" value=(id);
                                button class="quiet" { "Remove" }
                            }
                        }
                    }
                }
                form method="post" action="/remove" class="remove all" {
                    @let others: Vec<String> = group.iter().skip(1).map(|row| row.get::<_, i64>("id").to_string()).collect();
                    input type="hidden" name="pictures" value=(others.join(","));
                    button { "Keep the largest, remove " (others.len()) @if others.len() == 1 { " other" } @else { " others" } }
                }
            }
        }
        @if let Some(next) = next { a class="button" href={ "/duplicates?after=" (next) } { "Next groups" } }
    }
}

/// Finds clusters in the whole library.
pub fn find_clusters(asked: &Asked) -> Result<Statement, Problem> {
    let min_size = number::<i32>(&asked.min_size, "min_size")?.unwrap_or(MIN_SIZE);
    if !(2..=1000).contains(&min_size) {
        return Err(bad("a cluster has 2 pictures at least, and 1000 are many"));
    }
    Ok(Statement::new(FIND_CLUSTERS).with(min_size, Type::INT4))
}

/// The clusters that were found, each with a name and its most central pictures.
pub fn clusters_statement(asked: &Asked, model: &Model) -> Result<Statement, Problem> {
    Ok(of_model(CLUSTERS, model).with(asked.labels()?, Type::TEXT_ARRAY))
}

/// The clusters.
pub fn clusters(asked: &Asked, statement: &Statement, answer: &Answer) -> Markup {
    let number = |row: &Row| row.get::<_, i32>("cluster");
    html! {
        h1 { "Clusters" }
        p class="lead" { "Where pictures lie denser than around them. The name is the label that fits the mean of the cluster best; name labels of your own." }
        form method="post" action="/clusters" class="pass" {
            label { "At least " input type="number" name="min_size" min="2" max="1000" value=(MIN_SIZE); " pictures" }
            button { "Find clusters" }
        }
        form method="get" class="labels" {
            label for="labels" { "Labels to name them by" }
            input id="labels" name="labels" value=(asked.labels) placeholder="animals, food, people, places" maxlength="4000";
            button { "Name" }
        }
        (page::statement(statement, answer.elapsed, &format!("/plan/clusters?{}", asked.query_string())))
        @if answer.rows.is_empty() { p class="empty" { "No clusters were found yet." } }
        @for cluster in answer.rows.chunk_by(|a, b| number(a) == number(b)) {
            @let (named, size): (String, i64) = (cluster[0].get("named"), cluster[0].get("size"));
            section class="cluster" {
                h2 { a href={ "/?cluster=" (number(&cluster[0])) } { (named) } " " span class="soft" { (size) " pictures" } }
                div class="strip" {
                    @for row in cluster {
                        a href={ "/picture/" (row.get::<_, i64>("id")) } {
                            img src=(thumbnail(row)) alt=(alternative(row)) loading="lazy"
                                width=(row.get::<_, i32>("width")) height=(row.get::<_, i32>("height"));
                        }
                    }
                }
            }
        }
    }
}

/// Lays out the whole library again.
pub fn draw_map(model: &Model) -> Statement {
    of_model(DRAW_MAP, model)
}

/// Places, clusters, labels and sizes, as one JSON text.
pub fn map_statement() -> Statement {
    Statement::new(MAP)
}

/// The page of the map. Its statement is how many pictures it lacks; the script fetches places by [`map_statement`].
pub fn map(statement: &Statement, answer: &Answer) -> Markup {
    let newer: i64 = answer.rows.first().map_or(0, |row| row.get(0));
    html! {
        h1 { "Map" }
        p class="lead" { "Pictures that are alike lie near each other. Scroll or pinch to zoom, drag to move, click for the picture; or the arrow keys, + and −." }
        div class="map" {
            canvas id="map" tabindex="0" role="application" aria-label="Map of all pictures. The page of clusters has the same as a list." {}
            p id="at" role="status" {}
        }
        div class="pass" {
            form method="post" action="/map" { button { "Draw it again" } }
            @if newer > 0 { span class="soft" { (newer) " pictures are not on it yet." } }
        }
        (page::statement(&map_statement(), answer.elapsed, "/plan/map"))
        (page::statement(statement, answer.elapsed, ""))
    }
}

/// How many pictures came after a pass.
pub fn newer_statement(table: &str) -> Statement {
    Statement::new(&NEWER.replace("TABLE", table))
}

fn kilobytes(bytes: i32) -> String {
    if bytes < 10_000 { format!("{bytes} bytes") } else { format!("{} kB", bytes / 1000) }
}

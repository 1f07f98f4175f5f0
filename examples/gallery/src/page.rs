//! Pieces of HTML that all pages share. maud escapes every value that it writes.

use std::time::Duration;

use maud::{DOCTYPE, Markup, html};
use tokio_postgres::Row;

use crate::schema::Model;
use crate::search::{PAGE, Search, query_string_of};
use crate::statement::{Answer, Statement};

const NAVIGATION: [(&str, &str); 6] = [
    ("/", "Search"),
    ("/?taste=1", "For you"),
    ("/map", "Map"),
    ("/clusters", "Clusters"),
    ("/duplicates", "Duplicates"),
    ("/upload", "Add pictures"),
];

/// A whole document.
pub fn whole(title: &str, path: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · imgvec gallery" }
                link rel="icon" href="/favicon.svg";
                link rel="stylesheet" href="/gallery.css";
                script src="/gallery.js" defer {}
            }
            body {
                a class="skip" href="#content" { "Skip to the content" }
                header {
                    a class="brand" href="/" { "imgvec" span { "gallery" } }
                    nav aria-label="Pages" {
                        @for (address, name) in NAVIGATION {
                            a href=(address) aria-current=[(address == path).then_some("page")] { (name) }
                        }
                    }
                    p id="importing" role="status" hidden {}
                }
                main id="content" { (content) }
                footer {
                    "Every request is one SQL statement; PostgreSQL embeds, searches and groups the pictures itself. "
                    kbd { "/" } " search · " kbd { "L" } " like · " kbd { "D" } " dislike · " kbd { "M" } " more like this · "
                    kbd { "←" } " " kbd { "→" } " move"
                }
            }
        }
    }
}

/// The statement of a request with its time, and its plan on a click. `plan` is the address of the plan.
pub fn statement(statement: &Statement, elapsed: Duration, plan: &str) -> Markup {
    html! {
        details class="sql" {
            summary { "One statement, " (milliseconds(elapsed)) }
            pre { code { (statement.sql) } }
            @let values = statement.values();
            @if !values.is_empty() {
                p class="values" {
                    @for (index, value) in values.iter().enumerate() { span { b { "$" (index + 1) } " = " (value) } " " }
                }
            }
            @if !plan.is_empty() {
                a class="button plan" href=(plan) { "Show its plan" }
                pre class="plan" hidden {}
            }
        }
    }
}

fn milliseconds(time: Duration) -> String {
    let milliseconds = 1000.0 * time.as_secs_f64();
    if milliseconds < 10.0 { format!("{milliseconds:.1} ms") } else { format!("{milliseconds:.0} ms") }
}

/// A page of cards, and where the next one is.
pub fn results(search: &Search, asked: &Statement, answer: &Answer) -> Markup {
    let next = answer.rows.last().filter(|_| answer.rows.len() == PAGE).map(|row| {
        let (id, distance): (i64, Option<f64>) = (row.get("id"), optional(row, "distance"));
        let place: Option<i64> = optional(row, "place");
        search.from(
            place.map_or_else(|| format!("{},{id}", distance.unwrap_or(0.0)), |place| place.to_string()),
        )
    });
    let plan = format!("/plan/search?{}", search.query_string());
    html! {
        (statement(asked, answer.elapsed, &plan))
        @if answer.rows.is_empty() && search.after.is_empty() {
            p class="empty" {
                @if search.taste.is_empty() { "No picture fits." }
                @else { "Mark some pictures first: like them with ♥, and what is like them appears here." }
            }
        }
        div class="cards" { @for row in &answer.rows { (card(row)) } }
        @if let Some(next) = next {
            a class="button more" href={ "/results?" (next.query_string()) } { "More" }
        }
    }
}

/// A value that only some statements return.
fn optional<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: &str) -> Option<T> {
    row.try_get::<_, Option<T>>(column).ok().flatten()
}

/// What several models find for the same words, a row for each.
pub fn compared(words: &str, models: &[Model], asked: &Statement, answer: &Answer) -> Markup {
    let of = |place: i32| answer.rows.iter().filter(move |row| row.get::<_, i32>("model") == place);
    html! {
        h1 { "Models side by side" }
        form method="get" class="labels" {
            input type="search" name="q" value=(words) maxlength="500" aria-label="Words to look for" placeholder="What do you look for?" autofocus;
            button class="primary" { "Compare" }
        }
        (statement(asked, answer.elapsed, &format!("/plan/compare?{}", query_string_of(&[("q", words)]))))
        @for (place, model) in (0..).zip(models) {
            section class="cluster" {
                h2 { (model.name) }
                div class="strip" {
                    @for row in of(place) {
                        a href={ "/picture/" (row.get::<_, i64>("id")) } title=(alternative(row)) {
                            img src=(thumbnail(row)) alt=(alternative(row)) loading="lazy"
                                width=(row.get::<_, i32>("width")) height=(row.get::<_, i32>("height"));
                        }
                    }
                }
            }
        }
    }
}

/// What the picture shows, for those who do not see it.
pub fn alternative(row: &Row) -> String {
    let (label, name): (Option<String>, String) = (row.get("label"), row.get("name"));
    label.unwrap_or(name)
}

/// The address of a picture's thumbnail. It changes with the picture, so that it can be kept for long.
pub fn thumbnail(row: &Row) -> String {
    let (id, version): (i64, String) = (row.get("id"), row.get("version"));
    format!("/thumbnail/{id}?v={version}")
}

/// A picture of a result.
pub fn card(row: &Row) -> Markup {
    let (id, name): (i64, String) = (row.get("id"), row.get("name"));
    let (distance, mark): (Option<f64>, Option<i32>) = (optional(row, "distance"), row.get("mark"));
    let (width, height): (i32, i32) = (row.get("width"), row.get("height"));
    let text = alternative(row);
    // A photograph fills its card; a drawing keeps its edges.
    let is_photograph = row.get::<_, &str>("format") == "JPEG" && width.min(height) > 150;
    html! {
        figure class={ "card" @if is_photograph { " photograph" } } data-id=(id) {
            a class="picture" href={ "/picture/" (id) } {
                img src=(thumbnail(row)) alt=(text) width=(width) height=(height) loading="lazy" decoding="async";
            }
            figcaption {
                span class="name" title=(name) { (text) }
                @if let Some(distance) = distance { span class="similarity" title="cosine similarity" { (format!("{:.2}", 1.0 - distance)) } }
            }
            (marks(id, mark))
        }
    }
}

/// Like, dislike, and more like this.
pub fn marks(id: i64, mark: Option<i32>) -> Markup {
    let is = |weight: i32| mark.is_some_and(|mark| mark.signum() == weight).to_string();
    html! {
        form class="marks" method="post" action="/mark" {
            input type="hidden" name="picture" value=(id);
            button name="weight" value="1" class="like" aria-pressed=(is(1)) aria-label="Like" title="Like (L)" { "♥" }
            button name="weight" value="-1" class="dislike" aria-pressed=(is(-1)) aria-label="Dislike" title="Dislike (D)" { "✕" }
            a class="likewise" href={ "/?like=" (id) } aria-label="More like this" title="More like this (M)" { "≈" }
        }
    }
}

//! The page that shows what the demo found: one HTML file with everything in it.

use std::fmt::Write as _;
use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder as _, ImageReader, Rgb, RgbImage};

use crate::pictures::on_white;

/// Longest edge of a thumbnail in pixels: twice what the page shows, for dense screens.
const THUMBNAIL_PIXELS: u32 = 256;
/// A PNG up to this size is shown as it is, so that emoji keep their transparent background.
const SMALL_PNG_BYTES: usize = 24_000;

/// A picture on the page.
pub struct Card {
    /// File name or emoji name.
    pub name: String,
    /// The line below the name, such as a score.
    pub note: String,
    /// The picture's address: a data URI from [`thumbnail`].
    pub thumbnail: String,
}

/// The page as it grows.
#[derive(Default)]
pub struct Page {
    body: String,
}

impl Page {
    /// Begins a section: what was asked, in words and in SQL.
    pub fn section(&mut self, title: &str, explanation: &str, sql: &str) {
        let (title, explanation, sql) = (escape(title), escape(explanation), escape(sql));
        let body = format_args!("<h2>{title}</h2>\n<p>{explanation}</p>\n<pre><code>{sql}</code></pre>\n");
        self.push(body);
    }

    /// One question and the pictures that answer it, best first. The question is a picture, text, or both.
    pub fn row(&mut self, question: &str, picture: Option<&Card>, answers: &[Card]) {
        self.push(format_args!(
            "<section class=\"row\">\n<h3>{}</h3>\n<div class=\"cards\">\n",
            escape(question)
        ));
        if let Some(card) = picture {
            self.card("card asked", card);
        }
        answers.iter().for_each(|card| self.card("card", card));
        self.push(format_args!("</div>\n</section>\n"));
    }

    /// A picture with the labels a classifier gives it; scores are between 0 and 1.
    pub fn scores(&mut self, picture: &Card, scores: &[(String, f32)]) {
        self.push(format_args!("<section class=\"row scores\">\n"));
        self.card("card", picture);
        self.push(format_args!("<table>\n"));
        for (label, score) in scores {
            let (label, percent) = (escape(label), 100.0 * score);
            self.push(format_args!(
                "<tr><th scope=\"row\">{label}</th><td class=\"bar\"><span style=\"width:{percent:.1}%\"></span></td>\
                 <td>{percent:.0} %</td></tr>\n"
            ));
        }
        self.push(format_args!("</table>\n</section>\n"));
    }

    /// Facts and their values, as a table.
    pub fn facts(&mut self, facts: &[(&str, String)]) {
        self.push(format_args!("<table class=\"facts\">\n"));
        for (fact, value) in facts {
            self.push(format_args!(
                "<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n",
                escape(fact),
                escape(value)
            ));
        }
        self.push(format_args!("</table>\n"));
    }

    /// The finished document. `summary` stands below the title, `footer` at the end.
    pub fn finish(&self, summary: &str, footer: &str) -> String {
        let (style, body, summary, footer) = (STYLE, &self.body, escape(summary), escape(footer));
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>imgvec: PostgreSQL that sees</title>\n\
             <style>{style}</style>\n</head>\n<body>\n<main>\n<h1>PostgreSQL that sees</h1>\n\
             <p class=\"summary\">{summary}</p>\n{body}</main>\n<footer>{footer}</footer>\n</body>\n</html>\n"
        )
    }

    fn card(&mut self, class: &str, card: &Card) {
        let (name, note, thumbnail) = (escape(&card.name), escape(&card.note), &card.thumbnail);
        self.push(format_args!(
            "<figure class=\"{class}\"><img src=\"{thumbnail}\" alt=\"{name}\" loading=\"lazy\">\
             <figcaption><b title=\"{name}\">{name}</b><span>{note}</span></figcaption></figure>\n"
        ));
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.body.write_fmt(text).expect("a string takes any text");
    }
}

const STYLE: &str = "
:root { --back: #fafaf8; --front: #1d1d1f; --soft: #5c5f66; --card: #fff; --line: #e3e3de; --accent: #336791; }
@media (prefers-color-scheme: dark) {
  :root { --back: #16181c; --front: #ececec; --soft: #a3a8b0; --card: #212429; --line: #343941; --accent: #7fb2dd; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--front); font: 16px/1.5 system-ui, sans-serif; }
main, footer { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
h1 { margin: 40px 0 4px; font-size: 2rem; letter-spacing: -0.02em; }
h2 { margin: 44px 0 4px; font-size: 1.35rem; }
h3 { margin: 22px 0 8px; font-size: 1rem; color: var(--accent); overflow-wrap: anywhere; }
p { margin: 4px 0 10px; color: var(--soft); max-width: 70ch; }
.summary { font-size: 1.1rem; }
pre { margin: 0; padding: 12px 14px; overflow-x: auto; border: 1px solid var(--line); border-radius: 10px;
  background: var(--card); font-size: 0.82rem; line-height: 1.45; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(118px, 1fr)); gap: 10px; }
.card { margin: 0; overflow: hidden; border: 1px solid var(--line); border-radius: 10px; background: var(--card); }
.card img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; padding: 6px; }
.asked { border: 2px solid var(--accent); }
figcaption { padding: 2px 9px 8px; font-size: 0.78rem; line-height: 1.35; }
figcaption b { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-weight: 600; }
figcaption span { color: var(--soft); font-variant-numeric: tabular-nums; }
.scores { display: flex; flex-wrap: wrap; gap: 18px; align-items: center; margin: 14px 0; }
.scores .card { width: 130px; flex: none; }
table { border-collapse: collapse; font-size: 0.9rem; }
.scores table { flex: 1; min-width: 240px; max-width: 560px; table-layout: fixed; }
.scores th { width: 30%; }
th { padding: 3px 14px 3px 0; text-align: left; font-weight: 500; }
td { padding: 3px 0; font-variant-numeric: tabular-nums; }
.scores td { width: 15%; text-align: right; }
.scores .bar { width: 55%; padding-right: 12px; }
.bar span { display: block; height: 10px; min-width: 2px; border-radius: 5px; background: var(--accent); }
footer { margin-top: 50px; padding-top: 14px; padding-bottom: 40px; border-top: 1px solid var(--line);
  color: var(--soft); font-size: 0.8rem; }
";

/// A picture as a small data URI; of a picture that this program cannot decode, a gray square.
pub fn thumbnail(bytes: &[u8]) -> String {
    if bytes.len() <= SMALL_PNG_BYTES && bytes.starts_with(b"\x89PNG") {
        return format!("data:image/png;base64,{}", STANDARD.encode(bytes));
    }
    let shrunk = decode(bytes).map(|image| image.thumbnail(THUMBNAIL_PIXELS, THUMBNAIL_PIXELS));
    let shown = shrunk.map_or_else(|| RgbImage::from_pixel(8, 8, Rgb([160; 3])), |image| on_white(&image));
    format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg(&shown, 82)))
}

/// A copy as a photo gets around: half as large, recompressed with visible loss.
pub fn recompressed(bytes: &[u8]) -> Option<Vec<u8>> {
    let image = decode(bytes)?;
    let (width, height) = (image.width().div_ceil(2), image.height().div_ceil(2));
    Some(jpeg(&on_white(&image.thumbnail_exact(width, height)), 50))
}

/// The picture as a person would see it, turned as its camera recorded.
fn decode(bytes: &[u8]) -> Option<DynamicImage> {
    let mut decoder = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?.into_decoder().ok()?;
    let orientation = decoder.orientation().ok()?;
    let mut image = DynamicImage::from_decoder(decoder).ok()?;
    image.apply_orientation(orientation);
    Some(image)
}

fn jpeg(image: &RgbImage, quality: u8) -> Vec<u8> {
    let mut encoded = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut encoded, quality);
    image.write_with_encoder(encoder).expect("an RGB image fits a JPEG in memory");
    encoded
}

/// Text for HTML content and quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

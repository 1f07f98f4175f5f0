//! The gallery in a real browser, on a private server: what people do with it, and what hostile pictures and pages try.
//!
//! Without Chromium and its driver nothing is tested, and a line says so; with `IMGVEC_REQUIRE_BROWSER` that is a failure.
//! `IMGVEC_SCREENSHOTS=directory` also shows the gallery of the sample pictures and keeps images of its pages.

mod driver;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use image::{Rgb, RgbImage};
use serde_json::json;

use driver::{Browser, request};

/// A name that is HTML, breaks out of an attribute, and is SQL.
const HOSTILE: &str = "\"><img src=x onerror=\"window.hacked=1\"> '; DROP TABLE pictures; --";
const PICTURES: u32 = 55;

/// A gallery that runs.
struct Gallery {
    child: Child,
    port: u16,
}

impl Gallery {
    fn start(pictures: Option<&Path>, models: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gallery"))
            .args(pictures)
            .env("MODELS", models)
            .env("PORT", "0")
            .env_remove("DATABASE_URL")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the gallery can be started");
        let mut lines = BufReader::new(child.stdout.take().expect("its output was asked for")).lines();
        let port = lines
            .find_map(|line| line.ok()?.split_once("http://127.0.0.1:")?.1.split('/').next()?.parse().ok());
        let port = port.expect("the gallery tells its address");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }

    fn address(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Waits until the pictures that it was started with are in, and the passes over them are done.
    fn wait(&self) {
        let begin = Instant::now();
        let done = |json: &str| {
            let progress: serde_json::Value = serde_json::from_str(json).expect("progress is JSON");
            progress["total"] == progress["done"] && progress["total"] != 0
        };
        let map = || request(self.port, "GET", "/map.json", &[], b"").1;
        while !done(&request(self.port, "GET", "/progress", &[], b"").1) || map() == "[]" {
            assert!(begin.elapsed() < Duration::from_secs(300), "the pictures do not come in");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Gallery {
    fn drop(&mut self) {
        // As Control-C does: the private server ends, too.
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

fn browser(name: &str) -> Option<Browser> {
    let browser = Browser::start(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("browser-{name}")));
    if browser.is_none() {
        assert!(
            std::env::var_os("IMGVEC_REQUIRE_BROWSER").is_none(),
            "there is no Chromium with chromedriver"
        );
        // Past the test harness, which keeps what a test prints that passes.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED the gallery in a browser: chromium and chromedriver are not installed (make gallery-test installs them)"
        );
    }
    browser
}

/// Stripes of random colors, no two alike.
fn picture(seed: u32) -> RgbImage {
    let color = |band: u32| {
        let mixed = (seed * 31 + band * 7 + 1).wrapping_mul(2_654_435_761);
        Rgb([mixed, mixed >> 8, mixed >> 16].map(|value| (value & 255) as u8))
    };
    let width = 90 + seed % 5 * 30;
    RgbImage::from_fn(width, 100, |x, y| color(if seed.is_multiple_of(2) { x / 18 } else { 20 + y / 18 }))
}

/// A directory of pictures: in two folders, a copy of one, a broken one, and one with a hostile name in a hostile folder.
fn library() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gallery-pictures");
    let _ = fs::remove_dir_all(&directory);
    let hostile = "<script>window.hacked=2<";
    for folder in ["plain", "other", hostile] {
        fs::create_dir_all(directory.join(folder)).expect("a directory can be made");
    }
    let save = |seed: u32, path: PathBuf| picture(seed).save(path).expect("a picture can be saved");
    for seed in 0..PICTURES {
        save(
            seed,
            directory.join(if seed % 3 == 0 { "other" } else { "plain" }).join(format!("picture {seed}.png")),
        );
    }
    save(7, directory.join("plain/a copy.jpg"));
    let name = format!("{}.png", HOSTILE.replace('/', "_"));
    save(1000, directory.join(hostile).join(name));
    fs::write(directory.join("plain/broken.jpg"), b"\xff\xd8\xff\xe0 and no more")
        .expect("a file can be written");
    directory
}

#[test]
fn people_search_mark_upload_and_review() {
    let Some(browser) = browser("people") else { return };
    let directory = library();
    let gallery = Gallery::start(Some(&directory), "starter");
    gallery.wait();
    let go = |path: &str| browser.open(&gallery.address(path));
    let count =
        |selector: &str| browser.script(&format!("return document.querySelectorAll({selector:?}).length"));
    let ids = "return [...document.querySelectorAll('#results .card')].map((card) => card.dataset.id)";

    // Endless scrolling: every picture once, and the page says by which statement.
    go("/");
    browser.wait_until("document.querySelectorAll('#results .card').length >= 40");
    browser.script("scrollTo(0, document.body.scrollHeight)");
    let all = PICTURES + 2;
    browser.wait_until(&format!("document.querySelectorAll('#results .card').length === {all}"));
    let distinct = browser.script(
        "return new Set([...document.querySelectorAll('.card')].map((card) => card.dataset.id)).size",
    );
    assert_eq!(distinct, json!(all));

    // Search as one types, by keyset as well.
    browser.type_into("input[type=search]", "red stripes");
    browser.wait_until(
        "document.querySelector('#results .similarity') && location.search.includes('q=red+stripes')",
    );
    browser.wait_until("document.querySelector('#results .sql code').textContent.includes('embed_text($1')");
    browser.script("document.querySelector('a.more')?.click()");
    browser.wait_until(&format!("document.querySelectorAll('#results .card').length === {all}"));
    let similarities = "return [...document.querySelectorAll('#results .similarity')].map((element) => +element.textContent)";
    let found: Vec<f64> =
        serde_json::from_value(browser.script(similarities)).expect("similarities are numbers");
    assert!(found.is_sorted_by(|a, b| a >= b), "the nearest come first: {found:?}");
    browser.script("document.querySelector('#results .sql').open = true; document.querySelector('#results a.plan').click()");
    browser.wait_until("document.querySelector('#results pre.plan')?.textContent.includes('Execution Time')");

    // A filter is part of the statement.
    browser.script(
        "const folder = document.querySelector('select[name=folder]'); folder.value = 'other'; folder.dispatchEvent(new Event('input', { bubbles: true }))",
    );
    browser.wait_until("document.querySelector('#results .sql code').textContent.includes('folder = $')");
    let others = PICTURES.div_ceil(3);
    browser.wait_until(&format!("document.querySelectorAll('#results .card').length === {others}"));

    // The slider to diverse.
    go("/?q=blue&diverse=5");
    browser.wait_until("document.querySelectorAll('#results .card').length >= 40");
    assert_ne!(browser.script(ids).as_array().map(Vec::len), Some(0));
    assert_eq!(count("#results .problem"), json!(0));

    // A picture as the query, then words with it.
    go("/");
    let asked = directory.join("plain/a copy.jpg");
    browser.type_into("#by-picture", asked.to_str().expect("the path is UTF-8"));
    browser.wait_until(
        "location.search.includes('picture=') && document.querySelector('#results .card .similarity')",
    );
    let first = browser.script("return document.querySelector('#results .card .similarity').textContent");
    assert_eq!(first, json!("1.00"));
    go("/?picture=1&q=green");
    browser.wait_until("document.querySelector('#results .sql code')?.textContent.includes('embed_mix')");
    browser.wait_until("document.querySelectorAll('#results .card').length >= 40");

    // More like this, and marks that steer. The keyboard does it, too.
    go("/?q=blue");
    browser.wait_until("document.querySelector('#results .card')");
    browser.type_into("#results .card .picture", "l");
    browser.wait_until("document.querySelector('.like[aria-pressed=true]')");
    let liked = browser
        .script("return document.querySelector('.like[aria-pressed=true]').closest('.card').dataset.id");
    go("/?taste=1");
    browser.wait_until("document.querySelectorAll('#results .card').length >= 40");
    let for_you = browser.script(ids);
    assert!(!for_you.as_array().expect("ids are a list").contains(&liked), "what was liked is known already");
    go(&format!("/picture/{}", liked.as_str().expect("an id is a text")));
    browser.wait_until("document.querySelectorAll('.fragment .card').length >= 40");
    assert_eq!(count(".shown tr"), json!(8));

    // Labels of one's own, hostile ones among them.
    go(&format!(
        "/picture/1?labels={}",
        "striped, %3Cimg src=x onerror=%22window.hacked=3%22%3E, %27 OR 1=1"
    ));
    assert_eq!(count(".shown tr"), json!(3));

    // Upload: a good picture with a hostile name, the same again, and a broken one that tells why.
    go("/upload");
    assert_eq!(count(".refused tr"), json!(1));
    let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gallery-new");
    let _ = fs::remove_dir_all(&new);
    fs::create_dir_all(&new).expect("a directory can be made");
    let (good, broken) = (new.join(format!("new {}.png", HOSTILE.replace('/', "_"))), new.join("torn.png"));
    picture(2000).save(&good).expect("a picture can be saved");
    fs::write(&broken, b"\x89PNG\r\n\x1a\n").expect("a file can be written");
    let same = directory.join("plain/picture 1.png");
    let chosen = [&good, &broken, &same].map(|path| path.to_str().expect("the path is UTF-8")).join("\n");
    browser.type_into("#files", &chosen);
    browser.wait_until("document.querySelector('#upload-status').textContent === 'Done: 1 added, 1 refused'");
    let told = browser.script("return document.querySelector('#uploaded').innerText");
    let told = told.as_str().expect("the list is a text");
    assert!(told.contains("torn.png: could not decode image"), "{told}");
    assert!(told.contains("is there already") && told.contains("onerror"), "{told}");
    go("/upload");
    assert_eq!(count(".refused tr"), json!(2));

    // Duplicates: the copy with its original; one of them goes.
    go("/duplicates");
    browser.wait_until("document.querySelector('.group')");
    let groups = count(".group").as_u64().expect("a count");
    browser.script("document.querySelector('.group .all button').click()");
    browser.wait_until(&format!("document.querySelectorAll('.group').length === {}", groups - 1));

    // The map has every picture that is left, and clusters have a page.
    go("/map");
    browser.wait_until("+document.querySelector('#map').dataset.shown > 40");
    browser.type_into("#map", "+++");
    go("/clusters");
    assert_eq!(count(".problem"), json!(0));

    // Errors are told; queries are values.
    go("/");
    browser.type_into("input[type=search]", HOSTILE);
    browser.wait_until(
        "location.search.includes('DROP') && document.querySelectorAll('#results .card').length >= 40",
    );
    go("/results?after=1");
    go("/?q=blue&diverse=many");
    browser
        .wait_until("document.querySelector('#results .problem')?.textContent.includes('must be a number')");
    assert_eq!(browser.script("return window.hacked ?? null"), json!(null));
    assert_eq!(count("img[onerror]"), json!(0));
    let complaints = browser.complaints();
    let unexpected: Vec<&String> = complaints
        .iter()
        .filter(|line| !line.contains("diverse=many") && !line.contains("/pictures?"))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}

#[test]
fn other_sites_and_large_bodies_are_refused() {
    if browser("others").is_none() {
        return;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gallery-one");
    fs::create_dir_all(&directory).expect("a directory can be made");
    picture(1).save(directory.join("one.png")).expect("a picture can be saved");
    // Two columns, each with its index; one model does for both here.
    let gallery = Gallery::start(Some(&directory), "starter,starter");
    let status = |method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]| {
        request(gallery.port, method, path, headers, body).0
    };

    assert_eq!(status("GET", "/", &[], b""), 200);
    assert_eq!(status("GET", "/", &[("Host", "rebound.example")], b""), 421);
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(status("POST", "/remove", &[form, ("Origin", "http://other.example")], b"pictures=1"), 403);
    assert_eq!(status("POST", "/remove", &[form, ("Origin", "null")], b"pictures=1"), 403);
    assert_eq!(status("POST", "/remove", &[form], b"pictures=1;DROP TABLE pictures"), 400);
    assert_eq!(status("POST", "/pictures?name=large", &[], &vec![0; (32 << 20) + 1]), 413);
    assert_eq!(status("POST", "/pictures?name=%00", &[], b"GIF89a"), 422);
    assert_eq!(status("GET", "/picture/999999", &[], b""), 404);
    assert_eq!(status("GET", "/results?q=%00", &[], b""), 422);
    assert_eq!(status("GET", &format!("/results?q={}", "a".repeat(501)), &[], b""), 400);
    assert_eq!(status("GET", "/nothing", &[], b""), 404);
    assert_eq!(status("GET", "/plan/compare?q=blue", &[], b""), 200);
    gallery.wait();
    let compared = request(gallery.port, "GET", "/compare?q=blue", &[], b"").1;
    assert_eq!(compared.matches("<img").count(), 2, "each model finds the one picture: {compared}");
}

/// The pages with the sample pictures, for the documentation.
#[test]
fn pages_are_shown() {
    let Some(directory) = std::env::var_os("IMGVEC_SCREENSHOTS").map(PathBuf::from) else { return };
    let Some(browser) = browser("shown") else { return };
    fs::create_dir_all(&directory).expect("a directory can be made");
    let gallery = Gallery::start(None, "starter");
    gallery.wait();
    let go = |path: &str| browser.open(&gallery.address(path));
    let shoot = |name: &str, width: u32, height: u32| {
        browser.resize(width, height);
        browser.wait_until("[...document.images].every((image) => image.complete || image.getBoundingClientRect().top > 2 * innerHeight)");
        std::thread::sleep(Duration::from_millis(600));
        let bytes = decoded(&browser.screenshot());
        fs::write(directory.join(format!("{name}.jpg")), bytes).expect("a screenshot can be written");
    };
    let results = "document.querySelectorAll('#results .card').length >= 20";
    browser.resize(1280, 800);

    go("/?q=flower");
    browser.wait_until(results);
    shoot("search", 1280, 800);
    go("/?q=fruit");
    browser.wait_until(results);
    browser.script("document.querySelector('#results .sql').open = true; document.querySelector('#results a.plan').click()");
    browser.wait_until("document.querySelector('#results pre.plan')?.textContent.includes('Execution Time')");
    shoot("statement", 1280, 900);
    go("/?label=cat");
    browser.wait_until("document.querySelector('#results .card')");
    let first = browser.script("return document.querySelector('#results .card').dataset.id");
    go(&format!("/picture/{}", first.as_str().expect("an id is a text")));
    browser.wait_until("document.querySelectorAll('.fragment .card').length >= 20");
    shoot("picture", 1280, 900);
    for query in ["fruit", "flower"] {
        go(&format!("/?q={query}"));
        browser.wait_until(results);
        browser.script("[...document.querySelectorAll('#results .like')].slice(0, 2).forEach((button) => button.click())");
        browser.wait_until("document.querySelectorAll('.like[aria-pressed=true]').length >= 2");
    }
    go("/?taste=1&diverse=2");
    browser.wait_until(results);
    shoot("for-you", 1280, 800);
    go("/duplicates");
    shoot("duplicates", 1280, 800);
    go("/clusters");
    shoot("clusters", 1280, 800);
    go("/map");
    browser.wait_until("+document.querySelector('#map').dataset.shown > 40");
    browser.script("scrollTo(0, 0)");
    std::thread::sleep(Duration::from_secs(3));
    shoot("map", 1280, 860);
    browser.set_dark(true);
    go("/?q=a%20bird");
    browser.wait_until(results);
    shoot("dark", 1280, 800);
    browser.set_dark(false);
    browser.resize(390, 780);
    go("/?q=fruit");
    browser.wait_until(results);
    shoot("phone", 390, 780);
    browser.resize(1280, 800);

    // What people type over these pictures, and what comes first; misses stay visible.
    let queries = [
        "cat",
        "dog",
        "horse",
        "bird",
        "butterfly",
        "fish",
        "monkey",
        "fruit",
        "banana",
        "vegetables",
        "flower",
        "tree",
        "mushroom",
        "car",
        "airplane",
        "train",
        "guitar",
        "planet",
        "hat",
        "hammer",
    ];
    for query in queries {
        go(&format!("/?q={query}"));
        browser.wait_until(results);
        let first = browser.script("return [...document.querySelectorAll('#results .card .name')].slice(0, 4).map((name) => name.textContent).join(' | ')");
        println!("{query:<12} {}", first.as_str().unwrap_or_default());
    }
}

/// Bytes of a text in base64.
fn decoded(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(value).collect();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let bits = group
            .iter()
            .enumerate()
            .fold(0_u32, |bits, (place, &digit)| bits | u32::from(digit) << (18 - 6 * place));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}

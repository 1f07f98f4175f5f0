//! Pictures become vectors inside PostgreSQL, and words find them.
//!
//! ```text
//! make demo                    sample photographs and emoji
//! make demo PHOTOS=~/Photos    a person's own pictures
//! make demo QUERIES='my dog, a beach at sunset' KEEP=1
//! ```
//!
//! Starts a private server, embeds every picture in a generated column, searches by text and by
//! picture, classifies, finds recompressed copies, groups and clusters, recommends, and writes what it found to
//! `target/demo/index.html`. With the sample pictures it checks its own answers: the exit status is
//! 1 if a search for a motorcycle, fruit, a flower or a cat does not return pictures of it first, or a
//! copy its original. With `KEEP=1` the server stays.

#[path = "../../../tests/cluster/mod.rs"]
mod cluster;
mod library;
mod page;
mod pictures;

use std::error::Error;
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use postgres::{Client, Row};

use cluster::Cluster;
use page::{Card, Page};
use pictures::Picture;

const MODEL: &str = "starter";
const SHOWN: i64 = 8;

const INSERT: &str = "INSERT INTO pictures (name, label, data) VALUES ($1, $2, $3)";

const SEARCH_BY_TEXT: &str = "\
SELECT name, label, data, 1 - (embedding <=> embed_text($1)) AS similarity
FROM pictures ORDER BY embedding <=> embed_text($1) LIMIT $2";

const SEARCH_BY_PICTURE: &str = "\
SELECT p.name, p.label, p.data, 1 - (p.embedding <=> q.embedding) AS similarity
FROM pictures p, pictures q
WHERE q.id = $1 AND p.id <> q.id ORDER BY p.embedding <=> q.embedding LIMIT $2";

const CLASSIFY: &str = "\
SELECT label, score
FROM classify_image((SELECT data FROM pictures WHERE id = $1), $2) ORDER BY score DESC LIMIT 4";

const FIND_COPIES: &str = "\
SELECT c.name, c.data, o.name, o.data, 1 - (c.embedding <=> o.embedding) AS similarity
FROM pictures c CROSS JOIN LATERAL
     (SELECT * FROM pictures p WHERE p.id <> c.id ORDER BY p.embedding <=> c.embedding LIMIT 1) o
WHERE c.name LIKE 'copy of %' ORDER BY c.id";

const QUERIES: [&str; 9] = [
    "dog",
    "cat",
    "a cup of coffee",
    "flower",
    "motorcycle",
    "fruit",
    "fish",
    "rocket",
    "musical instrument",
];
const LABELS: [&str; 16] = [
    "cat",
    "dog",
    "bird",
    "flower",
    "tree",
    "person",
    "car",
    "motorcycle",
    "rocket",
    "temple",
    "coffee",
    "pizza",
    "coins",
    "clock",
    "beach",
    "mountain",
];
/// What a person would expect of a search among the sample pictures.
struct Checked {
    query: &'static str,
    /// So many of the first rows are looked at.
    first: usize,
    /// So many of them at least are right.
    right: usize,
    /// The labels that are.
    labels: &'static [&'static str],
}

/// The starter model knows few of the emoji that most samples are; the other queries are
/// asked because people ask them, and shown as they come.
const CHECKED: [Checked; 5] = [
    Checked { query: "motorcycle", first: 2, right: 2, labels: &["motorcycle"] },
    Checked {
        query: "fruit",
        first: 4,
        right: 3,
        labels: &[
            "mango",
            "lemon",
            "tangerine",
            "peach",
            "pineapple",
            "pear",
            "banana",
            "grapes",
            "melon",
            "cherries",
            "strawberry",
            "blueberries",
            "watermelon",
            "kiwi fruit",
            "red apple",
            "green apple",
        ],
    },
    Checked {
        query: "flower",
        first: 2,
        right: 2,
        labels: &["flower", "sunflower", "hibiscus", "tulip", "rose", "blossom", "bouquet"],
    },
    Checked { query: "cat", first: 1, right: 1, labels: &["cat", "cat face", "grinning cat", "black cat"] },
    Checked {
        // Of drawings it knows little: an ox may be before the dog.
        query: "dog",
        first: 4,
        right: 1,
        labels: &["dog", "dog face", "guide dog", "service dog", "poodle"],
    },
];

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let of_server = error.downcast_ref().map(describe);
            eprintln!("demo: {}", of_server.unwrap_or_else(|| error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Outcome<()> {
    let own = std::env::args_os().nth(1).map(PathBuf::from);
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let pictures = match &own {
        None => pictures::samples(&target.join("photos"))?,
        Some(directory) => {
            let (pictures, others) = pictures::own(directory)?;
            println!("{}: {} pictures, {others} other files", directory.display(), pictures.len());
            pictures
        }
    };

    println!("Starting a private PostgreSQL ...");
    let cluster = Cluster::new("demo").start_empty();
    let mut demo = Demo { client: cluster.client(), page: Page::default(), facts: Vec::new() };
    demo.create_table()?;
    let embedded = demo.embed(&pictures)?;
    demo.search_by_text(&queries())?;
    demo.search_by_picture(own.is_none())?;
    demo.classify(own.is_none())?;
    demo.find_copies(own.is_none())?;
    demo.group_copies()?;
    demo.cluster()?;
    demo.recommend(own.is_none())?;
    demo.measure()?;

    let summary =
        format!("{embedded} pictures, embedded and searched inside the database by the model {MODEL:?}.");
    let footer = match own {
        None => {
            "Photographs: sample data of scikit-image (public domain or free licenses) and scikit-learn (china.jpg, \
                 flower.jpg: CC BY 2.0, danielbuechele and vultilion). Emoji: Noto Color Emoji (SIL Open Font License)."
        }
        Some(_) => "Made on this machine; no picture left it.",
    };
    let directory = target.join("demo");
    fs::create_dir_all(&directory)?;
    let file = directory.join("index.html");
    fs::write(&file, demo.page.finish(&summary, footer))?;

    let checked = own.is_some() || demo.check()?;
    println!("\nThe page: {}", file.canonicalize()?.display());
    if std::env::var_os("KEEP").is_some_and(|value| !value.is_empty() && value != "0") {
        let directory = cluster.keep();
        let (program, directory) = ("psql -U postgres -h", directory.display());
        println!("The server keeps running:  {program} {directory}");
        println!("To end it:  kill -INT $(head -n 1 {directory}/data/postmaster.pid) && rm -r {directory}");
    }
    if checked { Ok(()) } else { Err("the answers are not what the sample pictures show".into()) }
}

/// What to search for: the environment variable `QUERIES`, separated by commas, or the usual.
fn queries() -> Vec<String> {
    let asked = std::env::var("QUERIES").unwrap_or_default();
    let asked: Vec<_> = asked.split(',').map(str::trim).filter(|query| !query.is_empty()).collect();
    let chosen = if asked.is_empty() { QUERIES.to_vec() } else { asked };
    chosen.into_iter().map(str::to_owned).collect()
}

/// A session with the private server, and what there is to tell.
struct Demo {
    client: Client,
    page: Page,
    facts: Vec<(&'static str, String)>,
}

impl Demo {
    fn create_table(&mut self) -> Outcome<()> {
        self.run("CREATE EXTENSION imgvec")?;
        let query = "SELECT dims FROM imgvec_models WHERE name = $1";
        let dims: i32 = self.client.query_one(query, &[&MODEL])?.get(0);
        let table = format!(
            "CREATE TABLE pictures (\n    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n    \
             name text, label text, data bytea,\n    \
             embedding imgvec({dims}) GENERATED ALWAYS AS (embed_image(data, '{MODEL}')) STORED)"
        );
        self.run(&table)?;
        let sql = format!("{table};\n{INSERT};");
        self.page.section("The table", "Each picture is embedded when its row is stored.", &sql);
        Ok(())
    }

    fn run(&mut self, sql: &str) -> Outcome<()> {
        println!("\n{sql};");
        Ok(self.client.batch_execute(sql)?)
    }

    /// Stores every picture; one that cannot be read or decoded is reported and left out.
    fn embed(&mut self, pictures: &[Picture]) -> Outcome<usize> {
        println!("\n{INSERT};");
        let begin = Instant::now();
        let mut progress = Progress::new(pictures.len());
        let insert = self.client.prepare(INSERT)?;
        let mut skipped = Vec::new();
        for picture in pictures {
            let stored = match picture.read() {
                Ok(data) => {
                    let stored = self.client.execute(&insert, &[&picture.name, &picture.label, &data]);
                    stored.map(drop).map_err(|error| describe(&error))
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = stored {
                skipped.push((&picture.name, reason));
            }
            progress.step();
        }
        let elapsed = begin.elapsed();
        progress.finish();
        for (name, reason) in &skipped {
            println!("skipped {name}: {reason}");
        }
        let embedded = pictures.len() - skipped.len();
        if embedded == 0 {
            return Err("no picture could be embedded".into());
        }
        self.client.batch_execute("ANALYZE pictures")?;
        let each = milliseconds(elapsed) / f64::from(u32::try_from(embedded)?);
        println!("{embedded} pictures in {:.1} s, {each:.1} ms each", elapsed.as_secs_f64());
        self.facts.push(("pictures embedded", embedded.to_string()));
        self.facts.push(("skipped, as the server could not decode them", skipped.len().to_string()));
        self.facts.push(("a picture: send, decode, embed, store", format!("{each:.1} ms")));
        Ok(embedded)
    }

    fn search_by_text(&mut self, queries: &[String]) -> Outcome<()> {
        println!("\n{SEARCH_BY_TEXT};");
        let explanation =
            "The pictures whose vectors are nearest to the text's. No label and no file name is used.";
        self.page.section("Search by words", explanation, SEARCH_BY_TEXT);
        for query in queries {
            let rows = self.client.query(SEARCH_BY_TEXT, &[query, &SHOWN])?;
            self.show(query, None, &rows);
        }
        Ok(())
    }

    fn search_by_picture(&mut self, is_sample: bool) -> Outcome<()> {
        println!("\n{SEARCH_BY_PICTURE};");
        let explanation = "The neighbors of a picture that is in the table already.";
        self.page.section("Search by picture", explanation, SEARCH_BY_PICTURE);
        for id in self.chosen(is_sample, &["chelsea.png", "🐬 dolphin", "🍒 cherries", "🚂 locomotive"])?
        {
            let asked = self.picture(id, "asked for")?;
            let rows = self.client.query(SEARCH_BY_PICTURE, &[&id, &(SHOWN - 1)])?;
            self.show(&format!("like {}", asked.name), Some(&asked), &rows);
        }
        Ok(())
    }

    fn classify(&mut self, is_sample: bool) -> Outcome<()> {
        println!("\n{CLASSIFY};");
        let explanation = format!("The best four of the labels {}.", LABELS.join(", "));
        self.page.section("Classify", &explanation, CLASSIFY);
        for id in
            self.chosen(is_sample, &["chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg"])?
        {
            let rows = self.client.query(CLASSIFY, &[&id, &LABELS.as_slice()])?;
            let scores: Vec<(String, f32)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            let asked = self.picture(id, "")?;
            let told: Vec<_> = scores.iter().map(|(label, score)| format!("{label} {score:.2}")).collect();
            println!("  {:<28} {}", asked.name, told.join(", "));
            self.page.scores(&asked, &scores);
        }
        Ok(())
    }

    /// Stores smaller, recompressed copies of some photographs and finds what each was made from.
    fn find_copies(&mut self, is_sample: bool) -> Outcome<()> {
        println!("\n{FIND_COPIES};");
        let explanation = "Copies of half the size and low JPEG quality were added; each finds its original.";
        self.page.section("Find copies", explanation, FIND_COPIES);
        for id in
            self.chosen(is_sample, &["astronaut.png", "coffee.png", "flower.jpg", "motorcycle_left.png"])?
        {
            let row = self.client.query_one("SELECT name, data FROM pictures WHERE id = $1", &[&id])?;
            let Some(copy) = page::recompressed(row.get(1)) else { continue };
            let name = format!("copy of {}", row.get::<_, String>(0));
            self.client.execute(INSERT, &[&name, &None::<String>, &copy])?;
        }
        for row in self.client.query(FIND_COPIES, &[])? {
            let (copy, original): (String, String) = (row.get(0), row.get(2));
            let similarity: f64 = row.get(4);
            println!("  {copy:<32} {original:<24} {similarity:.3}");
            let card = |name: String, note, data| Card { name, note, thumbnail: page::thumbnail(data) };
            let asked = card(copy.clone(), "asked for".to_owned(), row.get(1));
            let answer = card(original, format!("{similarity:.3}"), row.get(3));
            self.page.row(&copy, Some(&asked), &[answer]);
        }
        Ok(())
    }

    fn measure(&mut self) -> Outcome<()> {
        const RUNS: usize = 21;
        let statement =
            self.client.prepare("SELECT id FROM pictures ORDER BY embedding <=> embed_text($1) LIMIT 10")?;
        let mut median = |text: &dyn Fn(usize) -> String| -> Outcome<f64> {
            let mut times = Vec::with_capacity(RUNS);
            for run in 0..RUNS {
                let text = text(run);
                let begin = Instant::now();
                self.client.query(&statement, &[&text])?;
                times.push(milliseconds(begin.elapsed()));
            }
            times.sort_by(f64::total_cmp);
            Ok(times[RUNS / 2])
        };
        let fresh = median(&|run| format!("picture number {run}"))?;
        let repeated = median(&|_| "dog".to_owned())?;
        let query = "SELECT images_embedded, texts_embedded, encoder_cpu_ms, inference_cpu_ms FROM imgvec_backend_stats";
        let row = self.client.query_one(query, &[])?;
        let (images, texts): (i64, i64) = (row.get(0), row.get(1));
        let (encoder, inference): (f64, f64) = (row.get(2), row.get(3));
        self.facts.extend([
            ("a search for new words, without an index", format!("{fresh:.2} ms")),
            ("the same words again", format!("{repeated:.2} ms")),
            ("images and texts through the model", format!("{images} and {texts}")),
            ("CPU time of embedding, and of the model alone", format!("{encoder:.0} ms, {inference:.0} ms")),
        ]);
        println!();
        for (fact, value) in &self.facts {
            println!("  {fact:<46} {value}");
        }
        self.page.section("Timing", "This run on this machine, one connection.", query);
        self.page.facts(&self.facts);
        Ok(())
    }

    /// Whether the sample pictures were found as a person would expect; says what was not.
    fn check(&mut self) -> Outcome<bool> {
        let mut right = true;
        for Checked { query, first, right: least, labels } in CHECKED {
            // The copies that were added for the duplicates have no label; there are few of them.
            let rows = self.client.query(SEARCH_BY_TEXT, &[&query, &10_i64])?;
            let found: Vec<String> = rows.iter().filter_map(|row| row.get(1)).take(first).collect();
            if found.iter().filter(|label| labels.contains(&label.as_str())).count() < least {
                eprintln!("demo: a search for {query:?} found {found:?} first");
                right = false;
            }
        }
        for row in self.client.query(FIND_COPIES, &[])? {
            let (copy, original): (String, String) = (row.get(0), row.get(2));
            if copy != format!("copy of {original}") {
                eprintln!("demo: the nearest picture to {copy:?} is {original:?}");
                right = false;
            }
        }
        Ok(right)
    }

    /// Pictures to ask about: those named among the samples, a few spread over a person's own.
    fn chosen(&mut self, is_sample: bool, names: &[&str]) -> Outcome<Vec<i32>> {
        let rows = if is_sample {
            let query = "SELECT id FROM pictures JOIN unnest($1::text[]) WITH ORDINALITY AS n(name, place) USING (name) \
                         ORDER BY place";
            let rows = self.client.query(query, &[&names])?;
            if rows.len() < names.len() {
                return Err(format!("some of the sample pictures {names:?} are missing").into());
            }
            rows
        } else {
            let query = "SELECT min(id) FROM (SELECT id, ntile($1) OVER (ORDER BY id) AS part FROM pictures) AS p \
                         GROUP BY part ORDER BY part";
            self.client.query(query, &[&i32::try_from(names.len())?])?
        };
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    fn picture(&mut self, id: i32, note: &str) -> Outcome<Card> {
        let row = self.client.query_one("SELECT name, data FROM pictures WHERE id = $1", &[&id])?;
        Ok(Card { name: row.get(0), note: note.to_owned(), thumbnail: page::thumbnail(row.get(1)) })
    }

    /// Tells the rows of a search: name, label, data, similarity.
    fn show(&mut self, question: &str, asked: Option<&Card>, rows: &[Row]) {
        let told = |row: &Row| format!("{} {:.2}", row.get::<_, &str>(0), row.get::<_, f64>(3));
        let names: Vec<_> = rows.iter().take(4).map(told).collect();
        println!("  {question:<28} {}", names.join(", "));
        let card = |row: &Row| Card {
            name: row.get(0),
            note: format!("{:.3}", row.get::<_, f64>(3)),
            thumbnail: page::thumbnail(row.get(2)),
        };
        let cards: Vec<Card> = rows.iter().map(card).collect();
        self.page.row(question, asked, &cards);
    }
}

/// A count on the terminal that rewrites its line; elsewhere a line for each tenth.
struct Progress {
    total: usize,
    done: usize,
    begin: Instant,
    is_terminal: bool,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self { total, done: 0, begin: Instant::now(), is_terminal: std::io::stderr().is_terminal() }
    }

    fn step(&mut self) {
        self.done += 1;
        let tenths = |count: usize| count * 10 / self.total;
        let rate =
            f64::from(u32::try_from(self.done).unwrap_or(u32::MAX)) / self.begin.elapsed().as_secs_f64();
        let (done, total) = (self.done, self.total);
        if self.is_terminal {
            eprint!("\r  embedded {done} of {total}, {rate:.0} a second ");
            // A terminal that cannot be written is no reason to stop.
            let _ = std::io::stderr().flush();
        } else if tenths(done) > tenths(done - 1) {
            eprintln!("  embedded {done} of {total}, {rate:.0} a second");
        }
    }

    fn finish(&self) {
        if self.is_terminal {
            eprintln!();
        }
    }
}

/// The server's message and detail on one line, or the client's own error.
fn describe(error: &postgres::Error) -> String {
    let Some(reported) = error.as_db_error() else { return error.to_string() };
    let detail = reported.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    format!("{}{detail}", reported.message())
}

fn milliseconds(time: Duration) -> f64 {
    1000.0 * time.as_secs_f64()
}

//! The jobs of a picture library: copies in groups, clusters with names, and what else somebody may like.

use postgres::Row;

use super::{Demo, LABELS, Outcome, SHOWN, page::Card};
use crate::page;

/// Cosine distance up to which pictures count as copies.
const COPIES_WITHIN: f64 = 0.001;

const GROUPS: &str = "\
SELECT name, label, data, copies
FROM (SELECT *, duplicate_group(embedding, $1) OVER () AS copies FROM pictures) AS p
WHERE copies IS NOT NULL ORDER BY copies, id LIMIT 40";

const CLUSTERS: &str = "\
WITH members AS (
    SELECT id, cluster(embedding, 4) OVER () AS cluster FROM pictures
), clusters AS (
    SELECT cluster, count(*) AS size, avg(embedding) AS mean
    FROM members JOIN pictures USING (id) WHERE cluster IS NOT NULL
    GROUP BY cluster ORDER BY size DESC, cluster LIMIT 8
)
SELECT central.name, central.label, central.data, central.similarity, named.label, size, cluster
FROM clusters
CROSS JOIN LATERAL (SELECT label FROM classify_embedding(mean, $1) ORDER BY score DESC LIMIT 1) AS named
CROSS JOIN LATERAL (
    SELECT p.*, 1 - (p.embedding <=> mean) AS similarity
    FROM members AS m JOIN pictures AS p USING (id) WHERE m.cluster = clusters.cluster
    ORDER BY p.embedding <=> mean LIMIT $2
) AS central
ORDER BY size DESC, cluster, similarity DESC";

const LIKED: &str = "\
SELECT name, label, data, similarity
FROM (
    SELECT *, diverse_rank(embedding, similarity, 0.3) OVER () AS place
    FROM (
        SELECT p.*, 1 - (p.embedding <=> direction) AS similarity
        FROM pictures AS p, (SELECT taste(embedding, 1) AS direction FROM pictures WHERE id = ANY ($1)) AS liked
        WHERE id <> ALL ($1) ORDER BY p.embedding <=> direction LIMIT 40
    ) AS candidates
) AS ranked
ORDER BY place LIMIT $2";

impl Demo {
    /// Groups of near copies: those that were added, and what else is as near to another picture.
    pub fn group_copies(&mut self) -> Outcome<()> {
        println!("\n{GROUPS};");
        let explanation =
            format!("Pictures within a cosine distance of {COPIES_WITHIN} of each other, all of a group.");
        self.page.section("Groups of copies", &explanation, GROUPS);
        let rows = self.client.query(GROUPS, &[&COPIES_WITHIN])?;
        for group in rows.chunk_by(|a, b| number(a, 3) == number(b, 3)) {
            let names: Vec<&str> = group.iter().map(|row| row.get(0)).collect();
            println!("  group {:<22} {}", number(&group[0], 3), names.join(", "));
            let cards: Vec<Card> = group.iter().map(|row| card(row, "")).collect();
            self.page.row(&format!("group {}", number(&group[0], 3)), None, &cards);
        }
        Ok(())
    }

    /// Clusters by HDBSCAN, each with the best label for its mean and its most central pictures.
    pub fn cluster(&mut self) -> Outcome<()> {
        println!("\n{CLUSTERS};");
        let explanation = format!(
            "Where pictures lie denser than around. The name is the best of the labels {} for the mean of a cluster.",
            LABELS.join(", ")
        );
        self.page.section("Clusters with names", &explanation, CLUSTERS);
        let rows = self.client.query(CLUSTERS, &[&LABELS.as_slice(), &SHOWN])?;
        for cluster in rows.chunk_by(|a, b| number(a, 6) == number(b, 6)) {
            let size: i64 = cluster[0].get(5);
            let name = format!("{}, {size} pictures", cluster[0].get::<_, &str>(4));
            self.show(&name, None, cluster);
        }
        Ok(())
    }

    /// What is like some liked pictures, without twenty times the same.
    pub fn recommend(&mut self, is_sample: bool) -> Outcome<()> {
        println!("\n{LIKED};");
        let explanation = "Near the taste of somebody who liked these, ranked so that like pictures do not follow each other.";
        self.page.section("Because you liked", explanation, LIKED);
        for names in [["🍒 cherries", "🍋 lemon"], ["chelsea.png", "🐬 dolphin"]] {
            let liked = self.chosen(is_sample, &names)?;
            let rows = self.client.query(LIKED, &[&liked, &(SHOWN - 1)])?;
            let cards = liked.iter().map(|&id| self.picture(id, "liked")).collect::<Outcome<Vec<Card>>>()?;
            let names: Vec<&str> = cards.iter().map(|card| card.name.as_str()).collect();
            self.show(&names.join(", "), cards.first(), &rows);
        }
        Ok(())
    }
}

/// The number of a group or a cluster.
fn number(row: &Row, column: usize) -> i32 {
    row.get(column)
}

fn card(row: &Row, note: &str) -> Card {
    Card { name: row.get(0), note: note.to_owned(), thumbnail: page::thumbnail(row.get(2)) }
}

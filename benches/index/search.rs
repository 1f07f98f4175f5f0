//! Recall and cost of unfiltered searches.

use crate::contestant::{Contestant, DEFAULT};
use crate::curve::{Cost, Point, cost_at};
use crate::data::{Queries, Set};
use crate::session::Wire;
use crate::truth::{self, nearest, recall};
use postgres::Statement;

/// Times that a set of queries is repeated; the cheapest counts.
const ROUNDS: usize = 3;
const FLAT_QUERIES: usize = 10;
const RECALLS: [f64; 2] = [0.95, 0.99];

/// Recall and cost over all efforts, and the cost at given recalls.
pub fn search(set: &Set, queries: &Queries, all: &mut [Contestant]) {
    let exact = nearest(set, &queries.vectors, &|row| row < set.loaded);
    println!("\nqueries: {}; {}", queries.kind, truth::describe(set.metric, &exact));
    println!(
        "{:10} {:>6} {:>9} {:>8} {:>9} {:>11}",
        "contestant", "ef", "recall@10", "CPU ms", "queries/s", "index pages"
    );
    let statements: Vec<Statement> =
        all.iter_mut().map(|one| one.session.client.prepare(&one.search("")).expect("a statement")).collect();
    let count = queries.vectors.len() as f64;
    let mut curves: Vec<Vec<Point>> = vec![Vec::new(); all.len()];
    for ((one, statement), curve) in all.iter_mut().zip(&statements).zip(&mut curves) {
        if !one.is_index() {
            one.session.run("SET enable_indexscan = off");
            let some = &queries.vectors[..FLAT_QUERIES.min(queries.vectors.len())];
            one.session.answers(statement, some);
            let (answers, cost) = one.session.measure(|client| answers_of(client, statement, some));
            let found = recall(set, some, &exact[..some.len()], &answers);
            let n = some.len() as f64;
            curve.push(Point {
                effort: 0,
                recall: found,
                cpu_ms: 1e3 * cost.cpu_seconds / n,
                wall_ms: 1e3 * cost.wall_seconds / n,
                pages: 0.0,
            });
            continue;
        }
        if !one.is_planned("", &queries.vectors[0]) {
            println!("{:10} the planner does not choose the index; it is forced to", one.kind.name);
            one.session.run("SET enable_seqscan = off; SET enable_sort = off");
        }
        for &effort in one.kind.efforts {
            one.set_effort(effort);
            let before = one.session.index_blocks(&one.index);
            let answers = one.session.answers(statement, &queries.vectors);
            let pages = (one.session.index_blocks(&one.index) - before) / count;
            let found = recall(set, &queries.vectors, &exact, &answers);
            curve.push(Point { effort, recall: found, cpu_ms: f64::MAX, wall_ms: f64::MAX, pages });
        }
    }
    let longest = curves.iter().map(Vec::len).max().unwrap_or(0);
    for _ in 0..ROUNDS {
        for step in 0..longest {
            for ((one, statement), curve) in all.iter_mut().zip(&statements).zip(&mut curves) {
                let Some(point) = curve.get_mut(step).filter(|_| one.is_index()) else { continue };
                one.set_effort(point.effort);
                let (_, cost) =
                    one.session.measure(|client| answers_of(client, statement, &queries.vectors).len());
                point.cpu_ms = point.cpu_ms.min(1e3 * cost.cpu_seconds / count);
                point.wall_ms = point.wall_ms.min(1e3 * cost.wall_seconds / count);
            }
        }
    }
    for (one, curve) in all.iter_mut().zip(&curves) {
        for point in curve {
            let effort = if point.effort == DEFAULT { "-".to_owned() } else { point.effort.to_string() };
            println!(
                "{:10} {:>6} {:9.4} {:8.3} {:9.0} {:11.0}",
                one.kind.name,
                effort,
                point.recall,
                point.cpu_ms,
                1e3 / point.wall_ms,
                point.pages
            );
        }
        if one.is_index() {
            one.session.run("RESET enable_seqscan; RESET enable_sort");
            one.set_effort(DEFAULT);
        }
    }
    println!("-: the default, or no effort to set");
    for wanted in RECALLS {
        let ours = all.iter().position(Contestant::is_ours).and_then(|i| cost_at(&curves[i], wanted).point());
        for (one, curve) in all.iter().zip(&curves).filter(|(one, _)| one.is_index()) {
            let cost = cost_at(curve, wanted);
            let Some(point) = cost.point() else {
                let most = curve.iter().map(|p| p.recall).fold(0.0, f64::max);
                println!("at recall {wanted}: {:10} never (most {most:.4})", one.kind.name);
                continue;
            };
            let note = match cost {
                Cost::Least(point) => format!(" (its least effort, recall {:.4})", point.recall),
                Cost::Between(_) | Cost::Never => String::new(),
            };
            let ratio = ours.filter(|_| !one.is_ours()).map_or(String::new(), |ours| {
                format!(
                    "; ann takes {:.1} times less CPU, gives {:.1} times the queries/s",
                    point.cpu_ms / ours.cpu_ms,
                    point.wall_ms / ours.wall_ms
                )
            });
            println!(
                "at recall {wanted}: {:10} {:.3} ms CPU, {:.0} queries/s, {:.0} index pages, ef {}{note}{ratio}",
                one.kind.name,
                point.cpu_ms,
                1e3 / point.wall_ms,
                point.pages,
                point.effort
            );
        }
    }
}

pub fn answers_of(
    client: &mut postgres::Client,
    statement: &Statement,
    queries: &[Vec<f32>],
) -> Vec<Vec<usize>> {
    let ids = |query: &Vec<f32>| {
        let rows = client.query(statement, &[&Wire(query)]).expect("an answer");
        rows.iter().map(|row| usize::try_from(row.get::<_, i32>(0)).expect("a row number")).collect()
    };
    queries.iter().map(ids).collect()
}

//! Searches under conditions on columns: scattered over the space, in one region of it, far from the query, and tenants.

use crate::contestant::{Contestant, DEFAULT};
use crate::data::Set;
use crate::search::answers_of;
use crate::truth::{K, nearest, recall};

const QUERIES: usize = 60;
/// Of a plan that takes a hundred milliseconds a query.
const FEW: usize = 15;
/// Rows beyond which the exact plan is asked fewer times.
const MANY_ROWS: usize = 20_000;
const SHARES: [f32; 5] = [0.5, 0.1, 0.03, 0.01, 0.001];
const TENANTS: [i32; 4] = [1, 10, 100, 900];

struct Filter {
    name: String,
    condition: String,
    passes: Box<dyn Fn(usize) -> bool + Sync>,
}

fn filters(set: &Set) -> Vec<Filter> {
    let mut all =
        vec![Filter { name: "no filter".to_owned(), condition: String::new(), passes: Box::new(|_| true) }];
    let loaded = set.loaded;
    let mut add = |name: String, condition: String, passes: Vec<bool>| {
        let condition = format!("WHERE {condition}");
        all.push(Filter { name, condition, passes: Box::new(move |row| row < loaded && passes[row]) });
    };
    let of = &set.attributes;
    for share in SHARES {
        let percent = 100.0 * share;
        let is = |x: &f32| *x < share;
        add(
            format!("{percent} % scattered"),
            format!("chance < {share}"),
            of.chance.iter().map(is).collect(),
        );
        let from = 1.0 - share;
        add(
            format!("{percent} % region"),
            format!("region >= {from}::real"),
            of.region.iter().map(|&x| x >= from).collect(),
        );
        add(format!("{percent} % far end"), format!("region < {share}"), of.region.iter().map(is).collect());
    }
    for tenant in TENANTS {
        let rows = of.owner[..loaded].iter().filter(|&&o| o == tenant).count();
        add(
            format!("tenant of {rows} rows"),
            format!("owner = {tenant}"),
            of.owner.iter().map(|&o| o == tenant).collect(),
        );
    }
    add(
        "5 % and two owners".to_owned(),
        "chance < 0.05 AND owner IN (1, 2)".to_owned(),
        of.chance.iter().zip(&of.owner).map(|(&x, &o)| x < 0.05 && o <= 2).collect(),
    );
    all
}

pub fn run(set: &Set, all: &mut [Contestant]) {
    let filters = filters(set);
    for queries in &set.queries {
        let queries: (&str, Vec<Vec<f32>>) =
            (queries.kind, queries.vectors.iter().take(QUERIES).cloned().collect());
        println!(
            "\nfilters, queries: {}; at the defaults. index: that plan, forced; exact: rows that pass, sorted; * the planner's choice",
            queries.0
        );
        println!(
            "{:24} {:10} {:16} {:>6} {:>9} {:>9}",
            "filter", "contestant", "plan", "full", "recall@10", "CPU ms"
        );
        for filter in &filters {
            let live = |row: usize| row < set.loaded && (filter.passes)(row);
            let exact = nearest(set, &queries.1, &live);
            let passing = (0..set.loaded).filter(|&row| live(row)).count();
            for one in all.iter_mut().filter(|one| one.is_index()) {
                one.set_effort(DEFAULT);
                let chosen = if one.is_planned(&filter.condition, &queries.1[0]) { "index" } else { "exact" };
                for plan in plans(one, chosen, !filter.condition.is_empty()) {
                    one.session.run(&plan.settings);
                    let few = plan.kind == "exact" && passing > MANY_ROWS;
                    let asked = &queries.1[..if few { FEW } else { QUERIES }.min(queries.1.len())];
                    let statement =
                        one.session.client.prepare(&one.search(&filter.condition)).expect("a statement");
                    one.session.answers(&statement, &asked[..5]);
                    let (answers, cost) = one.session.measure(|client| answers_of(client, &statement, asked));
                    let full = answers.iter().zip(&exact).filter(|(a, e)| a.len() == K.min(e.len())).count();
                    println!(
                        "{:24} {:10} {:16} {:5.0}% {:9.4} {:9.3}",
                        filter.name,
                        one.kind.name,
                        format!("{}{}", if plan.kind == chosen { "*" } else { "" }, plan.name),
                        100.0 * full as f64 / asked.len() as f64,
                        recall(set, asked, &exact[..asked.len()], &answers),
                        1e3 * cost.cpu_seconds / asked.len() as f64
                    );
                    one.session.run("RESET ALL; SET plan_cache_mode = force_generic_plan; SET max_parallel_workers_per_gather = 0");
                }
            }
        }
    }
}

struct Plan {
    kind: &'static str,
    name: &'static str,
    settings: String,
}

const INDEX: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;";

/// The plans to try. Of ours without key columns the one that the planner takes; of pgvector iterative scans with its limits
/// out of the way.
fn plans(one: &Contestant, chosen: &'static str, filtered: bool) -> Vec<Plan> {
    let index = Plan { kind: "index", name: "index", settings: INDEX.to_owned() };
    let exact = Plan { kind: "exact", name: "exact", settings: "SET enable_indexscan = off".to_owned() };
    if !filtered {
        return vec![index];
    }
    if one.is_ours() {
        return match (one.has_keys(), chosen) {
            (true, _) => vec![index, exact],
            (false, "index") => vec![index],
            (false, _) => Vec::new(),
        };
    }
    let iterative = [("iterative, 40", 40), ("iterative, 200", 200)];
    iterative.map(|(name, ef)| Plan { kind: "index", name, settings: iterative_scan(ef) }).into()
}

fn iterative_scan(ef: u32) -> String {
    format!(
        "{INDEX} SET hnsw.iterative_scan = relaxed_order; SET hnsw.ef_search = {ef};
         SET hnsw.max_scan_tuples = 10000000; SET hnsw.scan_mem_multiplier = 20"
    )
}

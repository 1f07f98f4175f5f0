//! Recall@10 and cost of searches under filters on key columns: `cargo bench -p imgvec-ann --bench filters [-- rows [dimensions]]`.
//!
//! In process, one thread, generated rows in a latent space with queries like rows and like texts. A filter is scattered, or a
//! region of the space somewhere, or the region that is farthest from the query. Costs are multiples of the same queries without
//! a filter.

#[path = "../tests/common/mod.rs"]
mod common;

use common::filtered::{REGION, SCATTERED, build_with_keys, keys, passing, share};
use common::{exact, latent, nearest};
use imgvec_ann::filter::{Condition, Filter};
use imgvec_ann::graph::search::{Options, Search, filtered_hops};
use imgvec_ann::{Index, Metric};

fn thread_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|x| x.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let n = numbers.first().copied().unwrap_or(50_000);
    let dim = numbers.get(1).copied().unwrap_or(512);
    let lookahead = numbers.get(2).copied().unwrap_or(60);
    let images = latent(dim, n, 200, dim / 5, 3, false);
    let keys = keys(&images, 5);
    let start = thread_seconds();
    let store = build_with_keys(Metric::Cosine, &images, &keys, usize::MAX);
    println!("build {:.2} s of this thread", thread_seconds() - start);
    let index = Index::open(&store).unwrap();
    println!("{} bytes a row", store_bytes(&store) / n);
    for like_texts in [false, true] {
        let data = latent(dim, n, 200, dim / 5, 3, like_texts);
        let measure = |name: &str,
                       conditions: &dyn Fn(usize) -> Vec<(usize, Condition)>,
                       base: Option<(f64, f64)>,
                       part: f64| {
            let (mut hits, mut wanted, mut hops, mut swept, mut seconds) = (0, 0, 0, 0, 0.0);
            for (i, query) in data.queries.iter().enumerate() {
                let conditions = conditions(i);
                let rows = passing(&index, &keys, &conditions);
                let some: Vec<Vec<f32>> = rows.iter().map(|&row| data.rows[row].clone()).collect();
                let truth: Vec<usize> =
                    exact(Metric::Cosine, &some, query, 10).into_iter().map(|i| rows[i]).collect();
                let filter = Filter::new(index.space().columns(), conditions);
                let options = Options { lookahead, ..Options::default() };
                let start = thread_seconds();
                let search = Search::filtered(&index, query, filter, &options).unwrap();
                let (found, _, stats) =
                    nearest(search, &store, &index, Metric::Cosine, &data.rows, query, 10);
                seconds += thread_seconds() - start;
                hits += found.iter().filter(|row| truth.contains(row)).count();
                wanted += truth.len();
                hops += stats.hops;
                swept += stats.swept_pages;
            }
            let q = data.queries.len() as f64;
            let (us, hops) = (seconds / q * 1e6, hops as f64 / q);
            let (by_us, by_hops) = base.map_or((1.0, 1.0), |(a, b)| (us / a, hops / b));
            println!(
                "{name:28} recall {:.3}  {hops:7.0} hops ({by_hops:5.2}x, expected {:5.2}x)  {us:7.0} us ({by_us:5.2}x)  {:5.0} swept",
                hits as f64 / wanted.max(1) as f64,
                filtered_hops(part, lookahead as f64),
                swept as f64 / q
            );
            (us, hops)
        };
        println!("\n{}, lookahead {lookahead}", data.name);
        let base = measure("no filter", &|_| Vec::new(), None, 1.0);
        for part in [0.5, 0.2, 0.1, 0.05, 0.03, 0.01, 0.003, 0.001] {
            let scattered = |i: usize| vec![share(SCATTERED, (i % 50) as f64 / 100.0, part)];
            let region = |i: usize| vec![share(REGION, (i * 7 % 100) as f64 / 100.0 * (1.0 - part), part)];
            let far = |_: usize| vec![share(REGION, 0.0, part)];
            let both = |i: usize| {
                vec![
                    share(SCATTERED, (i % 50) as f64 / 100.0, part.sqrt().min(0.5)),
                    share(REGION, 0.3, part.sqrt()),
                ]
            };
            measure(&format!("{:5.1} % scattered", part * 100.0), &scattered, Some(base), part);
            measure(&format!("{:5.1} % region", part * 100.0), &region, Some(base), part);
            measure(&format!("{:5.1} % far end", part * 100.0), &far, Some(base), part);
            measure(&format!("{:5.1} % of two columns", part * 100.0), &both, Some(base), part);
        }
    }
}

fn store_bytes(store: &imgvec_ann::store::mem::MemStore) -> usize {
    use imgvec_ann::store::PageStore;
    store.block_count().unwrap() as usize * 8192
}

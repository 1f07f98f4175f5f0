//! Who competes: a table of its own type, an index over it, and how its effort is set.

use crate::cluster::Cluster;
use crate::data::{Metric, Set};
use crate::session::{Cost, Session};
use crate::truth::K;

/// What tells one contestant from another.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    /// Type of the column.
    ty: &'static str,
    /// Access method; empty for the scan of the whole table.
    method: &'static str,
    /// Setting of the effort.
    effort: &'static str,
    pub efforts: &'static [u32],
    pub default_effort: u32,
    options: &'static str,
}

pub const FLAT: Kind = Kind {
    name: "flat scan",
    ty: "imgvec",
    method: "",
    effort: "",
    efforts: &[],
    default_effort: 0,
    options: "",
};
pub const ANN: Kind = Kind {
    name: "ann",
    ty: "imgvec",
    method: "ann",
    effort: "imgvec.ef_search",
    efforts: &[10, 20, 40, 60, 80, 100, 160, 240, 400, 800, 1600],
    default_effort: 100,
    options: "",
};
pub const HNSW: Kind = Kind {
    name: "hnsw",
    ty: "vector",
    method: "hnsw",
    effort: "hnsw.ef_search",
    efforts: &[10, 20, 40, 80, 120, 200, 400, 1000],
    default_effort: 40,
    options: "WITH (m = 16, ef_construction = 64)",
};
pub const HALFVEC: Kind = Kind { name: "hnsw half", ty: "halfvec", ..HNSW };

/// One of them, with a session of its own.
pub struct Contestant {
    pub kind: Kind,
    pub session: Session,
    pub table: String,
    pub index: String,
    metric: Metric,
}

impl Contestant {
    /// Makes and fills the table.
    pub fn new(kind: Kind, cluster: &Cluster, set: &Set, chances: &[f32], memory_mb: usize) -> Self {
        let mut session = Session::new(cluster);
        let table = format!("{}_{}", set.name, kind.name.replace(' ', "_"));
        let index = format!("{table}_index");
        let dim = set.dim();
        // A prepared statement is planned once; parallel scans would hide cost in other processes.
        session.run(&format!(
            "SET plan_cache_mode = force_generic_plan; SET max_parallel_workers_per_gather = 0;
             SET maintenance_work_mem = '{memory_mb}MB';
             CREATE TABLE {table} (id integer PRIMARY KEY, chance real, embedding {}({dim}))",
            kind.ty
        ));
        let rows = || (0..set.loaded).map(|i| (i, chances[i], set.rows[i].as_slice()));
        if kind.ty == "halfvec" {
            session.run(&format!("CREATE TEMP TABLE f32 (id integer, chance real, embedding vector({dim}))"));
            session.copy("f32", rows());
            session.run(&format!(
                "INSERT INTO {table} SELECT id, chance, embedding::halfvec({dim}) FROM f32; DROP TABLE f32"
            ));
        } else {
            session.copy(&table, rows());
        }
        // An index on the filter's column gives the planner its choice.
        session.run(&format!("CREATE INDEX ON {table} (chance)"));
        session.run(&format!("VACUUM (ANALYZE) {table}"));
        Self { kind, session, table, index, metric: set.metric }
    }

    /// Builds the index; its cost and WAL bytes.
    pub fn build(&mut self) -> (Cost, f64) {
        // The size of the table without its TOAST part, by which workers are counted, hides that it is large.
        self.session.run(&format!(
            "ALTER TABLE {} SET (parallel_workers = 1); SET max_parallel_maintenance_workers = 1; CHECKPOINT",
            self.table
        ));
        let before = self.session.wal_bytes();
        let cost = self.session.measure_all(&format!(
            "CREATE INDEX {} ON {} USING {} (embedding {}_{}_ops) {}",
            self.index,
            self.table,
            self.kind.method,
            self.kind.ty,
            self.metric.name(),
            self.kind.options
        ));
        let wal = self.session.wal_bytes() - before;
        // Neither vacuum's leftovers nor dirty pages shall be paid for by queries.
        self.session.run("CHECKPOINT");
        (cost, wal)
    }

    pub fn is_index(&self) -> bool {
        !self.kind.method.is_empty()
    }

    pub fn is_ours(&self) -> bool {
        self.kind.method == ANN.method
    }

    pub fn reset_effort(&mut self) {
        self.session.run(&format!("RESET {}", self.kind.effort));
    }

    pub fn set_effort(&mut self, effort: u32) {
        self.session.run(&format!("SET {} = {effort}", self.kind.effort));
    }

    /// The search for ten neighbors, `$1` being the query; `filter` starts with WHERE or is empty.
    pub fn search(&self, filter: &str) -> String {
        let query = if self.kind.ty == "halfvec" { "$1::vector::halfvec" } else { "$1" };
        let operator = self.metric.operator();
        format!("SELECT id FROM {} {filter} ORDER BY embedding {operator} {query} LIMIT {K}", self.table)
    }

    /// Whether the planner uses the index for a search.
    pub fn is_planned(&mut self, filter: &str, query: &[f32]) -> bool {
        let ty = if self.kind.ty == "halfvec" { "vector" } else { self.kind.ty };
        let search = self.search(filter);
        self.session.run(&format!("PREPARE plan ({ty}) AS {search}"));
        let plan =
            self.session.client.simple_query(&format!("EXPLAIN (COSTS OFF) EXECUTE plan ('{query:?}')"));
        self.session.run("DEALLOCATE plan");
        let index = format!("using {}", self.index);
        plan.expect("a plan").iter().any(|line| {
            matches!(line, postgres::SimpleQueryMessage::Row(row) if row.get(0).is_some_and(|l| l.ends_with(&format!("{index} on {}", self.table))))
        })
    }
}

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
    /// Key columns of the index, after a comma.
    pub keys: &'static str,
    /// Setting of the effort.
    effort: &'static str,
    pub efforts: &'static [u32],
    options: &'static str,
}

pub const FLAT: Kind =
    Kind { name: "flat scan", ty: "imgvec", method: "", keys: "", effort: "", efforts: &[], options: "" };
pub const ANN: Kind = Kind {
    name: "ann",
    ty: "imgvec",
    method: "ann",
    keys: "",
    effort: "imgvec.ef_search",
    efforts: &[DEFAULT, 5, 10, 20, 40, 60, 80, 120, 200, 400, 800],
    options: "",
};
/// The same index with the columns that filters ask for.
pub const ANN_KEYS: Kind = Kind { name: "ann keys", keys: ", chance, region, owner", ..ANN };
pub const HNSW: Kind = Kind {
    name: "hnsw",
    ty: "vector",
    method: "hnsw",
    keys: "",
    effort: "hnsw.ef_search",
    efforts: &[DEFAULT, 10, 20, 40, 80, 120, 200, 400, 1000],
    options: "WITH (m = 16, ef_construction = 64)",
};
pub const HALFVEC: Kind = Kind { name: "hnsw half", ty: "halfvec", ..HNSW };

/// The effort that a user gets who sets none.
pub const DEFAULT: u32 = 0;

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
    pub fn new(kind: Kind, cluster: &Cluster, set: &Set, memory_mb: usize) -> Self {
        let mut session = Session::new(cluster);
        let table = format!("{}_{}", set.name, kind.name.replace(' ', "_"));
        let index = format!("{table}_index");
        let dim = set.dim();
        let columns = "id integer, chance real, region real, owner integer";
        // A prepared statement is planned once; parallel scans would hide cost in other processes.
        session.run(&format!(
            "SET plan_cache_mode = force_generic_plan; SET max_parallel_workers_per_gather = 0;
             SET maintenance_work_mem = '{memory_mb}MB';
             CREATE TABLE {table} ({columns}, embedding {}({dim}), PRIMARY KEY (id))",
            kind.ty
        ));
        let rows = || (0..set.loaded).map(|i| (values(set, i), set.rows[i].as_slice()));
        if kind.ty == "halfvec" {
            session.run(&format!("CREATE TEMP TABLE f32 ({columns}, embedding vector({dim}))"));
            session.copy("f32", rows());
            session.run(&format!("INSERT INTO {table} SELECT * FROM f32; DROP TABLE f32"));
        } else {
            session.copy(&table, rows());
        }
        // Indexes on the filters' columns give the planner its choice.
        for column in ["chance", "region", "owner"] {
            session.run(&format!("CREATE INDEX ON {table} ({column})"));
        }
        session.run(&format!("VACUUM (ANALYZE) {table}"));
        Self { kind, session, table, index, metric: set.metric }
    }

    /// The statement that makes an index like this one.
    pub fn create_index(&self, name: &str, table: &str) -> String {
        let Kind { ty, method, keys, options, .. } = self.kind;
        let class = format!("{ty}_{}_ops", self.metric.name());
        format!("CREATE INDEX {name} ON {table} USING {method} (embedding {class}{keys}) {options}")
    }

    /// Builds the index; its cost and WAL bytes.
    pub fn build(&mut self) -> (Cost, f64) {
        // The size of the table without its TOAST part, by which workers are counted, hides that it is large.
        self.session.run(&format!(
            "ALTER TABLE {} SET (parallel_workers = 1); SET max_parallel_maintenance_workers = 1; CHECKPOINT",
            self.table
        ));
        let before = self.session.wal_bytes();
        let create = self.create_index(&self.index, &self.table);
        let cost = self.session.measure_all(&create);
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

    pub fn has_keys(&self) -> bool {
        !self.kind.keys.is_empty()
    }

    pub fn set_effort(&mut self, effort: u32) {
        self.session.run(&if effort == DEFAULT {
            format!("RESET {}", self.kind.effort)
        } else {
            format!("SET {} = {effort}", self.kind.effort)
        });
    }

    /// The search for ten neighbors, `$1` being the query; `filter` starts with WHERE or is empty.
    pub fn search(&self, filter: &str) -> String {
        format!("{} LIMIT {K}", self.ordered(&self.table, filter))
    }

    /// The same without a limit, of any table of this kind.
    pub fn ordered(&self, table: &str, filter: &str) -> String {
        format!("SELECT id FROM {table} {filter} ORDER BY {}", self.distance())
    }

    /// The distance to the query.
    pub fn distance(&self) -> String {
        let query = if self.kind.ty == "halfvec" { "$1::vector::halfvec" } else { "$1" };
        format!("embedding {} {query}", self.metric.operator())
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

/// What the table holds of a row besides its vector.
pub fn values(set: &Set, row: usize) -> [[u8; 4]; 4] {
    let of = &set.attributes;
    let id = i32::try_from(row).expect("a row number");
    [
        id.to_be_bytes(),
        of.chance[row].to_be_bytes(),
        of.region[row].to_be_bytes(),
        of.owner[row].to_be_bytes(),
    ]
}

//! A connection to the server that knows what its backend costs.

use crate::cluster::Cluster;
use postgres::types::private::BytesMut;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Statement};
use std::error::Error;
use std::io::Write as _;
use std::time::Instant;

/// A vector in the binary format that imgvec and pgvector share, so that parsing text is not measured.
#[derive(Debug)]
pub struct Wire<'a>(pub &'a [f32]);

impl ToSql for Wire<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let mut message = Vec::new();
        imgvec_vector::wire::encode(self.0, &mut message);
        out.extend_from_slice(&message);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        ["imgvec", "vector"].contains(&ty.name())
    }

    to_sql_checked!();
}

/// What some work took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub wall_seconds: f64,
    pub cpu_seconds: f64,
}

pub struct Session {
    pub client: Client,
    pid: u32,
    postmaster: u32,
}

impl Session {
    pub fn new(cluster: &Cluster) -> Self {
        let mut client = cluster.client();
        let row = client.query_one("SELECT pg_backend_pid()", &[]).expect("a process id");
        let pid = u32::try_from(row.get::<_, i32>(0)).expect("a process id is positive");
        let postmaster = std::fs::read_to_string(cluster.data().join("postmaster.pid"))
            .ok()
            .and_then(|text| text.lines().next()?.parse().ok())
            .expect("the server says its process id");
        Self { client, pid, postmaster }
    }

    /// Runs statements.
    ///
    /// # Panics
    /// With the server's message.
    pub fn run(&mut self, sql: &str) {
        self.client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The one number that a query gives.
    pub fn number(&mut self, sql: &str) -> f64 {
        let row = self.client.query_one(&format!("SELECT ({sql})::float8"), &[]);
        row.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }

    pub fn has(&mut self, sql: &str) -> bool {
        !self.client.query(sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}")).is_empty()
    }

    /// Short work of the backend's main thread, by the scheduler's clock in nanoseconds.
    pub fn measure<T>(&mut self, work: impl FnOnce(&mut Client) -> T) -> (T, Cost) {
        let (cpu, wall) = (scheduled(self.pid), Instant::now());
        let result = work(&mut self.client);
        let wall_seconds = wall.elapsed().as_secs_f64();
        (result, Cost { wall_seconds, cpu_seconds: scheduled(self.pid) - cpu })
    }

    /// Long work of the backend with its threads and parallel workers, in hundredths of a second. A worker that has ended
    /// counts as a child of the postmaster, so nothing else may happen in the server.
    pub fn measure_all(&mut self, sql: &str) -> Cost {
        let used = |s: &Self| ticks(s.pid, [11, 12]) + ticks(s.postmaster, [13, 14]);
        let (cpu, wall) = (used(self), Instant::now());
        self.run(sql);
        let wall_seconds = wall.elapsed().as_secs_f64();
        Cost { wall_seconds, cpu_seconds: used(self) - cpu }
    }

    /// Fills a table by binary COPY: columns of four bytes, in the server's byte order on the wire, then the vector.
    pub fn copy<'a, const N: usize>(
        &mut self,
        table: &str,
        rows: impl Iterator<Item = ([[u8; 4]; N], &'a [f32])>,
    ) {
        let mut to = self
            .client
            .copy_in(&format!("COPY {table} FROM STDIN (FORMAT binary)"))
            .expect("a table to fill");
        let mut buffer = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        let field = |buffer: &mut Vec<u8>, value: &[u8]| {
            let length = i32::try_from(value.len()).expect("a short value");
            buffer.extend_from_slice(&length.to_be_bytes());
            buffer.extend_from_slice(value);
        };
        let mut vector = Vec::new();
        for (values, row) in rows {
            let fields = i16::try_from(N + 1).expect("few columns");
            buffer.extend_from_slice(&fields.to_be_bytes());
            for value in values {
                field(&mut buffer, &value);
            }
            vector.clear();
            imgvec_vector::wire::encode(row, &mut vector);
            field(&mut buffer, &vector);
            if buffer.len() > 1 << 20 {
                to.write_all(&buffer).expect("the server takes rows");
                buffer.clear();
            }
        }
        buffer.extend_from_slice(&(-1_i16).to_be_bytes());
        to.write_all(&buffer).expect("the server takes rows");
        to.finish().expect("the rows are loaded");
    }

    /// The ids that a statement gives for each query.
    pub fn answers(&mut self, statement: &Statement, queries: &[Vec<f32>]) -> Vec<Vec<usize>> {
        queries
            .iter()
            .map(|query| {
                let rows = self.client.query(statement, &[&Wire(query)]).expect("an answer");
                rows.iter().map(|row| usize::try_from(row.get::<_, i32>(0)).expect("a row number")).collect()
            })
            .collect()
    }

    /// Blocks of an index that this session touched so far, in the buffer pool or not.
    pub fn index_blocks(&mut self, index: &str) -> f64 {
        if self.has("SELECT FROM pg_proc WHERE proname = 'pg_stat_force_next_flush'") {
            self.run("SELECT pg_stat_force_next_flush()");
        } else {
            // PostgreSQL 14 publishes what an idle session did twice a second.
            self.run("SELECT pg_sleep(1)");
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        self.run("SELECT pg_stat_clear_snapshot()");
        self.number(&format!(
            "SELECT idx_blks_hit + idx_blks_read FROM pg_statio_all_indexes WHERE indexrelid = '{index}'::regclass"
        ))
    }

    pub fn wal_bytes(&mut self) -> f64 {
        self.number("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
    }
}

fn scheduled(pid: u32) -> f64 {
    let path = format!("/proc/{pid}/schedstat");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    text.split_whitespace().next().and_then(|x| x.parse::<f64>().ok()).expect("nanoseconds") / 1e9
}

/// The sum of two fields of `/proc/<pid>/stat`, counted after the program's name, in seconds.
fn ticks(pid: u32, fields: [usize; 2]) -> f64 {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    let after: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.iter().map(|&i| after[i].parse::<f64>().expect("clock ticks")).sum::<f64>() / 100.0
}

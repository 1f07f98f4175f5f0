//! Time, memory and phases of a build: `ROWS=1000000 MEMORY_MB=256 cargo bench -p imgvec-ann --bench build`.
//!
//! Rows of 512 dimensions in tight clusters are generated while they are added, so that what the process
//! holds is the build alone; pages are counted and dropped. What exceeds the memory goes to files in the
//! directory for temporary files. Times are CPU seconds of all threads, without the generator's.

use imgvec_ann::Metric;
use imgvec_ann::build::executor::Threads;
use imgvec_ann::build::spill::{Spill, SpillFile};
use imgvec_ann::build::{Builder, Parameters};
use imgvec_ann::layout::{Geometry, HeapTid, Page};
use imgvec_ann::random::SplitMix64;
use imgvec_ann::store::PageSink;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

const DIM: usize = 512;
/// Rows per cluster, on average.
const CLUSTER: usize = 100;
/// Rows generated before they are added together: reading the clock costs microseconds.
const BATCH: usize = 1000;

/// Clusters of low rank round random centers.
struct Rows {
    random: SplitMix64,
    centers: Vec<Vec<f32>>,
    axes: Vec<Vec<f32>>,
}

impl Rows {
    fn new(clusters: usize) -> Self {
        let mut rows = Self { random: SplitMix64::new(1), centers: Vec::new(), axes: Vec::new() };
        rows.centers = (0..clusters).map(|_| rows.noise(1.0)).collect();
        rows.axes = (0..64).map(|_| rows.noise(1.0)).collect();
        rows
    }

    /// Four sums of two uniform numbers from each 64 bits: bell-shaped enough.
    fn noise(&mut self, scale: f32) -> Vec<f32> {
        let mut vector = Vec::with_capacity(DIM);
        while vector.len() < DIM {
            let bytes = self.random.next_u64().to_le_bytes();
            vector.extend(
                bytes
                    .chunks_exact(2)
                    .map(|two| (f32::from(two[0]) + f32::from(two[1]) - 255.0) * scale / 104.0),
            );
        }
        vector
    }

    fn next(&mut self) -> Vec<f32> {
        let mut row = self.noise(0.15);
        let mut add = |other: &[f32], factor: f32| {
            for (x, y) in row.iter_mut().zip(other) {
                *x += factor * y;
            }
        };
        let center = self.random.below(self.centers.len());
        add(&self.centers[center], 1.0);
        for _ in 0..8 {
            let axis = self.random.below(self.axes.len());
            add(&self.axes[axis], 0.2);
        }
        row
    }
}

/// Counts pages.
#[derive(Default)]
struct Count(u64);

impl PageSink for Count {
    type Error = Infallible;

    fn append(&mut self, _: &Page) -> Result<(), Infallible> {
        self.0 += 1;
        Ok(())
    }
}

/// Files that have no name any more: they vanish when they are closed.
struct TemporaryFiles(u32);

impl Spill for TemporaryFiles {
    fn create(&mut self) -> io::Result<Box<dyn SpillFile>> {
        self.0 += 1;
        let path = std::env::temp_dir().join(format!("imgvec-build-{}-{}", std::process::id(), self.0));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(path)?;
        Ok(Box::new(TemporaryFile(file)))
    }
}

struct TemporaryFile(File);

impl SpillFile for TemporaryFile {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(bytes, at)
    }
}

fn main() {
    let number =
        |name: &str, default: usize| std::env::var(name).map_or(default, |x| x.parse().expect("a number"));
    let (n, memory) = (number("ROWS", 100_000), number("MEMORY_MB", 4096) << 20);
    let mut rows = Rows::new(n.div_ceil(CLUSTER));
    let sample: Vec<Vec<f32>> = (0..1000).map(|_| rows.next()).collect();
    let sample: Vec<&[f32]> = sample.iter().map(Vec::as_slice).collect();
    let geometry = Geometry::new(DIM).expect("a fine dimension");
    let parameters = Parameters::default();
    let builder =
        Builder::new(Metric::Cosine, geometry, 1, &sample, memory, parameters).expect("finite vectors");
    let mut builder = builder.spill_to(Box::new(TemporaryFiles(0)));
    println!("{n} x {DIM}, limit {} MB; the generator holds {} MB", memory >> 20, peak_mb());
    let (mut adding, mut batch) = (0.0, Vec::new());
    for i in 0..n {
        batch.push(rows.next());
        if batch.len() == BATCH || i + 1 == n {
            let start = cpu_seconds();
            for (k, row) in (i + 1 - batch.len()..).zip(&batch) {
                let tid = HeapTid { block: (k / 100) as u32, offset: (k % 100) as u16 + 1 };
                builder.add(row, tid).expect("finite vectors");
            }
            adding += cpu_seconds() - start;
            batch.clear();
        }
    }
    drop(rows);
    println!("{:>10}: {adding:7.2} s CPU, peak {} MB", "add", peak_mb());
    let cancel = AtomicBool::new(false);
    let (start, mut sink) = ((Instant::now(), cpu_seconds()), Count::default());
    let mut phase: Option<(String, Instant, f64)> = None;
    // Phases may come again and again.
    let mut totals: Vec<(String, f64, f64, usize)> = Vec::new();
    let mut end = |next: Option<String>| {
        if let Some((name, wall, cpu)) = phase.take() {
            let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
            match totals.iter_mut().find(|total| total.0 == name) {
                Some(total) => *total = (name, total.1 + cpu, total.2 + wall, peak_mb()),
                None => totals.push((name, cpu, wall, peak_mb())),
            }
        }
        phase = next.map(|name| (name, Instant::now(), cpu_seconds()));
    };
    let threads = Threads::new(number("WORKERS", 2), &cancel);
    let report = builder
        .finish(&threads, &mut sink, &mut |phase| end(Some(format!("{phase:?}"))))
        .expect("nothing fails");
    end(None);
    for (name, cpu, wall, peak) in totals {
        println!("{name:>10}: {cpu:7.2} s CPU, {wall:7.2} s wall, peak {peak} MB");
    }
    let (wall, cpu) = (start.0.elapsed().as_secs_f64(), cpu_seconds() - start.1);
    println!("{:>10}: {cpu:7.2} s CPU, {wall:7.2} s wall; {} pages; {report:?}", "finish", sink.0);
}

/// CPU time of this process with all its threads.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = tasks.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|x| x.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// The most memory this process ever held.
fn peak_mb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0) / 1024
}

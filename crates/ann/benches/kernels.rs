//! Each kernel on each instruction set that this machine has: `cargo bench -p imgvec-ann --bench kernels`.
//!
//! 512 dimensions; throughput is counted in vectors or codes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use imgvec_ann::arch::{Kernels, Level};
use imgvec_ann::quantize::rotation::Rotation;
use imgvec_ann::random::SplitMix64;
use std::hint::black_box;

const DIM: usize = 512;
const ROWS: usize = 256;

struct Inputs {
    floats: Vec<f32>,
    table: Vec<u8>,
    codes: Vec<u8>,
    rows: Vec<i8>,
}

fn inputs() -> Inputs {
    let mut random = SplitMix64::new(1);
    let mut bytes = |n: usize| -> Vec<u8> { (0..n).map(|_| random.next_u64().to_le_bytes()[7]).collect() };
    Inputs {
        floats: bytes(DIM).into_iter().map(|b| f32::from(b) / 255.0 - 0.5).collect(),
        table: bytes(4 * DIM),
        codes: bytes(4 * DIM),
        // Codes are at least -127.
        rows: bytes(DIM * ROWS).into_iter().map(|b| b.cast_signed().max(-127)).collect(),
    }
}

fn kernels(criterion: &mut Criterion) {
    let inputs = inputs();
    let all: Vec<(Level, Kernels)> =
        Level::available().into_iter().filter_map(|level| Some((level, Kernels::of(level)?))).collect();
    let mut run = |name: &str, units: usize, work: &mut dyn FnMut(Kernels)| {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(units as u64));
        for &(level, kernels) in &all {
            let id = BenchmarkId::from_parameter(format!("{level:?}"));
            group.bench_function(id, |bencher| bencher.iter(|| work(kernels)));
        }
        group.finish();
    };
    let one = &inputs.rows[..DIM];
    run("fastscan, 32 codes", 32, &mut |k| {
        black_box(k.fastscan(black_box(&inputs.table), black_box(&inputs.codes)));
    });
    run("dot f32 x int8", 1, &mut |k| {
        black_box(k.dot_f32_i8(black_box(&inputs.floats), black_box(one)));
    });
    run("dot int8 x int8", 1, &mut |k| {
        black_box(k.dot_i8(black_box(one), black_box(&inputs.rows[DIM..2 * DIM])));
    });
    let chosen: Vec<u32> = (0..32).map(|i| i * 7).collect();
    let mut dots = vec![0; chosen.len()];
    run("dots int8 with 32 rows", chosen.len(), &mut |k| {
        k.dots_i8(black_box(one), black_box(&inputs.rows), &chosen, &mut dots);
        black_box(&dots);
    });
    let mut products = vec![0; ROWS * ROWS];
    run("matrix int8, 256 x 256", ROWS * ROWS, &mut |k| {
        k.matrix_i8(black_box(&inputs.rows), black_box(&inputs.rows), DIM, &mut products);
        black_box(&products);
    });
    let mut bits = [0; DIM / 8];
    let decoded: Vec<f32> = one.iter().map(|&code| f32::from(code) * 0.01).collect();
    for planes in [1, 2] {
        run(&format!("residual code, {planes} bits"), 1, &mut |k| {
            let (base, other) = (black_box(&decoded), black_box(&inputs.floats));
            black_box(k.residual(base, other, &inputs.floats, planes, &mut bits[..planes * DIM / 16]));
        });
    }
    run("dot f32 x f32", 1, &mut |k| {
        black_box(k.dot_f32(black_box(&decoded), black_box(&inputs.floats)));
    });
    let mut sum = vec![0.0; DIM];
    run("add f32", 1, &mut |k| {
        k.add_scaled(&mut sum, black_box(1e-6), black_box(&inputs.floats));
        black_box(&sum);
    });
    run("decode", 1, &mut |k| {
        black_box(k.decode(black_box(&decoded), &inputs.floats, one, 0.01, &mut sum));
    });
    let mut codes = vec![0; DIM];
    run("quantize", 1, &mut |k| {
        black_box(k.quantize(black_box(&inputs.floats), 0.5, &mut codes));
    });
}

fn rotation(criterion: &mut Criterion) {
    let (inputs, rotation) = (inputs(), Rotation::new(DIM, 1));
    let mut out = vec![0.0; DIM];
    criterion.bench_function("rotation", |bencher| {
        bencher.iter(|| rotation.apply(black_box(&inputs.floats), black_box(&mut out)));
    });
}

criterion_group!(benches, kernels, rotation);
criterion_main!(benches);

//! Blocks of scores in the caches, and `rank` and `search` over a whole catalog, for every kernel of this CPU.

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use langptune_core::filter::{EightBits, Panel, Precision, TILE, UserTile, score_panels};
use langptune_core::{ItemIndex, Kernel, Matrix, Prepared, Ragged, Ties};

/// (name, users, items, dimensions): the paper's largest catalog, and one that no cache holds.
const SIZES: [(&str, usize, usize, usize); 2] = [("paper", 1_392, 10_533, 512), ("large", 256, 1_000_000, 384)];

/// Rows of pseudo-random values in [-1, 1).
fn embeddings(rows: usize, dim: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..rows * dim).map(|_| next()).collect()
}

fn ranking(criterion: &mut Criterion) {
    for (name, num_users, num_items, dim) in SIZES {
        let users = embeddings(num_users, dim, 1);
        let items = embeddings(num_items, dim, 2);
        let users = Matrix::new(&users, dim);
        let items = Matrix::new(&items, dim);
        let offsets: Vec<i64> = (0..=num_users as i64).collect();
        let targets: Vec<i64> = (0..num_users as i64).collect();
        let targets = Ragged::new("targets", &offsets, &targets, 0..num_items).unwrap();
        let nothing = Ragged::empty(num_users);

        let mut group = criterion.benchmark_group(name);
        // Two floating point operations for each value of each pair.
        group.sample_size(10).throughput(Throughput::Elements((2 * num_users * num_items * dim) as u64));
        for kernel in Kernel::supported() {
            let index = ItemIndex::from_prepared(items, Arc::new(Prepared::new(items, kernel).unwrap()));
            group.bench_function(BenchmarkId::new("rank", kernel.name()), |b| {
                b.iter(|| index.rank(users, &targets, &nothing, Ties::Index).unwrap());
            });
            for k in [20, 1000] {
                group.bench_function(BenchmarkId::new(format!("search {k}"), kernel.name()), |b| {
                    b.iter(|| index.search(users, k, &nothing).unwrap());
                });
            }
            println!("{name}, {}: {:.2}% rescored", kernel.name(), 100.0 * index.prepared().rescored_share());
        }
        group.finish();
    }
}

/// A tile of users and a block of items in the caches, on one thread: exact scores and approximate ones.
fn blocks(criterion: &mut Criterion) {
    let (num_users, num_items, dim) = (TILE, 256, 512);
    let users = embeddings(num_users, dim, 1);
    let items = embeddings(num_items, dim, 2);
    let (users, items) = (Matrix::new(&users, dim), Matrix::new(&items, dim));
    let mut scores = vec![0.0; num_users * num_items];
    let panels = Panel::all(items, Kernel::supported()[0]);
    let mut group = criterion.benchmark_group("block");
    group.throughput(Throughput::Elements((2 * num_users * num_items * dim) as u64));
    for kernel in Kernel::supported() {
        group.bench_function(BenchmarkId::new("exact", kernel.name()), |b| {
            b.iter(|| kernel.score_block(users, items, &mut scores));
        });
        let tile = UserTile::new(users, kernel);
        for &precision in kernel.precisions(dim) {
            let mut eight = vec![EightBits::default(); panels.len()];
            if precision == Precision::Eight {
                eight.iter_mut().zip(&panels).for_each(|(eight, panel)| eight.take(panel, kernel));
            }
            group.bench_function(BenchmarkId::new(format!("{precision:?}"), kernel.name()), |b| {
                b.iter(|| score_panels(kernel, precision, &tile, &panels, &eight, &mut scores));
            });
        }
    }
    group.finish();
}

/// What the machine gives at most: arithmetic that never leaves the registers, and reading from memory.
fn ceilings(criterion: &mut Criterion) {
    const STEPS: usize = 4096;
    let mut group = criterion.benchmark_group("ceiling");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni") {
        let factors: Vec<i32> = (0..STEPS as i32).collect();
        for (name, values, work) in [
            ("float32 products", 16, x86::float32_products as unsafe fn(&[i32]) -> i32),
            ("Sixteen products", 32, x86::sixteen_products),
            ("Eight products", 64, x86::eight_products),
        ] {
            group.throughput(Throughput::Elements((2 * STEPS * x86::SUMS * values) as u64));
            // SAFETY: the CPU was just asked and has the instructions.
            group.bench_function(name, |b| b.iter(|| unsafe { work(std::hint::black_box(&factors)) }));
        }
    }
    let memory = vec![1.0_f32; 1 << 26];
    group.sample_size(10).throughput(Throughput::Bytes(size_of_val(memory.as_slice()) as u64));
    group.bench_function("reading memory", |b| {
        b.iter(|| std::hint::black_box(&memory).chunks(16).map(|line| line[0]).sum::<f32>());
    });
    group.finish();
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// Independent sums, enough to hide the latency of each.
    pub const SUMS: usize = 24;

    macro_rules! products {
        ($name:ident, $zero:expr, $step:expr, $add:expr, $total:expr) => {
            #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
            pub fn $name(factors: &[i32]) -> i32 {
                let mut sums = [$zero; SUMS];
                for factor in factors {
                    let factor = _mm512_set1_epi32(*factor);
                    sums.iter_mut().for_each(|sum| *sum = $step(*sum, factor));
                }
                $total(sums.into_iter().fold($zero, |a, b| $add(a, b)))
            }
        };
    }

    products!(
        float32_products,
        _mm512_setzero_ps(),
        |sum, factor| _mm512_fmadd_ps(_mm512_castsi512_ps(factor), _mm512_castsi512_ps(factor), sum),
        |a, b| _mm512_add_ps(a, b),
        |sum| _mm512_reduce_add_ps(sum) as i32
    );
    products!(
        sixteen_products,
        _mm512_setzero_si512(),
        |sum, factor| _mm512_dpwssd_epi32(sum, factor, factor),
        |a, b| _mm512_add_epi32(a, b),
        |sum| _mm512_reduce_add_epi32(sum)
    );
    products!(
        eight_products,
        _mm512_setzero_si512(),
        |sum, factor| _mm512_dpbusd_epi32(sum, factor, factor),
        |a, b| _mm512_add_epi32(a, b),
        |sum| _mm512_reduce_add_epi32(sum)
    );
}

criterion_group!(benches, ceilings, blocks, ranking);
criterion_main!(benches);

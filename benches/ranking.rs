//! Blocks of scores in the caches, and `rank` and `search` over a whole catalog, for every kernel of this CPU.

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use langptune_core::filter::{Panel, RoundedUsers, score_panels};
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
        let targets = Ragged::new("targets", &offsets, &targets, num_items).unwrap();
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

/// One block of scores in the caches, on one thread.
fn blocks(criterion: &mut Criterion) {
    let (num_users, num_items, dim) = (96, 256, 512);
    let users = embeddings(num_users, dim, 1);
    let items = embeddings(num_items, dim, 2);
    let (users, items) = (Matrix::new(&users, dim), Matrix::new(&items, dim));
    let mut scores = vec![0.0; num_users * num_items];
    let mut group = criterion.benchmark_group("block");
    group.throughput(Throughput::Elements((2 * num_users * num_items * dim) as u64));
    for kernel in Kernel::supported() {
        group.bench_function(kernel.name(), |b| b.iter(|| kernel.score_block(users, items, &mut scores)));
    }
    if Kernel::supported()[0].filters() {
        let rounded = RoundedUsers::new(users);
        let panels = Panel::all(items);
        group.bench_function("approximate, bfloat16", |b| b.iter(|| score_panels(&rounded, &panels, &mut scores)));
    }
    group.finish();
}

criterion_group!(benches, blocks, ranking);
criterion_main!(benches);

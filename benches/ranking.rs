//! `rank` and `search` over a whole catalog, in scores computed per second.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use langptune_core::{ItemIndex, Matrix, Ragged, Ties, kernel};

/// (name, users, items, dimensions): the paper's largest catalog, and one that no cache holds.
const SIZES: [(&str, usize, usize, usize); 2] = [("paper", 1_392, 10_533, 512), ("large", 64, 200_000, 384)];

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
        let index = ItemIndex::new(Matrix::new(&items, dim)).unwrap();
        let offsets: Vec<i64> = (0..=num_users as i64).collect();
        let targets: Vec<i64> = (0..num_users as i64).collect();
        let targets = Ragged::new("targets", &offsets, &targets, num_items).unwrap();
        let nothing = Ragged::empty(num_users);

        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).throughput(Throughput::Elements((num_users * num_items) as u64));
        group.bench_function("rank", |b| b.iter(|| index.rank(users, &targets, &nothing, Ties::Index).unwrap()));
        for k in [20, 1000] {
            group.bench_function(BenchmarkId::new("search", k), |b| {
                b.iter(|| index.search(users, k, &nothing).unwrap())
            });
        }
        group.finish();
    }
}

/// One block of scores in the caches, on one thread: two floating point operations per element.
fn score_block(criterion: &mut Criterion) {
    let (num_users, num_items, dim) = (64, 128, 512);
    let users = embeddings(num_users, dim, 1);
    let items = embeddings(num_items, dim, 2);
    let mut scores = vec![0.0; num_users * num_items];
    let mut group = criterion.benchmark_group("kernel");
    group.throughput(Throughput::Elements((2 * num_users * num_items * dim) as u64));
    group.bench_function("score_block", |b| {
        b.iter(|| kernel::score_block(Matrix::new(&users, dim), Matrix::new(&items, dim), &mut scores));
    });
    group.finish();
}

criterion_group!(benches, score_block, ranking);
criterion_main!(benches);

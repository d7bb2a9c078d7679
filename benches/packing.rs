//! Packing of sequences with log-normal lengths: into bins, onto ranks, and the tokens into bin order.

use std::mem::MaybeUninit;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use langptune_core::Ragged;
use langptune_core::packing::{Layout, Together, Token, balance, pack_sequences};

const CAPACITY: usize = 2048;

/// Lengths with a mean of about 300 tokens: the exponential of a sum of pseudo-random numbers, capped at the capacity.
fn lengths(num_sequences: usize) -> Vec<usize> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    };
    let mut normal = || (0..12).map(|_| next()).sum::<f64>() - 6.0;
    (0..num_sequences).map(|_| ((5.4 + 0.8 * normal()).exp() as usize).clamp(1, CAPACITY)).collect()
}

fn packing(criterion: &mut Criterion) {
    let lengths = lengths(100_000);
    let mut group = criterion.benchmark_group("pack_sequences");
    group.sample_size(20).throughput(Throughput::Elements(lengths.len() as u64));
    group.bench_function("100,000 sequences", |b| {
        b.iter(|| pack_sequences(&lengths, CAPACITY, Together::Nothing).unwrap());
    });
    let pairs: Vec<i64> = (0..100_000).map(|index| index / 2).collect();
    let halves: Vec<usize> = lengths.iter().map(|length| length / 2).collect();
    group.bench_function("50,000 pairs", |b| {
        b.iter(|| pack_sequences(&halves, CAPACITY, Together::Groups(&pairs)).unwrap());
    });
    group.finish();

    let bins = pack_sequences(&lengths, CAPACITY, Together::Nothing).unwrap();
    let costs: Vec<f64> = lengths.iter().map(|length| (length * length) as f64).collect();
    let mut group = criterion.benchmark_group("balance");
    group.sample_size(20).throughput(Throughput::Elements(bins.rows() as u64));
    group.bench_function("8 ranks", |b| {
        b.iter(|| balance(&bins, lengths.len(), Together::Nothing, &costs, 8).unwrap());
    });
    group.finish();

    let mut group = criterion.benchmark_group("collate");
    group.sample_size(20);
    collate(&mut group, "i32", &bins, &lengths, vec![1_i32; lengths.iter().sum()]);
    collate(&mut group, "i64", &bins, &lengths, vec![1_i64; lengths.iter().sum()]);
    group.finish();
}

/// Collates into outputs that exist already: the cost of new memory depends on the system.
fn collate<T: Token>(
    group: &mut criterion::BenchmarkGroup<criterion::measurement::WallTime>,
    name: &str,
    bins: &Ragged,
    lengths: &[usize],
    tokens: Vec<T>,
) {
    let written = || tokens.iter().copied().map(MaybeUninit::new).collect();
    let (mut input_ids, mut position_ids): (Vec<_>, Vec<_>) = (written(), written());
    group.throughput(Throughput::Bytes(3 * size_of_val(tokens.as_slice()) as u64));
    group.bench_function(name, |b| {
        b.iter(|| {
            let layout = Layout::new(bins, lengths, None, tokens.len()).unwrap();
            layout.collate(&tokens, &mut input_ids, &mut position_ids);
            layout.cu_seqlens()
        });
    });
}

criterion_group!(benches, packing);
criterion_main!(benches);

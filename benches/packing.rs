//! Best fit decreasing over sequences of log-normal length.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use langptune_core::packing::{Together, pack_sequences};

/// Lengths of mean about 300 tokens: exp of a sum of pseudo-random numbers, cut at the capacity.
fn lengths(num_sequences: usize, capacity: usize) -> Vec<usize> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    };
    let mut normal = || (0..12).map(|_| next()).sum::<f64>() - 6.0;
    (0..num_sequences).map(|_| ((5.4 + 0.8 * normal()).exp() as usize).clamp(1, capacity)).collect()
}

fn packing(criterion: &mut Criterion) {
    let lengths = lengths(100_000, 2048);
    let mut group = criterion.benchmark_group("pack_sequences");
    group.sample_size(20).throughput(Throughput::Elements(lengths.len() as u64));
    group
        .bench_function("100,000 sequences", |b| b.iter(|| pack_sequences(&lengths, 2048, Together::Nothing).unwrap()));
    group.finish();
}

criterion_group!(benches, packing);
criterion_main!(benches);

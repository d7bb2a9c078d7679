//! Metrics, intervals and tests over the users of an evaluation.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use langptune_core::Interrupt;
use langptune_core::metrics::{Metric, per_user};
use langptune_core::statistics::{Interval, bootstrap_intervals, paired_permutation_test};

fn ranks(num_users: usize) -> Vec<f64> {
    (0..num_users).map(|user| (1 + user * 7_919 % 10_533) as f64).collect()
}

fn metrics(criterion: &mut Criterion) {
    let num_users = 14_698;
    let ranks = ranks(num_users);
    let mut group = criterion.benchmark_group("metrics");
    group.throughput(Throughput::Elements(num_users as u64));
    let four = [Metric::Ndcg, Metric::Mrr, Metric::Recall, Metric::Precision].map(|metric| (metric, Some(20)));
    for (name, cuts) in [("ndcg@20", &four[..1]), ("four at 20", &four), ("ndcg", &[(Metric::Ndcg, None)])] {
        group.bench_function(name, |b| b.iter(|| per_user(cuts, None, &ranks).unwrap()));
    }
    let five_per_user: Vec<i64> = (0..=num_users as i64 / 5).map(|user| user * 5).collect();
    let ranks = &ranks[..num_users / 5 * 5];
    group.throughput(Throughput::Elements(num_users as u64 / 5));
    group.bench_function("four at 20, five ranks each", |b| {
        b.iter(|| per_user(&four, Some(&five_per_user), ranks).unwrap())
    });
    group.finish();
}

fn significance(criterion: &mut Criterion) {
    let ranks = ranks(1_392);
    let a = per_user(&[(Metric::Ndcg, None)], None, &ranks).unwrap();
    let b: Vec<f64> = a.iter().rev().copied().collect();
    let mut group = criterion.benchmark_group("significance");
    group.sample_size(10);
    let samples = [a.as_slice(), &b, &a, &b];
    for (name, samples, interval) in [
        ("1 percentile interval", &samples[..1], Interval::Percentile),
        ("4 percentile intervals", &samples, Interval::Percentile),
        ("4 BCa intervals", &samples, Interval::Bca),
    ] {
        group.bench_function(name, |bench| {
            bench.iter(|| bootstrap_intervals(samples, None, interval, 0.95, 10_000, 0, Interrupt::NEVER).unwrap());
        });
    }
    group.bench_function("permutation 100,000", |bench| {
        bench.iter(|| paired_permutation_test(&a, &b, 100_000, 0, Interrupt::NEVER).unwrap());
    });
    group.finish();
}

criterion_group!(benches, metrics, significance);
criterion_main!(benches);

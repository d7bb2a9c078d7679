//! Blocks of scores in the caches, and `rank` and `search` over a whole catalog, with every kernel of this CPU.

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use langptune_core::filter::{EightBits, Panel, Precision, UserTile, score_panels};
use langptune_core::{ItemIndex, Kernel, Matrix, Prepared, Ragged, Ties};

/// (name, users, items, dimensions): the paper's largest catalog, and a catalog that no cache holds.
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
        // The items are read at least once, in 16 bits.
        group.sample_size(10).throughput(throughput(num_users, num_items, dim, size_of::<i16>()));
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

/// Two operations for each dimension of each pair, and the bytes of all items.
fn throughput(num_users: usize, num_items: usize, dim: usize, bytes_per_value: usize) -> Throughput {
    let elements = (2 * num_users * num_items * dim) as u64;
    Throughput::ElementsAndBytes { elements, bytes: (num_items * dim * bytes_per_value) as u64 }
}

/// Exact and approximate scores of a tile of users with a block of items, in the caches and on one thread.
fn blocks(criterion: &mut Criterion) {
    let num_items = 256;
    for (name, _, _, dim) in SIZES {
        let items = embeddings(num_items, dim, 2);
        let items = Matrix::new(&items, dim);
        let mut group = criterion.benchmark_group(format!("block {name}"));
        group.warm_up_time(WARM_UP).measurement_time(MEASURED);
        for kernel in Kernel::supported() {
            let num_users = kernel.tile();
            let users = embeddings(num_users, dim, 1);
            let users = Matrix::new(&users, dim);
            let mut scores = vec![0.0; num_users * num_items];
            group.throughput(throughput(num_users, num_items, dim, size_of::<f32>()));
            group.bench_function(BenchmarkId::new("exact", kernel.name()), |b| {
                b.iter(|| kernel.score_block(users, items, &mut scores));
            });
            let tile = UserTile::new(users, kernel);
            let panels = Panel::all(items, kernel);
            for &precision in kernel.precisions(dim) {
                let mut eight = vec![EightBits::default(); panels.len()];
                if precision == Precision::Eight {
                    eight.iter_mut().zip(&panels).for_each(|(eight, panel)| eight.take(panel, kernel));
                }
                let bytes = if precision == Precision::Eight { size_of::<i8>() } else { size_of::<i16>() };
                group.throughput(throughput(num_users, num_items, dim, bytes));
                group.bench_function(BenchmarkId::new(format!("{precision:?}"), kernel.name()), |b| {
                    b.iter(|| score_panels(kernel, precision, &tile, &panels, &eight, &mut scores));
                });
            }
        }
        group.finish();
    }
}

const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_millis(1500);

/// The limits of the machine on one thread: the arithmetic of each kernel within the registers, and reading from memory
/// and from a second-level cache. Exact scores take separate products and sums, because no kernel may fuse them. The
/// arithmetic is only measured on x86.
fn ceilings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ceiling");
    group.warm_up_time(WARM_UP).measurement_time(MEASURED);
    #[cfg(target_arch = "x86_64")]
    {
        // As floats the factors lie between 1 and 2. As integers they are arbitrary.
        const FACTORS: usize = 4096;
        let factors: Vec<i32> =
            (0..FACTORS).map(|at| (1.0 + at as f32 / FACTORS as f32).to_bits().cast_signed()).collect();
        for kernel in Kernel::supported() {
            for (kind, products, work) in x86::arithmetic(kernel.name()) {
                group.throughput(Throughput::Elements((2 * FACTORS * products) as u64));
                group.bench_function(BenchmarkId::new(kind, kernel.name()), |b| {
                    // SAFETY: a kernel is supported only where the CPU has the instructions that its work uses.
                    b.iter(|| unsafe { work(std::hint::black_box(&factors)) });
                });
            }
        }
    }
    for (name, bytes) in [("memory", 1 << 28), ("cache", 1 << 18)] {
        let values = vec![1.0_f32; bytes / size_of::<f32>()];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("reading", name), |b| b.iter(|| read(std::hint::black_box(&values))));
    }
    group.finish();
}

/// Sums all values, with the widest registers.
fn read(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has the instructions, as was just checked.
        return unsafe { x86::read_avx512(values) };
    }
    read_by_lanes(values);
}

#[inline(always)]
fn read_by_lanes(values: &[f32]) {
    let mut lanes = [0.0; 128];
    for part in values.as_chunks::<128>().0 {
        for at in 0..128 {
            lanes[at] += part[at];
        }
    }
    std::hint::black_box(lanes);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    pub fn read_avx512(values: &[f32]) {
        super::read_by_lanes(values);
    }

    /// Work on a row of factors.
    pub type Work = unsafe fn(&[i32]);

    /// What a kernel does: the kind of scores, the products for each 32 bits of factors, and the work that computes
    /// them.
    pub fn arithmetic(kernel: &str) -> Vec<(&'static str, usize, Work)> {
        match kernel {
            "amx" => {
                vec![("exact", exact_512::SUMS, exact_512::work), ("Sixteen", sixteen_amx::PRODUCTS, sixteen_amx::work)]
            }
            "avx512-vnni" => vec![
                ("exact", exact_512::SUMS, exact_512::work),
                ("Sixteen", 2 * sixteen_vnni::SUMS, sixteen_vnni::work),
                ("Eight", 4 * eight_vnni::SUMS, eight_vnni::work),
            ],
            "avx512" => {
                vec![("exact", exact_512::SUMS, exact_512::work), ("Sixteen", 2 * sixteen_256::SUMS, sixteen_256::work)]
            }
            "avx2" => {
                vec![("exact", exact_256::SUMS, exact_256::work), ("Sixteen", 2 * sixteen_256::SUMS, sixteen_256::work)]
            }
            _ => {
                vec![("exact", exact_128::SUMS, exact_128::work), ("Sixteen", 2 * sixteen_128::SUMS, sixteen_128::work)]
            }
        }
    }

    /// Multiplies a register of factors by several others. Each product is added to a sum of its own, because
    /// independent sums hide the latency.
    macro_rules! products {
        ($name:ident, $features:literal, $sums:literal, $load:expr, $zero:expr, $step:expr) => {
            mod $name {
                use super::*;

                pub const SUMS: usize = $sums;

                #[target_feature(enable = $features)]
                pub fn work(factors: &[i32]) {
                    let mut sums = [$zero; SUMS];
                    let lanes = size_of_val(&sums[0]) / size_of::<i32>();
                    // SAFETY: a part holds as many values as a register, and those are read.
                    let load = |part: &[i32]| unsafe { $load(part.as_ptr().cast()) };
                    let mut first = factors.chunks_exact(lanes);
                    let others: [_; SUMS] = std::array::from_fn(|_| load(first.next().expect("factors for all")));
                    for factor in factors.chunks_exact(lanes) {
                        let factor = load(factor);
                        for at in 0..SUMS {
                            sums[at] = $step(sums[at], factor, others[at]);
                        }
                    }
                    std::hint::black_box(sums);
                }
            }
        };
    }

    products!(exact_512, "avx512f", 12, |at| _mm512_loadu_ps(at), _mm512_setzero_ps(), |sum, a, b| {
        _mm512_add_ps(sum, _mm512_mul_ps(a, b))
    });
    products!(exact_256, "avx2", 7, |at| _mm256_loadu_ps(at), _mm256_setzero_ps(), |sum, a, b| {
        _mm256_add_ps(sum, _mm256_mul_ps(a, b))
    });
    products!(exact_128, "sse2", 7, |at| _mm_loadu_ps(at), _mm_setzero_ps(), |sum, a, b| {
        _mm_add_ps(sum, _mm_mul_ps(a, b))
    });
    products!(
        sixteen_vnni,
        "avx512f,avx512bw,avx512vnni",
        12,
        |at| _mm512_loadu_si512(at),
        _mm512_setzero_si512(),
        |sum, a, b| _mm512_dpwssd_epi32(sum, a, b)
    );
    products!(
        eight_vnni,
        "avx512f,avx512bw,avx512vnni",
        12,
        |at| _mm512_loadu_si512(at),
        _mm512_setzero_si512(),
        |sum, a, b| _mm512_dpbusd_epi32(sum, a, b)
    );
    /// Multiplies full tiles of zeros, which are never loaded. Four products of bytes make one product of 16 bits.
    mod sixteen_amx {
        /// The products for each factor: 16 factors stand for one round over the four tiles.
        pub const PRODUCTS: usize = 16 * 16 * 64 / 16;

        #[repr(align(64))]
        struct Configuration([u8; 64]);

        /// The number of factors sets the number of rounds.
        pub unsafe fn work(factors: &[i32]) {
            let mut configuration = Configuration([0; 64]);
            configuration.0[0] = 1;
            for tile in 0..8 {
                (configuration.0[16 + 2 * tile], configuration.0[48 + tile]) = (64, 16);
            }
            // SAFETY: the kernel is supported, so the unit is available. The configuration is that of full tiles.
            unsafe {
                std::arch::asm!(
                    "ldtilecfg [{configuration}]",
                    "2:",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tdpbsud tmm1, tmm4, tmm7",
                    "tdpbusd tmm2, tmm5, tmm6",
                    "tdpbuud tmm3, tmm5, tmm7",
                    "dec {times}",
                    "jnz 2b",
                    "tilerelease",
                    configuration = in(reg) &raw const configuration,
                    times = inout(reg) factors.len() / 16 => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    }
    products!(sixteen_256, "avx2", 7, |at| _mm256_loadu_si256(at), _mm256_setzero_si256(), |sum, a, b| {
        _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
    });
    products!(sixteen_128, "sse2", 7, |at| _mm_loadu_si128(at), _mm_setzero_si128(), |sum, a, b| {
        _mm_add_epi32(sum, _mm_madd_epi16(a, b))
    });
}

criterion_group!(benches, ceilings, blocks, ranking);
criterion_main!(benches);

//! Products of integers: the approximate scores of a tile of users with panels of items.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod portable;
mod registers;
#[cfg(target_arch = "x86_64")]
mod x86;

use registers::score_sixteen;

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::eight_bits::EightBits;
use super::items::Panel;
use super::layout::PANEL;
use super::precision::Precision;
use super::users::UserTile;
use crate::Kernel;
use crate::cpu::Instructions;

/// Writes the approximate scores of the users of a tile with every item of the panels to `out`, row-major (users,
/// panels x [`PANEL`]), in units of each user's scale.
///
/// `eight` holds the panels in 8 bits. It is ignored for 16 bits.
///
/// # Panics
/// When `out` has another size, the kernel has no such precision, or the tile or a panel belongs to another kernel.
pub fn score_panels(
    kernel: Kernel,
    precision: Precision,
    tile: &UserTile,
    panels: &[Panel],
    eight: &[EightBits],
    out: &mut [f32],
) {
    let width = panels.len() * PANEL;
    assert_eq!(out.len(), tile.len() * width);
    assert_eq!(tile.kernel(), kernel, "a tile of another kernel");
    assert!(panels.iter().all(|panel| panel.has_tiles() == kernel.has_tiles()), "panels of another kernel");
    #[cfg(target_arch = "x86_64")]
    if kernel.has_tiles() {
        assert_eq!(precision, Precision::Sixteen);
        // SAFETY: a `Kernel` exists only where its functions can run, and AMX is listed only beside AVX-512.
        unsafe { amx::score(tile, panels, out) };
        return;
    }
    for number in 0..panels.len() {
        let (users, items) = match precision {
            Precision::Eight => (&tile.eight, &eight[number].integers()),
            Precision::Sixteen => (&tile.sixteen, &panels[number].integers()),
        };
        let num_groups = users.len().max(if precision == Precision::Sixteen { tile.four_times[0].len() } else { 0 });
        assert!(num_groups > 0 && num_groups == items.groups.len(), "no {precision:?} bits of {}", kernel.name());
        let mut rows = out[number * PANEL..].chunks_mut(width).map(|row| &mut row[..PANEL]);
        match kernel.instructions() {
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => unreachable!("its panels are tiles"),
            // SAFETY: a `Kernel` exists only on a CPU with the features that its functions enable.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => unsafe {
                match precision {
                    Precision::Eight => {
                        avx512::score::<true>(users, tile.len(), items, &eight[number].offsets, &mut rows);
                    }
                    Precision::Sixteen => {
                        avx512::score::<false>(users, tile.len(), items, &[0; PANEL], &mut rows);
                    }
                }
            },
            // SAFETY: as above; AVX-512 is listed only beside AVX2.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 | Instructions::Avx2 => unsafe {
                x86::score_avx2(tile, items, &mut rows);
            },
            #[cfg(target_arch = "x86_64")]
            Instructions::Portable => score_sixteen::<x86::Sse2>(tile, items, &mut rows),
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon | Instructions::Portable => {
                score_sixteen::<neon::Neon>(tile, items, &mut rows);
            }
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            Instructions::Portable => score_sixteen::<portable::Lane>(tile, items, &mut rows),
        }
    }
}

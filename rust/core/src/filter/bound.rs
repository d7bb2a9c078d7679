//! The bound on the error of approximate scores, as derived in [`crate::filter`].

/// What to compare an approximate score with, in units of the user's scale; see [`super::sift`].
#[derive(Debug, Clone, Copy)]
pub struct Thresholds {
    /// An item below `low - slope * norm` surely scores less than asked.
    pub(super) low: f32,
    /// An item above `high + slope * norm` surely scores more than asked.
    pub(super) high: f32,
    /// The bound on the error for each unit of the item's norm.
    pub(super) slope: f32,
}

/// How far the approximate scores of one user can be from the exact ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct ErrorBound {
    /// `s`.
    pub(super) scale: f64,
    /// `1 / s`.
    inverse: f64,
    /// `K / s` is `fixed + by_loss * delta`.
    fixed: f64,
    by_loss: f64,
    /// `N`, doubled and a little more: conversions between the units lose something below the normal range too.
    constant: f64,
}

impl ErrorBound {
    /// A margin, relative to what is compared, for rounding in the bound itself and for comparisons in f32.
    const MARGIN: f64 = 1.0 / (1_u64 << 20) as f64;

    /// From `s`, `|u|`, `|s U|` and `|e|`.
    pub(super) fn new(dim: usize, scale: f64, norm: f64, rounded: f64, lost: f64, has_tiles: bool) -> Self {
        let n = dim as f64;
        let errors = (n / 16.0 + 7.0) * 2.0_f64.powi(-24); // n/16 is rounded up
        let summation = if errors < 0.5 { errors / (1.0 - errors) } else { f64::INFINITY };
        let parts = if has_tiles { 9.0 } else { 1.0 };
        let conversion = parts * 2.0_f64.powi(-22) * rounded;
        let inflated = (1.0 + Self::MARGIN) / scale;
        Self {
            scale,
            inverse: 1.0 / scale,
            fixed: (lost + conversion + summation * norm) * inflated,
            by_loss: (rounded + conversion) * inflated,
            constant: 2.0 * (n + scale + 1.0) * f64::from(f32::from_bits(1)),
        }
    }

    /// The error for each unit of an item's norm, in units of `s`, where no item lost more than the share `loss`.
    pub fn slope(&self, loss: f64) -> f32 {
        ((self.fixed + self.by_loss * loss) as f32).next_up()
    }

    /// The thresholds that find the items which may score at least `low` and at most `high`; `slope` is what
    /// [`ErrorBound::slope`] returns.
    pub fn thresholds(&self, low: f32, high: f32, slope: f32) -> Thresholds {
        let (low, high) = (f64::from(low), f64::from(high));
        let margin = |score: f64| if score.is_finite() { self.constant + Self::MARGIN * score.abs() } else { 0.0 };
        Thresholds {
            low: (((low - margin(low)) * self.inverse) as f32).next_down(),
            high: (((high + margin(high)) * self.inverse) as f32).next_up(),
            slope,
        }
    }

    /// The exact score that an item surely reaches; `least` is its approximate score less `slope * norm`.
    pub fn reached(&self, least: f32) -> f32 {
        let score = f64::from(least) * self.scale;
        ((score - self.constant - Self::MARGIN * score.abs()) as f32).next_down()
    }

    /// The two values that the exact score surely lies between; `error` is `slope * norm`.
    pub fn around(&self, approximate: f32, error: f32) -> (f32, f32) {
        let (least, most) = (approximate - error, approximate + error);
        if least.is_finite() && most.is_finite() {
            (self.reached(least), -self.reached(-most))
        } else {
            (f32::NEG_INFINITY, f32::INFINITY)
        }
    }
}

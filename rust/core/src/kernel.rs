//! The kernel: which instructions compute the scores.

use crate::cpu::Instructions;
use crate::{Error, Result};

/// The instructions that scores are computed with. They change the speed and never the result: all kernels give the
/// same bits.
///
/// A value exists only for instructions that this CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Instructions);

impl Kernel {
    /// The environment variable that [`Kernel::from_env`] reads.
    pub const VARIABLE: &str = "LANGPTUNE_KERNEL";

    /// Every kernel that this CPU can run, the fastest first.
    pub fn supported() -> Vec<Self> {
        Instructions::available().into_iter().map(Self).collect()
    }

    /// The kernel that `LANGPTUNE_KERNEL` names, or the fastest when it is not set or empty.
    ///
    /// # Errors
    /// [`Error::Kernel`] for a name that no kernel of [`Kernel::supported`] has.
    pub fn from_env() -> Result<Self> {
        let supported = Self::supported();
        let asked = std::env::var_os(Self::VARIABLE).unwrap_or_default();
        if asked.is_empty() {
            return Ok(supported[0]);
        }
        supported.iter().find(|kernel| asked == kernel.name()).copied().ok_or_else(|| Error::Kernel {
            asked: asked.to_string_lossy().into_owned(),
            supported: supported.iter().map(Self::name).collect::<Vec<_>>().join(", "),
        })
    }

    /// Its name, as in `LANGPTUNE_KERNEL`.
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    pub(crate) fn instructions(self) -> Instructions {
        self.0
    }

    /// Whether it multiplies tiles of bytes, for which integers lie in another order.
    pub(crate) fn has_tiles(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == Instructions::Amx;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

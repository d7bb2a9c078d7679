//! Long work that ends early on request.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// A flag that long work checks often. The work ends with [`Error::Interrupted`] soon after the flag is set.
#[derive(Debug, Clone, Copy, Default)]
pub struct Interrupt<'a>(Option<&'a AtomicBool>);

impl<'a> Interrupt<'a> {
    /// Lets work run to its end.
    pub const NEVER: Interrupt<'static> = Interrupt(None);

    /// Ends work once `flag` is set.
    pub fn by(flag: &'a AtomicBool) -> Self {
        Self(Some(flag))
    }

    /// Checks whether the work may continue.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn check(self) -> Result<()> {
        if self.0.is_some_and(|flag| flag.load(Ordering::Relaxed)) { Err(Error::Interrupted) } else { Ok(()) }
    }
}

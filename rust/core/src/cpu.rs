//! Which vector instructions this CPU has.

#[cfg(target_arch = "x86_64")]
mod amx;

/// A set of instructions that scores can be computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

impl Instructions {
    /// The sets that this CPU has, the fastest first.
    ///
    /// A set is listed only where every CPU feature is present that any function for it enables. Some functions for a
    /// set only use the features of a lesser one.
    pub(crate) fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        let has_avx2 = is_x86_feature_detected!("avx2");
        #[cfg(target_arch = "x86_64")]
        let has_avx512 = has_avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("popcnt");
        #[cfg(target_arch = "x86_64")]
        let has_vnni = has_avx512 && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni");
        let sets = [
            #[cfg(target_arch = "x86_64")]
            (Self::Amx, has_vnni && amx::is_available()),
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512Vnni, has_vnni),
            #[cfg(target_arch = "x86_64")]
            (Self::Avx512, has_avx512),
            #[cfg(target_arch = "x86_64")]
            (Self::Avx2, has_avx2),
            #[cfg(target_arch = "aarch64")]
            (Self::Neon, true),
            (Self::Portable, true),
        ];
        sets.into_iter().filter(|(_, is_available)| *is_available).map(|(set, _)| set).collect()
    }

    /// Its name in `LANGPTUNE_KERNEL`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => "amx",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }
}

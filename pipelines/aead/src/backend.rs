//! The implementations to choose from, by name, and what each needs of the CPU.

use std::fmt;
use std::str::FromStr;

/// Which implementation does the work.
///
/// None is for AVX2 alone. Counted, not measured: with vectors half as wide on three ports, and no rotation, a block of
/// ChaCha20 takes 53 cycles at best, and there is no IFMA for Poly1305. At 1,420 bytes that gains little over aws-lc, whose
/// code does both at once; at 64 bytes it would be faster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Backend {
    /// Our multi-buffer kernel: many packets at once, on x86-64 with AVX-512 and IFMA.
    Avx512,
    /// aws-lc: one packet at a time; AVX2, SSE4.1 or NEON inside, as the CPU has it. Runs everywhere.
    AwsLc,
    /// RustCrypto's `chacha20poly1305`: Rust alone, the oracle of the tests. Runs everywhere.
    RustCrypto,
}

impl Backend {
    /// All of them, fastest first.
    pub const ALL: [Self; 3] = [Self::Avx512, Self::AwsLc, Self::RustCrypto];

    /// Its name in configuration and statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::AwsLc => "aws-lc",
            Self::RustCrypto => "rustcrypto",
        }
    }

    /// The CPU features that it needs and this machine lacks, by the names of `/proc/cpuinfo`.
    pub fn missing_features(self) -> impl Iterator<Item = &'static str> {
        let features = match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => [
                ("avx512f", is_x86_feature_detected!("avx512f")),
                ("avx512bw", is_x86_feature_detected!("avx512bw")),
                ("avx512ifma", is_x86_feature_detected!("avx512ifma")),
                ("avx512_vbmi2", is_x86_feature_detected!("avx512vbmi2")),
                ("avx512_vpopcntdq", is_x86_feature_detected!("avx512vpopcntdq")),
                ("bmi2", is_x86_feature_detected!("bmi2")),
            ],
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 => ["avx512f", "avx512bw", "avx512ifma", "avx512_vbmi2", "avx512_vpopcntdq", "bmi2"]
                .map(|name| (name, false)),
            Self::AwsLc | Self::RustCrypto => [("", true); 6],
        };
        features.into_iter().filter(|(_, is_there)| !is_there).map(|(name, _)| name)
    }

    /// Whether this CPU can run it.
    pub fn is_supported(self) -> bool {
        self.missing_features().next().is_none()
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(name: &str) -> Result<Self, UnknownBackend> {
        Self::ALL.into_iter().find(|backend| backend.name() == name).ok_or(UnknownBackend)
    }
}

/// A name that no backend has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownBackend;

impl fmt::Display for UnknownBackend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("no such AEAD backend; there are:")?;
        Backend::ALL.iter().try_for_each(|backend| write!(formatter, " {backend}"))
    }
}

impl std::error::Error for UnknownBackend {}

/// This CPU cannot run the backend that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsupported {
    /// The one that was asked for.
    pub backend: Backend,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AEAD backend {} needs CPU features that this machine lacks:", self.backend)?;
        self.backend.missing_features().try_for_each(|feature| write!(formatter, " {feature}"))?;
        write!(formatter, "; leave the choice open, or take {}", Backend::AwsLc)
    }
}

impl std::error::Error for Unsupported {}

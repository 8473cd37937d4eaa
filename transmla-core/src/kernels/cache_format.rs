//! The formats that caches keep numbers in.

use std::fmt;
use std::str::FromStr;

use transmla_checkpoint::{AttentionConfig, ModelConfig, StorageDtype};

use super::quantised::{Quantisation, QuantisedRow};
use crate::error::CoreError;

/// The format of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheFormat {
    /// Every number in a format of its own.
    Plain(StorageDtype),
    /// Latents with few bits and a scale for each token; rotary keys, and what else is behind a latent, in half precision. For latent
    /// attention only.
    Quantised(Quantisation),
}

impl CacheFormat {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Plain(StorageDtype::F32),
        Self::Plain(StorageDtype::Bf16),
        Self::Plain(StorageDtype::F16),
        Self::Quantised(Quantisation::Int8),
        Self::Quantised(Quantisation::Fp8E4m3),
        Self::Quantised(Quantisation::Int4),
    ];

    /// Whether latents are kept with few bits.
    pub fn is_quantised(self) -> bool {
        matches!(self, Self::Quantised(_))
    }

    /// Whether what is kept is what was computed.
    pub fn is_exact(self) -> bool {
        self == Self::Plain(StorageDtype::F32)
    }

    /// Checks that a model's cache can have this format.
    ///
    /// # Errors
    /// [`CoreError::CacheFormat`] for a quantised cache of a model that has keys and values of its heads instead of latents.
    pub fn check(self, config: &ModelConfig) -> Result<(), CoreError> {
        match (self, &config.attention) {
            (Self::Quantised(_), AttentionConfig::Grouped(_)) => Err(self.refused()),
            _ => Ok(()),
        }
    }

    pub(crate) fn refused(self) -> CoreError {
        CoreError::CacheFormat {
            format: self.to_string(),
        }
    }

    /// Bytes of one token in one layer of a model, scales included.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn bytes_per_token(self, config: &ModelConfig) -> Result<usize, CoreError> {
        self.check(config)?;
        Ok(match (self, &config.attention) {
            (Self::Quantised(quantisation), AttentionConfig::Latent(latent)) => {
                let exact = latent.group_numbers() - latent.kv_lora_rank;
                latent.latent_groups * QuantisedRow::new(quantisation, latent.kv_lora_rank, exact).bytes()
            }
            (Self::Plain(dtype), attention) => attention.cache_numbers() * dtype.bytes(),
            (Self::Quantised(_), AttentionConfig::Grouped(_)) => return Err(self.refused()),
        })
    }
}

impl Default for CacheFormat {
    fn default() -> Self {
        Self::Plain(StorageDtype::F32)
    }
}

impl From<StorageDtype> for CacheFormat {
    fn from(dtype: StorageDtype) -> Self {
        Self::Plain(dtype)
    }
}

impl FromStr for CacheFormat {
    type Err = CoreError;

    fn from_str(text: &str) -> Result<Self, CoreError> {
        Ok(Self::Quantised(match text {
            "int8" => Quantisation::Int8,
            "fp8-e4m3" | "fp8_e4m3" | "fp8" => Quantisation::Fp8E4m3,
            "int4" => Quantisation::Int4,
            _ => {
                let plain = text
                    .parse()
                    .map_err(|_| CoreError::UnknownCacheFormat { found: text.to_owned() });
                return plain.map(Self::Plain);
            }
        }))
    }
}

impl fmt::Display for CacheFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => dtype.fmt(f),
            Self::Quantised(quantisation) => quantisation.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_go_by_their_names() {
        for format in CacheFormat::ALL {
            assert_eq!(format.to_string().parse::<CacheFormat>().unwrap(), format);
        }
        let unknown = "int5".parse::<CacheFormat>().unwrap_err().to_string();
        assert!(
            unknown.contains("int5")
                && CacheFormat::ALL
                    .iter()
                    .all(|format| unknown.contains(&format.to_string()))
        );
    }
}

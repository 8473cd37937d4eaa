//! Which number format each matrix of a quantised file has.

use std::fmt;

use transmla_core::{GgufDtype, StorageDtype};

/// How the matrices of a GGUF file are quantised, by llama.cpp's names.
///
/// Rows that are no whole blocks of a format get another one, as by `llama-quantize`: q8_0 for q6_k and q5_0 for q4_k, and half
/// precision where they are no multiple of 32 either. Norms stay in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Quantization {
    /// 8 bits and a scale for 32 numbers.
    #[cfg_attr(feature = "clap", value(name = "q8_0"))]
    Q8_0,
    /// 6 bits, with scales for 16 and 256 numbers.
    #[cfg_attr(feature = "clap", value(name = "q6_k"))]
    Q6K,
    /// 4 bits, with scales and minima for 32 and scales for 256 numbers; 6 bits for the output head and half of the MLP's
    /// down-projections.
    #[cfg_attr(feature = "clap", value(name = "q4_k_m"))]
    Q4KM,
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Q8_0 => "q8_0",
            Self::Q6K => "q6_k",
            Self::Q4KM => "q4_k_m",
        })
    }
}

/// The version of the blocks' layouts (`general.quantization_version`).
pub(super) const VERSION: u32 = 2;

impl Quantization {
    /// Its number in a file (`general.file_type`, `llama_ftype`).
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::Q8_0 => 7,
            Self::Q6K => 18,
            Self::Q4KM => 15,
        }
    }

    /// The format of a matrix by its name in the file, for a model of so many layers whose output head is its embedding or not.
    pub(super) fn of_matrix(
        self,
        name: &str,
        row: usize,
        layer: Option<usize>,
        layers: usize,
        tied: bool,
    ) -> GgufDtype {
        let head = name == if tied { "token_embd.weight" } else { "output.weight" };
        let down = layer.filter(|_| name.ends_with(".ffn_down.weight"));
        let wanted = match self {
            Self::Q8_0 => GgufDtype::Q8_0,
            Self::Q6K => GgufDtype::Q6K,
            Self::Q4KM if head || down.is_some_and(|layer| counts_more(layer, layers)) => GgufDtype::Q6K,
            Self::Q4KM => GgufDtype::Q4K,
        };
        let fits = |dtype: &GgufDtype| row.is_multiple_of(dtype.block());
        let instead = match wanted {
            GgufDtype::Q4K => GgufDtype::Q5_0,
            _ => GgufDtype::Q8_0,
        };
        let half = GgufDtype::from(StorageDtype::F16);
        [wanted, instead].into_iter().find(fits).unwrap_or(half)
    }
}

/// Whether a layer's down-projection gets more bits: those of the first and last eighth of the layers, and every third between.
fn counts_more(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_go_by_name_and_width() {
        let of = |quantization: Quantization, name: &str, row: usize, layer: Option<usize>| {
            quantization.of_matrix(name, row, layer, 32, false).to_string()
        };
        let q4 = Quantization::Q4KM;
        assert_eq!(of(q4, "output.weight", 4096, None), "q6_k");
        assert_eq!(of(q4, "token_embd.weight", 4096, None), "q4_k");
        assert_eq!(q4.of_matrix("token_embd.weight", 4096, None, 32, true), GgufDtype::Q6K);
        let downs = (0..32).filter(|layer| of(q4, "blk.0.ffn_down.weight", 512, Some(*layer)) == "q6_k");
        assert_eq!(
            downs.collect::<Vec<_>>(),
            [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
        );
        // SmolLM2's rows of 576 are no multiple of 256, and 100 is none of 32.
        assert_eq!(of(q4, "blk.0.ffn_up.weight", 576, Some(0)), "q5_0");
        assert_eq!(of(q4, "blk.0.ffn_down.weight", 576, Some(0)), "q8_0");
        assert_eq!(of(Quantization::Q6K, "blk.0.ffn_up.weight", 576, Some(0)), "q8_0");
        for quantization in [Quantization::Q8_0, Quantization::Q6K, q4] {
            assert_eq!(of(quantization, "blk.0.attn_k_b.weight", 100, Some(0)), "fp16");
        }
    }
}

//! stories260K in the number formats that engines load it in: the perplexity that each may cost.

use burn::tensor::Device;
use transmla_convert::{FreqFold, MethodName, Recipe};
use transmla_core::model::{NumberFormat, RoundedModel};
use transmla_core::{Decoder, LayeredModel, Residency, StorageDtype};
use transmla_eval::{EvalOptions, perplexity};

mod stories;

/// Loaded in fp16 within 0.5 % of the perplexity in fp32, in blocks of 8 bits within 2 %, from whatever it is stored in.
#[test]
fn half_precision_and_blocks_keep_the_perplexity() {
    for dtype in [StorageDtype::Bf16, StorageDtype::F32, StorageDtype::F16] {
        for q_lora_rank in [None, Some(32)] {
            let options = Recipe {
                method: MethodName::Transmla,
                qk_mqa_dim: Some(8),
                kv_lora_rank: Some(28),
                freqfold: FreqFold::Fixed(1),
                q_lora_rank,
                dtype,
                ..Recipe::default()
            };
            let (_, folder) = stories::convert_stories(&options, 16, 8);
            let model = Decoder::open(&folder.path().join("mla"), &Device::flex(), Residency::Loaded).unwrap();
            let test = stories::test_windows(8);
            let measure = |model: &dyn LayeredModel| {
                let options = EvalOptions::default();
                perplexity(model, &test, &options, &mut transmla_eval::Silent)
                    .unwrap()
                    .perplexity
            };
            let expected = measure(&model);
            for (format, most) in [
                (NumberFormat::Bf16, 0.02),
                (NumberFormat::Fp16, 0.005),
                (NumberFormat::Q8_0, 0.02),
            ] {
                let found = measure(&RoundedModel { model: &model, format });
                let change = found / expected - 1.0;
                assert!(
                    change.abs() < most,
                    "stored in {dtype}, loaded in {format}: {found}, {expected} in fp32"
                );
            }
        }
    }
}

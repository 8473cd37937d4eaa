//! The stock form in the number formats that engines load it in, whatever it was stored in.

use burn::tensor::Device;
use transmla_convert::{MethodName, Recipe, WithoutLatentNorms, check_saved};
use transmla_core::config::LatentStyle;
use transmla_core::model::{NumberFormat, RoundedModel};
use transmla_core::{Decoder, Residency, StorageDtype};

use crate::conversion::{Outcome, compare, family, full_rank, run};

fn open(outcome: &Outcome) -> Decoder {
    Decoder::open(&outcome.saved(), &Device::flex(), Residency::Loaded).unwrap()
}

/// Every family with a stock form, from every number format, with query latents and without: half precision and blocks of
/// 8 bits hold it. What they cost is measured in nats per token.
#[test]
fn half_precision_and_blocks_hold_every_stock_model() {
    for name in ["llama2-mha", "mistral", "qwen2.5", "mimo"] {
        let folder = family(name);
        for (dtype, low_rank_queries) in [
            (StorageDtype::Bf16, false),
            (StorageDtype::F32, true),
            (StorageDtype::F16, true),
            (StorageDtype::F16, false),
        ] {
            let full = full_rank(&folder, 8, 4, low_rank_queries);
            let options = Recipe {
                method: MethodName::Transmla,
                kv_lora_rank: full.kv_lora_rank.map(|rank| rank / 2),
                q_lora_rank: full.q_lora_rank.map(|rank| rank / 2),
                dtype,
                ..full
            };
            let outcome = run(&folder, &options);
            assert_eq!(outcome.plan.style(), LatentStyle::DeepseekV3, "{name}");
            let config = outcome.config();
            let (_, checks) = check_saved(&outcome.saved(), &config).unwrap();
            assert!(checks.iter().all(|check| check.passed), "{name}, {dtype}: {checks:?}");
            let model = open(&outcome);
            for (format, most) in [
                (NumberFormat::Bf16, 2e-3),
                (NumberFormat::Fp16, 1e-4),
                (NumberFormat::Q8_0, 2e-3),
            ] {
                let rounded = RoundedModel { model: &model, format };
                let kl = compare(&model, &rounded).kl;
                assert!(kl < most, "{name} stored in {dtype}, loaded in {format}: {kl}");
            }
            // What the norms themselves change.
            let kl = compare(&WithoutLatentNorms(&model), &model).kl;
            assert!(kl < 1e-5, "{name} stored in {dtype}: {kl}");
        }
    }
}

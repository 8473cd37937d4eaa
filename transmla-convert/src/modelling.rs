//! Modelling code that lets stock transformers run a model in its family's own class.

use transmla_core::config::{CONFIGURATION_MODULE, LatentStyle, MODELLING_MODULE};

use crate::Plan;

const CONFIGURATION: &str = include_str!("../python/configuration_transmla.py");
const MODELLING: &str = include_str!("../python/modeling_transmla.py");

/// The files that go beside the weights, as name and contents; none for a stock model.
pub(crate) fn modelling_files(plan: &Plan) -> Vec<(String, &'static str)> {
    match plan.style {
        LatentStyle::DeepseekV3 => Vec::new(),
        LatentStyle::Family => vec![
            (format!("{CONFIGURATION_MODULE}.py"), CONFIGURATION),
            (format!("{MODELLING_MODULE}.py"), MODELLING),
        ],
    }
}

#[cfg(test)]
mod tests {
    use transmla_core::config::FAMILIES;

    use super::*;

    /// config.json names a class and a `model_type` for every family; the code must have them.
    #[test]
    fn the_code_has_every_family() {
        for family in FAMILIES {
            let class = format!("class {}(TransMLAForCausalLM):", family.latent_class());
            assert!(MODELLING.contains(&class), "{class}");
            let class = format!(
                "class {}(TransMLAConfig):\n    model_type = \"{}\"",
                family.latent_config_class(),
                family.latent_model_type()
            );
            assert!(CONFIGURATION.contains(&class), "{class}");
            let entry = format!("\n    \"{}\": dict(", family.model_type);
            assert!(CONFIGURATION.contains(&entry), "{entry}");
        }
    }
}

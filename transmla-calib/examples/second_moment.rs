//! The second moment of what the attention of every layer sees.

use std::path::PathBuf;

use transmla_calib::SecondMoment;
use transmla_calib::transmla_core::burn::tensor::Device;
use transmla_calib::transmla_core::model::Rotary;
use transmla_calib::transmla_core::{CoreError, Decoder, LayeredModel, Residency, TokenBatch};

fn main() -> Result<(), CoreError> {
    let folder = std::env::args_os()
        .nth(1)
        .map_or("transmla-cli/models/stories260k".into(), PathBuf::from);
    let model = Decoder::open(&folder, &Device::flex(), Residency::Streamed)?;
    let tokens = TokenBatch::from_ids(vec![1, 403, 407, 261, 378, 432, 383, 286], 1, 8)?;
    let rotary = Rotary::new(model.config().rope.of(0), 0..tokens.sequence(), model.device());
    let mut hidden = model.embed(&tokens)?; // [batch, seq, hidden]
    for index in 0..model.config().num_hidden_layers {
        let layer = model.layer(index)?;
        let mut moment = SecondMoment::new(model.config().hidden_size, false);
        moment.add(&layer.attention_input(hidden.clone()))?;
        let trace = (0..moment.matrix().nrows())
            .map(|i| moment.matrix()[(i, i)])
            .sum::<f64>();
        println!("layer {index}: mean squared norm {:.3}", trace / moment.tokens() as f64);
        hidden = layer.forward(hidden, &rotary, None)?;
    }
    Ok(())
}

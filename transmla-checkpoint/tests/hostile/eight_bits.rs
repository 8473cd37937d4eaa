//! Weights of 8 bits with scales of blocks: what they amount to, and what is wrong with them.

use serde_json::{Value, json};
use transmla_checkpoint::ModelConfig;
use transmla_checkpoint::checkpoint::Checkpoint;

use crate::fixture::{Entry, Model, assert_says, read_everything};

const NAME: &str = "model.layers.1.mlp.down_proj.weight";

/// The fixture with one matrix `[8, 12]` in 8 bits, in blocks of 3 rows and 5 columns.
fn model() -> Model {
    let mut model = Model::valid();
    let quantization =
        json!({"quant_method": "fp8", "weight_block_size": [3, 5], "modules_to_not_convert": ["lm_head"]});
    model.config.insert("quantization_config".into(), quantization);
    let matrix = model.tensor(NAME);
    matrix.dtype = "F8_E4M3";
    matrix.bytes = (0..96)
        .map(|index| (index * 37 % 120) as u8 | if index % 3 == 0 { 0x80 } else { 0 })
        .collect();
    let scales = (0..9).flat_map(|index| (0.5 + index as f32).to_le_bytes());
    model.tensors.push(Entry {
        name: format!("{NAME}_scale_inv"),
        dtype: "F32",
        shape: vec![3, 3],
        bytes: scales.collect(),
    });
    model
}

/// The number of 8 bits, by its definition.
fn number(bits: u8) -> f32 {
    let (exponent, fraction) = (i32::from((bits >> 3) & 15), f32::from(bits & 7) / 8.0);
    let size = match exponent {
        0 => fraction * 2f32.powi(-6),
        _ => (1.0 + fraction) * 2f32.powi(exponent - 7),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

#[test]
fn each_block_has_its_scale() {
    let model = model();
    let folder = model.save();
    read_everything(folder.path()).unwrap();
    let config = ModelConfig::read(folder.path()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert!(!checkpoint.contains(&format!("{NAME}_scale_inv")));
    assert_eq!(checkpoint.quantisation().as_deref(), Some("F8_E4M3 (1 tensor)"));
    let bytes = &model.tensors.iter().find(|entry| entry.name == NAME).unwrap().bytes;
    let expected: Vec<f32> = (0..96)
        .map(|index| {
            let (row, column) = (index / 12, index % 12);
            number(bytes[index]) * (0.5 + (row / 3 * 3 + column / 5) as f32)
        })
        .collect();
    assert_eq!(checkpoint.values(NAME, &[8, 12]).unwrap(), expected);
    // In any pieces, and by rows.
    for length in [1, 7, 12, 50, 1000] {
        let mut read = Vec::new();
        checkpoint
            .pieces(NAME, length, &mut |piece| {
                read.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        assert_eq!(read, expected, "{length}");
    }
    let mut rows = Vec::new();
    checkpoint
        .rows(NAME, [8, 12], [7, 2, 7].into_iter(), &mut rows)
        .unwrap();
    let row = |row: usize| expected[row * 12..(row + 1) * 12].to_vec();
    assert_eq!(rows, [row(7), row(2), row(7)].concat());
    // What is written says nothing of it.
    let raw: Value = serde_json::from_str(&config.raw.to_pretty_json()).unwrap();
    assert_eq!(raw["quantization_config"]["quant_method"], "fp8");
    // Other scales are other weights.
    let mut other = model.clone();
    other.tensors.last_mut().unwrap().bytes[3] ^= 1;
    let fingerprint = |folder: &std::path::Path| Checkpoint::open(folder).unwrap().fingerprint().unwrap();
    assert_ne!(fingerprint(folder.path()), fingerprint(other.save().path()));
}

#[test]
fn scales_that_are_not_one_for_each_block() {
    let scales = format!("{NAME}_scale_inv");
    let mut absent = model();
    absent.remove(&scales);
    assert_says(&absent.error(), &[&scales, "not in"]);
    for shape in [vec![9], vec![3, 2], vec![1, 1], vec![3, 3, 1]] {
        let mut model = model();
        let entry = model.tensor(&scales);
        entry.bytes.resize(4 * shape.iter().product::<u64>() as usize, 0);
        entry.shape = shape;
        assert_says(&model.error(), &[&scales, "[3, 3]"]);
    }
    let mut integers = model();
    integers.tensor(&scales).dtype = "I32";
    assert_says(&integers.error(), &[&scales, "I32"]);
    let mut infinite = model();
    infinite.tensor(&scales).bytes[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert_says(&infinite.error(), &[NAME]);
    let mut undefined = model();
    undefined.tensor(NAME).bytes[40] = 0x7f;
    assert_says(&undefined.error(), &[NAME, "NaN", "element 40"]);
}

/// Without blocks in config.json nobody knows what 8 bits are worth.
#[test]
fn without_a_description_they_are_refused() {
    let mut model = model();
    model.config.remove("quantization_config");
    assert_says(&model.error(), &[NAME, "F8_E4M3"]);
    for other in [
        json!({"quant_method": "fp8"}),
        json!({"quant_method": "fp8", "weight_block_size": [3, 5], "fmt": "e5m2"}),
        json!({"quant_method": "compressed-tensors", "weight_block_size": [3, 5]}),
    ] {
        model.config.insert("quantization_config".into(), other);
        assert_says(&model.error(), &["quantization_config", "weight_block_size"]);
    }
}

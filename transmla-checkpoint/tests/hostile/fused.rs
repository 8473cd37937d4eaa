//! Projections that are stored together: the parts that they are read as, and what cannot be cut.

use serde_json::json;
use transmla_checkpoint::Checkpoint;

use crate::fixture::{Entry, Model, assert_says, read_everything};

const ATTENTION: &str = "model.layers.1.self_attn";
const MLP: &str = "model.layers.0.mlp";

/// The fixture with some of its projections one below the other in one tensor.
fn fuse(model: &mut Model, module: &str, whole: &str, parts: &[&str]) {
    let parts = parts
        .iter()
        .map(|part| model.remove(&format!("{module}.{part}.weight")));
    let parts: Vec<Entry> = parts.collect();
    let rows = parts.iter().map(|part| part.shape[0]).sum();
    model.tensors.push(Entry {
        name: format!("{module}.{whole}.weight"),
        dtype: parts[0].dtype,
        shape: vec![rows, parts[0].shape[1]],
        bytes: parts.into_iter().flat_map(|part| part.bytes).collect(),
    });
}

/// All of the fixture's, as Phi-3 has them.
fn phi() -> Model {
    let mut model = Model::valid();
    model.config.insert("model_type".into(), json!("phi3"));
    for layer in 0..2 {
        let at = |module: &str| format!("model.layers.{layer}.{module}");
        fuse(
            &mut model,
            &at("self_attn"),
            "qkv_proj",
            &["q_proj", "k_proj", "v_proj"],
        );
        fuse(&mut model, &at("mlp"), "gate_up_proj", &["gate_proj", "up_proj"]);
    }
    model
}

#[test]
fn parts_are_read_as_if_they_were_stored_apart() {
    let (whole, apart) = (phi().save(), Model::valid().save());
    read_everything(whole.path()).unwrap();
    let (whole, apart) = (
        Checkpoint::open(whole.path()).unwrap(),
        Checkpoint::open(apart.path()).unwrap(),
    );
    assert!(whole.names().eq(apart.names()));
    for name in apart.names() {
        let shape = apart.shape(name).unwrap();
        assert_eq!(
            whole.values(name, shape).unwrap(),
            apart.values(name, shape).unwrap(),
            "{name}"
        );
    }
    assert_eq!(whole.total_bytes(), apart.total_bytes());
    assert_eq!(whole.fingerprint().unwrap(), apart.fingerprint().unwrap());
}

#[test]
fn rows_that_are_not_those_of_the_parts() {
    let name = format!("{ATTENTION}.qkv_proj.weight");
    // One row more than two equal parts, and no keys at all.
    for rows in [17, 8, 4] {
        let mut model = phi();
        let entry = model.tensor(&name);
        entry.bytes.resize(rows * 32, 0);
        entry.shape[0] = rows as u64;
        assert_says(&model.error(), &[&name, &format!("{rows} rows"), "8 columns"]);
    }
    let mut model = phi();
    model.remove(&format!("{ATTENTION}.o_proj.weight"));
    assert_says(&model.error(), &[&name, "o_proj is missing"]);
    // An even number that is wrong is another shape of each part.
    let mut model = phi();
    let entry = model.tensor(&name);
    entry.bytes.resize(20 * 32, 0);
    entry.shape[0] = 20;
    assert_says(
        &model.error(),
        &[&format!("{ATTENTION}.k_proj.weight"), "[4, 8]", "[6, 8]"],
    );
    let name = format!("{MLP}.gate_up_proj.weight");
    let mut model = phi();
    let entry = model.tensor(&name);
    entry.bytes.resize(23 * 32, 0);
    entry.shape[0] = 23;
    assert_says(&model.error(), &[&name, "23 rows"]);
}

/// What is stored apart is not replaced, and what is beside it is a tensor that no model has.
#[test]
fn parts_that_are_there_already() {
    let mut model = Model::valid();
    let name = format!("{ATTENTION}.qkv_proj.weight");
    model.add(&name, &[16, 8]);
    assert_says(&model.error(), &[&name, "does not have"]);
}

/// Gate and up-projection of 12 rows each in 8 bits, with a scale for each block of some rows and 5 columns.
fn in_blocks(height: u64) -> Model {
    let mut model = phi();
    let quantization = json!({"quant_method": "fp8", "weight_block_size": [height, 5]});
    model.config.insert("quantization_config".into(), quantization);
    let name = format!("{MLP}.gate_up_proj.weight");
    let matrix = model.tensor(&name);
    matrix.dtype = "F8_E4M3";
    matrix.bytes = (0..24 * 8).map(|index| (index * 37 % 120) as u8).collect();
    let shape = vec![24u64.div_ceil(height), 2];
    let scales = (0..shape.iter().product()).flat_map(|index: u64| (0.5 + index as f32).to_le_bytes());
    model.tensors.push(Entry {
        name: format!("{name}_scale_inv"),
        dtype: "F32",
        bytes: scales.collect(),
        shape,
    });
    model
}

#[test]
fn blocks_are_cut_where_they_end() {
    let folder = in_blocks(3).save();
    read_everything(folder.path()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let [gate, up] = ["gate_proj", "up_proj"].map(|part| {
        let name = format!("{MLP}.{part}.weight");
        checkpoint.values(&name, &[12, 8]).unwrap()
    });
    // The same as with one row to a block, each with the scale of its three.
    let mut rows = in_blocks(1);
    let scales = rows.tensors.last_mut().unwrap();
    let of_row = |row: usize, column: usize| 0.5 + (row / 3 * 2 + column) as f32;
    let each = (0..24).flat_map(|row| [of_row(row, 0), of_row(row, 1)]);
    scales.bytes = each.flat_map(f32::to_le_bytes).collect();
    let rows = rows.save();
    let rows = Checkpoint::open(rows.path()).unwrap();
    for (part, values) in [("gate_proj", gate), ("up_proj", up)] {
        let name = format!("{MLP}.{part}.weight");
        assert_eq!(rows.values(&name, &[12, 8]).unwrap(), values, "{part}");
    }
    let name = format!("{MLP}.gate_up_proj.weight");
    assert_says(&in_blocks(5).error(), &[&name, "rows 12 to 24", "block"]);
}

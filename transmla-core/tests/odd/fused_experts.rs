//! Experts that are stored in one tensor for all of a layer, as transformers 5 writes them with `save_original_format=False`.

use std::path::Path;

use transmla_core::{Checkpoint, ModelConfig};

use crate::fixture::{Entry, Model, assert_says};

/// A model with experts, its weights those of the recorded families.
fn model(family: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/families")
        .join(family);
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let entry = |name: &str| {
        let shape = checkpoint.shape(name).unwrap();
        let mut entry = Entry::new(name, shape);
        entry.values = checkpoint.values(name, shape).unwrap();
        entry
    };
    Model {
        config: config.as_object().unwrap().clone(),
        tensors: checkpoint.names().map(entry).collect(),
    }
}

/// Whose matrix of an expert a tensor is, its number, and the matrix.
fn of_expert(name: &str) -> Option<(String, usize, String)> {
    let (module, rest) = name.split_once(".experts.")?;
    let (number, matrix) = rest.strip_suffix(".weight")?.split_once('.')?;
    Some((module.to_owned(), number.parse().unwrap(), matrix.to_owned()))
}

/// The same with the experts of each layer in two tensors.
fn joined(model: &Model) -> Model {
    let mut joined = model.clone();
    joined.tensors.retain(|entry| of_expert(&entry.name).is_none());
    for entry in &mut joined.tensors {
        entry.name = entry.name.replace(".block_sparse_moe.", ".mlp.");
    }
    let mut modules: Vec<String> = model
        .tensors
        .iter()
        .filter_map(|entry| Some(of_expert(&entry.name)?.0))
        .collect();
    modules.dedup();
    modules.sort();
    modules.dedup();
    for module in modules {
        let matrices = |one: &str, other: &str| {
            let mut found: Vec<(usize, &Entry)> = Vec::new();
            for entry in &model.tensors {
                if let Some((of, number, matrix)) = of_expert(&entry.name)
                    && of == module
                    && (matrix == one || matrix == other)
                {
                    found.push((number, entry));
                }
            }
            found.sort_by_key(|(number, _)| *number);
            found
        };
        let (gates, ups, downs) = (
            matrices("w1", "gate_proj"),
            matrices("w3", "up_proj"),
            matrices("w2", "down_proj"),
        );
        let [width, hidden] = gates[0].1.shape[..] else {
            panic!("no matrix")
        };
        let module = module.replace(".block_sparse_moe", ".mlp");
        let mut gate_up = Entry::new(
            &format!("{module}.experts.gate_up_proj"),
            &[gates.len(), 2 * width, hidden],
        );
        let pairs = gates.iter().zip(&ups);
        gate_up.values = pairs
            .flat_map(|(gate, up)| [gate.1.values.clone(), up.1.values.clone()].concat())
            .collect();
        let mut down = Entry::new(&format!("{module}.experts.down_proj"), &[downs.len(), hidden, width]);
        down.values = downs.iter().flat_map(|down| down.1.values.clone()).collect();
        joined.tensors.extend([gate_up, down]);
    }
    joined
}

#[test]
fn experts_in_one_tensor_are_those_of_tensors_of_their_own() {
    for family in ["mixtral", "qwen3-moe", "qwen2-moe"] {
        let apart = model(family);
        let together = joined(&apart);
        assert!(together.tensors.len() < apart.tensors.len(), "{family}");
        let (apart, together) = (apart.save(), together.save());
        assert_eq!(apart.logits().0, together.logits().0, "{family}");
        // By the published names, and nothing besides.
        let names = |folder: &Path| {
            let checkpoint = Checkpoint::open(folder).unwrap();
            checkpoint.names().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(names(apart.path()), names(together.path()), "{family}");
        let notes = ModelConfig::read(together.path()).unwrap().notes;
        assert_eq!(notes, Vec::<String>::new(), "{family}");
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let changed = |name: &str, change: &dyn Fn(&mut Entry)| {
        let mut model = joined(&model("qwen3-moe"));
        let entry = model
            .tensors
            .iter_mut()
            .find(|entry| entry.name.contains(name))
            .unwrap();
        change(entry);
        model.save().error()
    };
    let error = changed("experts.down_proj", &|entry| entry.shape.swap(1, 2));
    assert_says(
        &error,
        &[
            "experts.gate_up_proj",
            "[6, 80, 96]",
            "[6, 40, 96]",
            "[experts, hidden, width]",
        ],
    );
    let error = changed("experts.gate_up_proj", &|entry| entry.shape = vec![6 * 80, 96]);
    assert_says(&error, &["experts.gate_up_proj", "[480, 96]"]);
    // One alone is a tensor that no model has, beside experts that are missing.
    let mut half = joined(&model("qwen3-moe"));
    half.drop_all("experts.down_proj");
    assert_says(&half.save().error(), &["mlp.experts."]);
}

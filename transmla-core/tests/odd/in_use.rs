//! Models whose files or tokens are not what they should be while they are run.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use burn::tensor::Device;
use serde_json::json;
use transmla_core::model::RoundedModel;
use transmla_core::{CoreError, Decoder, LayeredModel, Residency, TokenBatch};

use crate::fixture::{Entry, Folder, Model, assert_says};

const EMBEDDING: &str = "model.embed_tokens.weight";

type Change = fn(&Path);

/// Ways in which other programs change a file, and what is said of each.
const CHANGES: [(&str, &str, Change); 6] = [
    ("cut short", "bytes", |file| open(file).set_len(100).unwrap()),
    ("emptied", "has 0;", |file| open(file).set_len(0).unwrap()),
    ("grown", "bytes", |file| {
        let length = fs::metadata(file).unwrap().len();
        open(file).set_len(length + 4).unwrap();
    }),
    ("overwritten with zeros", "written to", |file| {
        fs::write(file, vec![0; fs::metadata(file).unwrap().len() as usize]).unwrap();
        // Times of files are coarse: what is written in the same instant could not be told.
        open(file)
            .set_modified(SystemTime::now() + Duration::from_secs(1))
            .unwrap();
    }),
    ("replaced by a copy", "another file", |file| {
        let (copy, modified) = (
            file.with_extension("copy"),
            fs::metadata(file).unwrap().modified().unwrap(),
        );
        fs::copy(file, &copy).unwrap();
        open(&copy).set_modified(modified).unwrap();
        fs::rename(copy, file).unwrap();
    }),
    ("removed", "no longer there", |file| fs::remove_file(file).unwrap()),
];

fn open(file: &Path) -> File {
    File::options().write(true).open(file).unwrap()
}

fn decoder(folder: &Folder, residency: Residency) -> Decoder {
    Decoder::open(folder.path(), &Device::flex(), residency).unwrap()
}

/// A model that is streamed notices it at the next layer, and one that is loaded at the next word.
#[test]
fn a_model_in_use_tells() {
    for (how, what, change) in CHANGES {
        for residency in [Residency::Streamed, Residency::Loaded] {
            let folder = Model::llama().save();
            let model = decoder(&folder, residency);
            let tokens = TokenBatch::from_ids(vec![1, 2], 1, 2).unwrap();
            model.logits(&tokens, None).unwrap();
            model.layer(0).unwrap();
            change(&folder.path().join("model.safetensors"));
            let error = model.logits(&tokens, None).expect_err(how).to_string();
            assert_says(&error, &["model.safetensors", what]);
        }
    }
}

#[test]
fn a_tied_head_is_the_embedding_unless_the_file_has_another() {
    let tied = |tied: bool| Model::new("llama", &json!({"tie_word_embeddings": tied}), &[]);
    let head = |model: &mut Model, values: Vec<f32>| {
        let shape = model
            .tensors
            .iter()
            .find(|entry| entry.name == EMBEDDING)
            .unwrap()
            .shape
            .clone();
        model.tensors.retain(|entry| entry.name != "lm_head.weight");
        let head = Entry::new("lm_head.weight", &shape);
        model.tensors.push(Entry { values, ..head });
    };
    let own = Entry::new("lm_head.weight", &tied(true).tensors[0].shape).values;
    let embedding = tied(true).tensors[0].values.clone();
    assert_eq!(tied(true).tensors[0].name, EMBEDDING);

    let untied = logits_of_first_token(&tied(false));
    let mut model = tied(true);
    head(&mut model, own);
    assert_eq!(untied, logits_of_first_token(&model));
    head(&mut model, embedding);
    let with_head = logits_of_first_token(&model);
    assert_ne!(untied, with_head);
    model.drop_all("lm_head");
    assert_eq!(with_head, logits_of_first_token(&model));

    let mut without = tied(false);
    without.drop_all("lm_head");
    let error = without.save().error();
    assert_says(&error, &["lm_head.weight", "not in", "tie_word_embeddings"]);
}

fn logits_of_first_token(model: &Model) -> Vec<f32> {
    let folder = model.save();
    let decoder = decoder(&folder, Residency::Streamed);
    let tokens = TokenBatch::from_ids(vec![3], 1, 1).unwrap();
    let logits = decoder.logits(&tokens, None).unwrap().into_data();
    let values: Vec<f32> = logits.iter::<f32>().collect();
    assert!(values.iter().any(|v| *v != values[0]));
    values
}

#[test]
fn a_token_outside_the_vocabulary() {
    let folder = Model::llama().save();
    let decoder = decoder(&folder, Residency::Streamed);
    let size = decoder.config().vocab_size as i64;
    let tokens = TokenBatch::from_ids(vec![0, size], 1, 2).unwrap();
    let error = decoder.logits(&tokens, None).unwrap_err().to_string();
    assert_says(&error, &[&format!("token id {size}"), &format!("vocabulary of {size}")]);
}

/// Streamed, loaded and rounded alike.
#[test]
fn a_layer_that_there_is_not() {
    let folder = Model::llama().save();
    for residency in [Residency::Streamed, Residency::Loaded] {
        let model = decoder(&folder, residency);
        let layers = model.config().num_hidden_layers;
        let rounded = RoundedModel {
            model: &model,
            format: transmla_core::model::NumberFormat::Bf16,
        };
        for model in [&model as &dyn LayeredModel, &rounded] {
            assert!(model.layer(layers - 1).is_ok());
            for index in [layers, layers + 7, usize::MAX] {
                let error = model.layer(index).unwrap_err();
                assert!(matches!(error, CoreError::NoSuchLayer { .. }), "{error}");
                assert_says(&error.to_string(), &[&layers.to_string(), &index.to_string()]);
            }
        }
    }
}

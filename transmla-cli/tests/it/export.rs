//! `transmla export` writes GGUF.

use crate::support::{Workplace, transmla};

#[test]
fn a_stock_model_becomes_one_file() {
    let place = Workplace::new();
    transmla(&place.convert(&["--dtype", "fp32"])).succeeds();
    let (model, output) = (place.arg("outputs"), place.arg("m.gguf"));
    let arguments = ["export", "--model-path", &model, "--output", &output];
    transmla(&arguments).succeeds();
    let file = std::fs::read(place.path("m.gguf")).unwrap();
    assert_eq!(file[..8], *b"GGUF\x03\0\0\0");
    let tensors = u64::from_le_bytes(file[8..16].try_into().unwrap());
    // Embedding, norm and head; 13 of each layer.
    assert_eq!(tensors, 3 + 5 * 13);
    let has = |words: &[u8]| file.windows(words.len()).any(|window| window == words);
    for words in ["deepseek2.attention.key_length_mla", "blk.4.attn_k_b.weight", "<0x0A>"] {
        assert!(has(words.as_bytes()), "{words}");
    }
    assert_eq!(place.contents(), ["m.gguf", "outputs"]);
    transmla(&arguments).fails(1, &["m.gguf exists", "--force"]);
    transmla(&[&arguments[..], &["--force", "-q"]].concat()).succeeds();
}

#[test]
fn what_llama_cpp_does_not_know_is_refused() {
    let place = Workplace::new();
    let (model, output) = (place.arg("outputs"), place.arg("m.gguf"));
    let arguments = ["export", "--model-path", &model, "--output", &output];
    transmla(&place.convert(&["--style", "family"])).succeeds();
    transmla(&arguments).fails(1, &["llamamla"]);
    transmla(&["export", "--model-path", "embedded", "--output", &output]).fails(1, &["no latent attention"]);
    transmla(&place.convert(&["--force"])).succeeds();
    std::fs::remove_file(place.path("outputs/tokenizer.json")).unwrap();
    transmla(&arguments).fails(1, &["tokenizer.json"]);
    assert_eq!(place.contents(), ["outputs"]);
}

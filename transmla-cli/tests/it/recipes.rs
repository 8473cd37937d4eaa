//! The recipes of the repository, planned from config.json files of the models that they name.

use std::path::{Path, PathBuf};

use crate::support::{configs, names, transmla};

fn recipes_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes")
}

/// The configuration of the model that a recipe names.
fn config_of(recipe: &str) -> PathBuf {
    let text = std::fs::read_to_string(recipes_folder().join(recipe)).unwrap();
    let line = text.lines().find(|line| line.starts_with("model-path")).unwrap();
    let id = line.split('"').nth(1).unwrap();
    configs().join(id.rsplit('/').next().unwrap().to_lowercase())
}

fn plan(recipe: &str, more: &[&str]) -> serde_json::Value {
    let file = recipes_folder().join(recipe);
    let config = config_of(recipe);
    let words = ["convert", "--dry-run", "--json", "--recipe"];
    let paths = [file.to_str().unwrap(), "--model-path", config.to_str().unwrap()];
    transmla(&[&words[..], &paths, more].concat()).json()
}

#[test]
fn every_recipe_plans() {
    let recipes: Vec<String> = names(&recipes_folder())
        .into_iter()
        .filter(|name| name.ends_with(".toml"))
        .collect();
    let mut published = 0;
    for recipe in recipes {
        let text = std::fs::read_to_string(recipes_folder().join(&recipe)).unwrap();
        let row = text.contains("\n# Published perplexity on wikitext2: ");
        published += usize::from(row);
        let plan = plan(&recipe, &[]);
        let widths: Vec<&str> = recipe.trim_end_matches(".toml").rsplit('-').take(2).collect();
        let number = |text: &str| text.parse::<u64>().unwrap();
        assert_eq!(plan["shapes"]["qk_rope_head_dim"], number(widths[0]), "{recipe}");
        assert_eq!(plan["shapes"]["kv_lora_rank"], number(widths[1]), "{recipe}");
        let cache = plan["kv_cache"]["mla"].as_u64().unwrap();
        match row {
            true => assert_eq!(cache, 576, "{recipe}"),
            false => assert_eq!(2 * cache, plan["kv_cache"]["original"].as_u64().unwrap(), "{recipe}"),
        }
    }
    assert_eq!(published, 19);
}

#[test]
fn options_go_before_a_recipe() {
    let plan = plan(
        "mixtral-8x7b-448-128.toml",
        &["--kv-lora-rank", "200", "--dtype", "fp32"],
    );
    assert_eq!(plan["shapes"]["kv_lora_rank"], 200);
    assert_eq!(plan["shapes"]["qk_rope_head_dim"], 128);
    assert_eq!(plan["dtype"], "fp32");
}

//! Passages of running text that end with a word to guess, as LAMBADA has them.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::json;
use transmla_calib::transmla_checkpoint::hub::HubOptions;
use transmla_calib::{DatasetSource, Split, load};

/// Words of a passage, the last one included: fewer than this are not enough to go by.
const SHORTEST: usize = 40;
const LONGEST: usize = 80;

/// Writes passages of a dataset's test split to a file with one object a line, whose `text` is a passage.
///
/// # Errors
/// The dataset cannot be read, has fewer passages, or the file cannot be written.
pub fn write(dataset: &Path, count: usize, file: &Path) -> anyhow::Result<()> {
    let text = load(
        &DatasetSource::Path(dataset.to_path_buf()),
        Split::Test,
        &HubOptions::default(),
    )?;
    let all = passages(&text.rows);
    ensure!(
        all.len() >= count,
        "{} has {} passages of {count}",
        dataset.display(),
        all.len()
    );
    // Evenly over the whole text.
    let chosen = (0..count).map(|index| &all[index * all.len() / count]);
    let lines: String = chosen.map(|text| json!({ "text": text }).to_string() + "\n").collect();
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::write(file, lines).with_context(|| format!("cannot write {}", file.display()))
}

/// Rows put together until they have enough words, up to the last real word of what is not too long.
///
/// A real word has three letters or more and nothing else: no punctuation, number or `<unk>`.
fn passages(rows: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    for row in rows {
        // A heading ends what came before it.
        if row.trim_start().starts_with('=') {
            words.clear();
            continue;
        }
        words.extend(row.split_whitespace());
        if words.len() < SHORTEST {
            continue;
        }
        words.truncate(LONGEST);
        let is_real = |word: &&str| word.chars().count() >= 3 && word.chars().all(char::is_alphabetic);
        if let Some(last) = words.iter().rposition(is_real).filter(|last| *last + 1 >= SHORTEST) {
            found.push(words[..=last].join(" "));
        }
        words.clear();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passage_is_long_enough_and_ends_with_a_word() {
        let words = |count: usize, end: &str| format!("{}{end}\n", "so it was ".repeat(count / 3));
        let rows = [
            " = Title = \n".to_owned(),
            words(30, "."),
            " = Another = ".into(),
            words(21, "<unk> ."),
            String::new(),
            words(21, "here N <unk> 12 it-s ."),
            words(99, "end ."),
        ];
        let found = passages(&rows);
        assert_eq!(found.len(), 2);
        assert!(
            found[0].starts_with("so it was") && found[0].ends_with(" was here"),
            "{}",
            found[0]
        );
        assert_eq!(found[1].split(' ').count(), LONGEST - 2, "{}", found[1]);
        assert!(found[1].ends_with(" was"));
    }

    #[test]
    fn passages_are_taken_from_all_of_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let rows: Vec<String> = (0..10)
            .map(|index| format!("{} row{index} ends here", "a word or two ".repeat(12)))
            .collect();
        let dataset = folder.path().join("test.txt");
        fs::write(&dataset, rows.join("\n")).unwrap();
        let file = folder.path().join("data/words_test.jsonl");
        write(&dataset, 5, &file).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 5);
        assert!(text.contains("row0 ends here") && text.contains("row8 ends here") && !text.contains("row9"));
        assert!(write(&dataset, 11, &file).is_err());
    }
}

//! Tests of the whole crate on the embedded model's tokenizer and stories.

mod bad_input;
mod chat_rows;
mod chat_templates;
mod hub_cache;
mod kinds;
mod recorded;
mod sampling;
mod streaming;
mod tokenizers;
mod windows;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use transmla_calib::{CalibError, DatasetSource, Split, TextRows, TextTokenizer, load};
use transmla_checkpoint::hub::HubOptions;

/// The tokenizer of stories260K.
static TOKENIZER: LazyLock<TextTokenizer> =
    LazyLock::new(|| TextTokenizer::from_folder(&models().join("stories260k")).unwrap());

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-cli/models")
}

fn stories(split: Split) -> TextRows {
    load_path(&models().join("stories"), split).unwrap()
}

fn load_path(path: &Path, split: Split) -> Result<TextRows, CalibError> {
    let offline = HubOptions {
        offline: true,
        ..HubOptions::default()
    };
    load(&DatasetSource::Path(path.to_path_buf()), split, &offline)
}

/// Writes a parquet file with one column of byte arrays, each optional; `kind` is `STRING` for text.
fn write_parquet(path: &Path, column: &str, kind: &str, rows: &[Option<&[u8]>]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let schema = format!("message schema {{ OPTIONAL INT32 label; OPTIONAL BYTE_ARRAY {column} {kind}; }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
    while let Some(mut column) = group.next_column().unwrap() {
        match column.untyped() {
            ColumnWriter::Int32ColumnWriter(label) => {
                label.write_batch(&[], Some(&vec![0; rows.len()]), None).unwrap();
            }
            ColumnWriter::ByteArrayColumnWriter(text) => {
                let values: Vec<ByteArray> = rows.iter().flatten().map(|row| row.to_vec().into()).collect();
                text.write_batch(&values, Some(&levels), None).unwrap();
            }
            _ => unreachable!(),
        }
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

//! The text column of a parquet file.

use std::fs::File;
use std::path::Path;

use parquet::basic::{Compression, ConvertedType, LogicalType, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::ByteArrayType;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use crate::CalibError;
use crate::column::{self, Candidate, FileRows};
use crate::contain::contained;

/// Rows decoded at a time.
const CHUNK: usize = 4096;

/// Reads all rows of the text column; a null is an empty row.
pub(crate) fn read(path: &Path) -> Result<FileRows, CalibError> {
    contained(|| decode(path)).unwrap_or_else(|problem| Err(CalibError::corrupt(path, problem)))
}

fn decode(path: &Path) -> Result<FileRows, CalibError> {
    let file = File::open(path).map_err(|e| CalibError::io("read", path, e))?;
    let reader = SerializedFileReader::new(file)
        .map_err(|e| CalibError::corrupt(path, format!("not a valid parquet file: {e}")))?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let candidates: Vec<Candidate> = (0..schema.num_columns()).map(|i| candidate(schema, i)).collect();
    let index = column::choose(path, &candidates)?;
    let mut rows = Vec::new();
    for group in 0..reader.num_row_groups() {
        let problem = |e: parquet::errors::ParquetError| CalibError::corrupt(path, format!("row group {group}: {e}"));
        let group = reader.get_row_group(group).map_err(problem)?;
        check_compression(path, group.metadata().column(index).compression())?;
        let ColumnReader::ByteArrayColumnReader(reader) = group.get_column_reader(index).map_err(problem)? else {
            return Err(CalibError::corrupt(path, "the text column holds no byte arrays"));
        };
        let before = rows.len();
        read_column(path, reader, schema.column(index).max_def_level(), &mut rows)?;
        let (expected, found) = (group.metadata().num_rows(), rows.len() - before);
        if usize::try_from(expected) != Ok(found) {
            let problem = format!("a row group should have {expected} rows and has {found}");
            return Err(CalibError::corrupt(path, problem));
        }
    }
    Ok(FileRows {
        rows,
        column: schema.column(index).name().to_owned(),
    })
}

fn candidate(schema: &SchemaDescriptor, index: usize) -> Candidate {
    let column = schema.column(index);
    Candidate {
        name: column.path().string(),
        kind: column.physical_type().to_string(),
        is_text: is_text(&column),
    }
}

/// Whether a column is one string (or null) a row.
fn is_text(column: &ColumnDescriptor) -> bool {
    column.path().parts().len() == 1
        && column.max_rep_level() == 0
        && column.physical_type() == PhysicalType::BYTE_ARRAY
        && (column.converted_type() == ConvertedType::UTF8
            || matches!(column.logical_type_ref(), Some(LogicalType::String)))
}

fn check_compression(path: &Path, compression: Compression) -> Result<(), CalibError> {
    match compression {
        Compression::ZSTD(_) | Compression::LZO => Err(CalibError::Unsupported {
            path: path.to_path_buf(),
            found: format!("the compression {compression}"),
            supported: "none, snappy, gzip, brotli, lz4 \
                        (pandas.read_parquet(file).to_parquet(file, compression='snappy') rewrites it)",
        }),
        _ => Ok(()),
    }
}

fn read_column(
    path: &Path,
    mut reader: ColumnReaderImpl<ByteArrayType>,
    max_def_level: i16,
    rows: &mut Vec<String>,
) -> Result<(), CalibError> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    loop {
        levels.clear();
        values.clear();
        let (records, _, _) = reader
            .read_records(CHUNK, Some(&mut levels), None, &mut values)
            .map_err(|e| CalibError::corrupt(path, format!("after row {}: {e}", rows.len())))?;
        if records == 0 {
            return Ok(());
        }
        let mut values = values.iter();
        for record in 0..records {
            let present = levels.get(record).is_none_or(|&level| level == max_def_level);
            let row = match if present { values.next() } else { None } {
                Some(value) => std::str::from_utf8(value.data())
                    .map_err(|e| CalibError::corrupt(path, format!("row {}: {e}", rows.len() + 1)))?,
                None => "",
            };
            rows.push(row.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_is_refused_with_a_way_out() {
        let check = |compression| check_compression(Path::new("a.parquet"), compression);
        let error = check(Compression::ZSTD(Default::default())).unwrap_err().to_string();
        assert!(
            error.contains("a.parquet") && error.contains("ZSTD") && error.contains("snappy"),
            "{error}"
        );
        assert!(check(Compression::SNAPPY).is_ok() && check(Compression::UNCOMPRESSED).is_ok());
    }
}

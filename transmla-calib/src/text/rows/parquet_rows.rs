//! Reading the text column of a parquet file.

use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, LogicalType, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::ByteArrayType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor, Type};
use serde_json::{Map, Value};

use crate::error::CalibError;
use crate::text::contain::contained;
use crate::text::open::regular;
use crate::text::rows::chat::CHATS;
use crate::text::rows::collected::Rows;
use crate::text::rows::column::{self, Candidate, Holds};
use crate::text::rows::parquet_guard::{Guarded, check_footer, check_pages};

/// Rows decoded at a time.
const CHUNK: usize = 128;

/// Reads the rows of the text column; null is an empty row.
pub(crate) fn read(path: &Path, wanted: Option<&str>, rows: &mut Rows) -> Result<(), CalibError> {
    contained(|| decode(path, wanted, rows))
        .unwrap_or_else(|panic| Err(CalibError::undecodable(path, panic.to_string(), panic)))
}

fn decode(path: &Path, wanted: Option<&str>, rows: &mut Rows) -> Result<(), CalibError> {
    let mut file = regular(path)?;
    check_footer(path, &mut file)?;
    let pages = regular(path)?;
    let reader = SerializedFileReader::new(file)
        .map_err(|e| CalibError::undecodable(path, format!("not a valid parquet file: {e}"), e))?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let mut columns = columns(schema);
    let candidates: Vec<Candidate> = columns.iter().map(|(candidate, _)| candidate.clone()).collect();
    let (candidate, place) = columns.swap_remove(column::choose(path, &candidates, wanted)?);
    for group in 0..reader.num_row_groups() {
        if rows.is_full() {
            break;
        }
        let problem = |e: ParquetError| CalibError::undecodable(path, format!("row group {group}: {e}"), e);
        let group = Guarded(reader.get_row_group(group).map_err(problem)?);
        for chunk in place.leaves(schema).map(|leaf| group.metadata().column(leaf)) {
            check_compression(path, chunk.compression())?;
            check_pages(path, &pages, chunk)?;
        }
        let found = match &place {
            Place::Leaf(index) => {
                let ColumnReader::ByteArrayColumnReader(reader) = group.get_column_reader(*index).map_err(problem)?
                else {
                    return Err(CalibError::corrupt(path, "the text column holds no byte arrays"));
                };
                read_column(path, reader, schema.column(*index).max_def_level(), rows)?
            }
            Place::Root(field) => read_records(path, &group, field, schema, rows)?,
        };
        let expected = group.metadata().num_rows();
        if usize::try_from(expected) != Ok(found) && !rows.is_full() {
            let problem = format!("a row group should have {expected} rows and has {found}");
            return Err(CalibError::corrupt(path, problem));
        }
    }
    rows.column(&candidate.name);
    Ok(())
}

/// Where a column is in the schema.
#[derive(Debug, Clone)]
enum Place {
    /// A leaf with at most one value per row.
    Leaf(usize),
    /// A column with a list in each row, read record by record.
    Root(Arc<Type>),
}

impl Place {
    fn leaves<'a>(&'a self, schema: &'a SchemaDescriptor) -> impl Iterator<Item = usize> + 'a {
        (0..schema.num_columns()).filter(move |&leaf| match self {
            Self::Leaf(index) => leaf == *index,
            Self::Root(field) => schema.get_column_root(leaf).name() == field.name(),
        })
    }
}

/// All columns: the leaves outside lists, and the columns that are lists.
fn columns(schema: &SchemaDescriptor) -> Vec<(Candidate, Place)> {
    let mut found: Vec<(Candidate, Place)> = Vec::new();
    for index in 0..schema.num_columns() {
        let leaf = schema.column(index);
        let root = schema.get_column_root_ptr(index);
        if leaf.max_rep_level() == 0 {
            let holds = if is_text(&leaf) { Holds::Text } else { Holds::Other };
            let candidate = Candidate {
                name: leaf.path().string(),
                kind: leaf.physical_type().to_string(),
                holds,
            };
            found.push((candidate, Place::Leaf(index)));
        } else if !found.iter().any(|(known, _)| known.name == root.name()) {
            let (kind, holds) = match leaf.path().parts() {
                _ if CHATS.contains(&root.name()) => ("list of messages", Holds::Chat),
                parts if parts.len() <= 3 && is_text(&leaf) => ("list of strings", Holds::Strings),
                _ => ("list", Holds::Other),
            };
            let candidate = Candidate {
                name: root.name().to_owned(),
                kind: kind.into(),
                holds,
            };
            found.push((candidate, Place::Root(root)));
        }
    }
    found
}

fn is_text(column: &ColumnDescriptor) -> bool {
    column.physical_type() == PhysicalType::BYTE_ARRAY
        && (column.converted_type() == ConvertedType::UTF8
            || matches!(column.logical_type_ref(), Some(LogicalType::String)))
}

fn check_compression(path: &Path, compression: Compression) -> Result<(), CalibError> {
    match compression {
        Compression::LZO => Err(CalibError::Unsupported {
            path: path.to_path_buf(),
            found: format!("the compression {compression}"),
            supported: "none, snappy, gzip, zstd, brotli, lz4 \
                        (pandas.read_parquet(file).to_parquet(file, compression='snappy') rewrites it)"
                .into(),
        }),
        _ => Ok(()),
    }
}

/// Reads a column of strings; returns the number of rows.
fn read_column(
    path: &Path,
    mut reader: ColumnReaderImpl<ByteArrayType>,
    max_def_level: i16,
    rows: &mut Rows,
) -> Result<usize, CalibError> {
    let (mut levels, mut values, mut found) = (Vec::new(), Vec::new(), 0);
    while !rows.is_full() {
        levels.clear();
        values.clear();
        let (records, _, _) = reader
            .read_records(CHUNK, Some(&mut levels), None, &mut values)
            .map_err(|e| CalibError::undecodable(path, format!("after row {found}: {e}"), e))?;
        if records == 0 {
            break;
        }
        let mut values = values.iter();
        for record in 0..records {
            let present = levels.get(record).is_none_or(|&level| level == max_def_level);
            let row = match if present { values.next() } else { None } {
                Some(value) => std::str::from_utf8(value.data())
                    .map_err(|e| CalibError::undecodable(path, format!("row {}: {e}", found + 1), e))?,
                None => "",
            };
            rows.push(row.to_owned());
            found += 1;
        }
    }
    Ok(found)
}

/// Reads a column of lists; returns the number of rows.
fn read_records(
    path: &Path,
    group: &Guarded<'_>,
    field: &Arc<Type>,
    schema: &SchemaDescriptor,
    rows: &mut Rows,
) -> Result<usize, CalibError> {
    let problem = |e: ParquetError| CalibError::undecodable(path, format!("column {}: {e}", field.name()), e);
    let projection = Type::group_type_builder(schema.root_schema().name())
        .with_fields(vec![Arc::clone(field)])
        .build()
        .map_err(problem)?;
    let mut found = 0;
    for record in group.get_row_iter(Some(projection)).map_err(problem)? {
        if rows.is_full() {
            break;
        }
        found += 1;
        let record = record.map_err(problem)?;
        let value = record
            .get_column_iter()
            .next()
            .map_or(Value::Null, |(_, field)| value_of(field));
        if !rows.push_value(value)? {
            let problem = format!(
                "row {found}: column {} holds neither messages nor strings",
                field.name()
            );
            return Err(CalibError::corrupt(path, problem));
        }
    }
    Ok(found)
}

/// A field as JSON; what is neither text nor composed of text is null.
fn value_of(field: &Field) -> Value {
    match field {
        Field::Str(text) => Value::String(text.clone()),
        Field::Group(row) => {
            let members = row
                .get_column_iter()
                .map(|(name, field)| (name.clone(), value_of(field)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(value_of).collect()),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_compression_is_refused_with_a_way_out() {
        let check = |compression| check_compression(Path::new("a.parquet"), compression);
        let error = check(Compression::LZO).unwrap_err().to_string();
        assert!(
            error.contains("a.parquet") && error.contains("LZO") && error.contains("snappy"),
            "{error}"
        );
        assert!(check(Compression::SNAPPY).is_ok() && check(Compression::ZSTD(Default::default())).is_ok());
    }
}

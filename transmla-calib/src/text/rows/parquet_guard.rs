//! Checks of what a parquet file asks its decoder to allocate.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use parquet::basic::Encoding;
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::reader::RowGroupReader;
use parquet::record::reader::RowIter;
use parquet::schema::types::{ColumnDescPtr, Type};

use crate::error::CalibError;
use crate::text::rows::collected::size;
use crate::text::rows::thrift;

/// Most bytes of a page, compressed or not. Writers make pages of about one MiB, or of one row.
const PAGE: i64 = 256 << 20;

/// Most bytes of the footer.
const FOOTER: u64 = 64 << 20;

/// Checks the footer of a file before the decoder reads it.
pub(crate) fn check_footer(path: &Path, file: &mut File) -> Result<(), CalibError> {
    let fail = |e| CalibError::io("read", path, e);
    let corrupt = |problem: String| CalibError::corrupt(path, format!("not a valid parquet file: {problem}"));
    let length = file.metadata().map_err(fail)?.len();
    if length < 12 {
        return Err(corrupt("it is too short".into()));
    }
    let mut end = [0; 8];
    file.seek(SeekFrom::Start(length - 8)).map_err(fail)?;
    file.read_exact(&mut end).map_err(fail)?;
    if end[4..] != *b"PAR1" {
        return Err(corrupt("it does not end with PAR1".into()));
    }
    let footer = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    if footer > FOOTER || footer > length - 12 {
        return Err(corrupt(format!("its description is said to have {footer} bytes")));
    }
    file.seek(SeekFrom::Start(length - 8 - footer)).map_err(fail)?;
    let mut reader = BufReader::new(&*file).take(footer);
    let (mut elements, mut children) = (0_i64, 0_i64);
    let mut seen = |number: thrift::Number| match number.path {
        // The number of children of a schema element, which cannot exceed the number of elements.
        [2, 5, 0, 0] => children = children.max(number.value),
        [2, 1, 0, 0] | [2, 3, 0, 0] => elements += 1,
        _ => {}
    };
    thrift::walk(&mut reader, &mut seen)
        .map_err(|e| CalibError::undecodable(path, format!("not a valid parquet file: {e}"), e))?;
    if children > elements {
        return Err(corrupt(format!("a group is said to have {children} columns")));
    }
    file.rewind().map_err(fail)
}

/// Checks the sizes of all pages of a column.
pub(crate) fn check_pages(path: &Path, file: &File, column: &ColumnChunkMetaData) -> Result<(), CalibError> {
    let corrupt = |problem: String| CalibError::corrupt(path, format!("a page of the column: {problem}"));
    let (start, length) = column.byte_range();
    let mut reader = BufReader::new(file);
    reader
        .seek(SeekFrom::Start(start))
        .map_err(|e| CalibError::io("read", path, e))?;
    loop {
        let at = reader.stream_position().map_err(|e| CalibError::io("read", path, e))?;
        if at >= start.saturating_add(length) {
            return Ok(());
        }
        let (mut sizes, mut values) = ([0_i64; 2], 0);
        let mut seen = |number: thrift::Number| match number.path {
            [2, 0, 0, 0] => sizes[0] = number.value,
            [3, 0, 0, 0] => sizes[1] = number.value,
            // Each value of a dictionary takes at least four bytes.
            [7, 1, 0, 0] => values = number.value,
            _ => {}
        };
        thrift::walk(&mut reader.by_ref().take(FOOTER), &mut seen)
            .map_err(|e| CalibError::undecodable(path, format!("a page of the column: {e}"), e))?;
        let [unpacked, packed] = sizes;
        if packed < 0 || unpacked < 0 || packed.max(unpacked) > PAGE {
            let limit = size(PAGE as usize);
            return Err(corrupt(format!(
                "it is said to have {} bytes, at most {limit} are read",
                packed.max(unpacked)
            )));
        }
        if values < 0 || values > unpacked / 4 {
            return Err(corrupt(format!(
                "a dictionary of {unpacked} bytes is said to have {values} values"
            )));
        }
        reader
            .seek_relative(packed)
            .map_err(|e| CalibError::io("read", path, e))?;
    }
}

/// A row group whose pages are checked before they are decoded.
pub(crate) struct Guarded<'a>(pub Box<dyn RowGroupReader + 'a>);

impl RowGroupReader for Guarded<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.0.metadata()
    }

    fn num_columns(&self) -> usize {
        self.0.num_columns()
    }

    fn get_column_page_reader(&self, index: usize) -> ParquetResult<Box<dyn PageReader>> {
        let inner = self.0.get_column_page_reader(index)?;
        let column = self.metadata().schema_descr().column(index);
        Ok(Box::new(GuardedPages { inner, column }))
    }

    fn get_column_bloom_filter(&self, index: usize) -> Option<&Sbbf> {
        self.0.get_column_bloom_filter(index)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> ParquetResult<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

struct GuardedPages {
    inner: Box<dyn PageReader>,
    column: ColumnDescPtr,
}

impl PageReader for GuardedPages {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        let page = self.inner.get_next_page()?;
        match &page {
            Some(page) if !is_plausible(page, &self.column) => Err(ParquetError::General(
                "a page has other than the values it is said to have".into(),
            )),
            _ => Ok(page),
        }
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.inner.skip_next_page()
    }
}

impl Iterator for GuardedPages {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

/// Whether a page whose values are stored with their lengths has no more lengths than values: the decoder allocates as many
/// as the page claims.
fn is_plausible(page: &Page, column: &ColumnDescPtr) -> bool {
    let lists = match page.encoding() {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
        Encoding::DELTA_BYTE_ARRAY => 2,
        _ => return true,
    };
    let buffer: &[u8] = page.buffer();
    let values = match page {
        Page::DataPageV2 {
            def_levels_byte_len,
            rep_levels_byte_len,
            ..
        } => buffer.get(*def_levels_byte_len as usize + *rep_levels_byte_len as usize..),
        _ => {
            let levels = usize::from(column.max_def_level() > 0) + usize::from(column.max_rep_level() > 0);
            (0..levels).try_fold(buffer, |rest, _| {
                let length = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?) as usize;
                rest.get(4..)?.get(length..)
            })
        }
    };
    let most = u64::from(page.num_values());
    let lists = values.and_then(|values| (0..lists).try_fold(values, |rest, _| behind_packed(rest, most)));
    lists.is_some()
}

/// The bytes after a list of packed differences, if the list has at most `most` values.
fn behind_packed(mut bytes: &[u8], most: u64) -> Option<&[u8]> {
    let block = varint(&mut bytes)?;
    let parts = varint(&mut bytes)?;
    let values = varint(&mut bytes)?;
    varint(&mut bytes)?;
    if values > most || parts == 0 || parts > 1024 || block > 1 << 20 {
        return None;
    }
    let each = block / parts;
    let mut left = values.saturating_sub(1);
    while left > 0 {
        varint(&mut bytes)?;
        let (widths, rest) = bytes.split_at_checked(parts as usize)?;
        bytes = rest;
        for width in widths {
            // Blocks past the last value are not stored.
            if left == 0 {
                break;
            }
            bytes = bytes.get((u64::from(*width) * each / 8) as usize..)?;
            left = left.saturating_sub(each.max(1));
        }
    }
    Some(bytes)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(footer: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let length = (footer.len() as u32).to_le_bytes();
        std::fs::write(&path, [b"PAR1", footer, &length, b"PAR1"].concat()).unwrap();
        let mut file = File::open(&path).unwrap();
        check_footer(&path, &mut file)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn a_description_may_not_ask_for_more_than_it_has() {
        // Version 1; a schema of one element, whose name is r and which has two children more than there are.
        let schema = |children: &[u8]| [&[0x15, 2, 0x19, 0x1c, 0x48, 1, b'r', 0x15][..], children, &[0, 0]].concat();
        assert_eq!(problem(&schema(&[0])), "");
        assert!(problem(&schema(&[4])).contains("said to have 2 columns"));
        assert!(problem(&schema(&[0xfe, 0xff, 0xff, 0xff, 0x0f])).contains("said to have 2147483647 columns"));
        // A list of two thousand million elements, one that ends early, structures in structures.
        assert!(problem(&[0x15, 2, 0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 7]).contains("a list is too long"));
        assert!(!problem(&[0x15, 2, 0x19, 0x5c, 0x48, 1]).is_empty());
        assert!(problem(&[0x1c; 100]).contains("too many structures"));
    }

    #[test]
    fn packed_differences_may_not_be_more_than_values() {
        // Blocks of 128 in four parts, five values from 3 on, differences of width 0.
        let list = |values: &[u8]| [&[0x80, 1, 4][..], values, &[6, 2, 0, 0, 0, 0], b"rest"].concat();
        assert_eq!(behind_packed(&list(&[5]), 5), Some(&b"rest"[..]));
        assert_eq!(behind_packed(&list(&[5]), 4), None);
        assert_eq!(behind_packed(&list(&[0xff, 0xff, 0xff, 0xff, 0xf]), 1000), None);
        assert_eq!(behind_packed(&[0x80, 1], 5), None);
    }
}

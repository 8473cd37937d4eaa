//! Opening files: regular ones only, decompressed as they are read.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::error::CalibError;

/// The formats that a dataset file may have.
pub(crate) const SUPPORTED: &str =
    ".parquet, .jsonl, .ndjson, .json, .txt, .text, .raw, .md, and all but the first with .gz or .zst";

/// Largest window that a zstd file may ask for, as a power of two; the zstd program accepts the same.
const ZSTD_WINDOW: u32 = 27;

/// What stands in the place of a large file in a git repository whose large files were not fetched.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Opens a regular file. Anything else (a pipe, a device, a socket) is refused before it is opened, and so is the pointer to a
/// file that Git LFS has not fetched.
pub(crate) fn regular(path: &Path) -> Result<File, CalibError> {
    let fail = |e| CalibError::io("read", path, e);
    check_regular(path, &std::fs::metadata(path).map_err(fail)?)?;
    let mut file = File::open(path).map_err(fail)?;
    // It may have been replaced in the meantime.
    check_regular(path, &file.metadata().map_err(fail)?)?;
    let mut head = Vec::new();
    (&mut file)
        .take(POINTER.len() as u64)
        .read_to_end(&mut head)
        .map_err(fail)?;
    if head == POINTER {
        let problem = "it is a pointer of Git LFS to the file, not the file itself, which `git lfs pull` fetches";
        return Err(CalibError::corrupt(path, problem));
    }
    file.rewind().map_err(fail)?;
    Ok(file)
}

fn check_regular(path: &Path, metadata: &std::fs::Metadata) -> Result<(), CalibError> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(CalibError::NotAFile {
            path: path.to_path_buf(),
            found: kind(metadata.file_type()),
        }),
    }
}

#[cfg(unix)]
fn kind(kind: std::fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "something else",
    }
}

#[cfg(not(unix))]
fn kind(kind: std::fs::FileType) -> &'static str {
    if kind.is_dir() { "a folder" } else { "something else" }
}

/// Opens a file and decompresses it as it is read. The compression is told by the content, not by the name.
///
/// # Errors
/// [`CalibError::Unsupported`] for other compressions, [`CalibError::Corrupt`] if the name says that the file is compressed
/// and it is not.
pub(crate) fn decompressed(path: &Path) -> Result<Box<dyn BufRead>, CalibError> {
    let fail = |e| CalibError::io("read", path, e);
    let mut file = regular(path)?;
    let mut head = Vec::new();
    file.by_ref().take(6).read_to_end(&mut head).map_err(fail)?;
    file.rewind().map_err(fail)?;
    let named = compression_of_name(path);
    match Compression::of(&head) {
        Some(Compression::Gzip) => Ok(Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file))))),
        Some(Compression::Zstd) => {
            let mut decoder = zstd::Decoder::new(file).map_err(fail)?;
            decoder.window_log_max(ZSTD_WINDOW).map_err(fail)?;
            Ok(Box::new(BufReader::new(decoder)))
        }
        Some(Compression::Other(name, program)) => Err(CalibError::Unsupported {
            path: path.to_path_buf(),
            found: format!("{name} compression"),
            supported: format!("{SUPPORTED}; unpack it first ({program})"),
        }),
        None => match named {
            Some(name) if !head.is_empty() => {
                let problem = format!("it is no {name} file, as its name says");
                Err(CalibError::corrupt(path, problem))
            }
            _ => Ok(Box::new(BufReader::new(file))),
        },
    }
}

enum Compression {
    Gzip,
    Zstd,
    /// The name of the compression, and the command that unpacks it.
    Other(&'static str, &'static str),
}

impl Compression {
    /// The compression by the first bytes of a file.
    fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Some(Self::Other("xz", "xz -d")),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Self::Other("bzip2", "bzip2 -d")),
            [b'P', b'K', 3 | 5, 4 | 6, ..] => Some(Self::Other("zip", "unzip")),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Other("lz4", "lz4 -d")),
            [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c] => Some(Self::Other("7-zip", "7z x")),
            _ => None,
        }
    }
}

fn compression_of_name(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "gz" | "gzip" => Some("gzip"),
        "zst" | "zstd" => Some("zstd"),
        _ => None,
    }
}

//! Token ids in files: written once, then mapped into memory and only read.
//!
//! A file is the ids one after another, little-endian, 16 bits each if the vocabulary allows and 32 if not. Knows ids and
//! bytes; never text or blocks. This is the one module of the crate that maps memory.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use crate::data::DataError;

/// Bytes per id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenWidth {
    U16,
    U32,
}

/// A run of token ids on disk; cheap to clone and to slice.
#[derive(Debug, Clone)]
pub struct TokenStream {
    map: Arc<Mmap>,
    width: TokenWidth,
    /// In tokens.
    range: Range<u64>,
}

impl TokenWidth {
    /// The narrowest width for ids below `vocab_size`.
    pub(crate) fn of(vocab_size: usize) -> Self {
        if vocab_size <= 1 << 16 { Self::U16 } else { Self::U32 }
    }

    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }
}

impl TokenStream {
    /// Maps the `tokens` ids of a complete file.
    ///
    /// Returns `None` if the file has a different length.
    #[expect(unsafe_code, reason = "mapping a file into memory has no safe form; reading instead would double the memory of large corpora")]
    pub(crate) fn open(path: &Path, width: TokenWidth, tokens: u64) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        if tokens == 0 || Some(file.metadata()?.len()) != tokens.checked_mul(width.bytes()) {
            return Ok(None);
        }
        // SAFETY: a mapping is sound as long as nobody changes the file under it. Files of this format live in the cache
        // under a name that contains the hash of what they were made from; they get that name by a rename when they are
        // complete, and after that the program only reads or deletes them, and a deleted file stays as it was for those who
        // mapped it. Somebody else who truncates it while it is mapped ends the process, as with any program that maps files.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Some(Self { map: Arc::new(map), width, range: 0..tokens }))
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether there is no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The tokens of `range`, counted from the start of this stream, without copying them.
    ///
    /// # Panics
    /// If the range leaves the stream.
    #[must_use]
    pub fn slice(&self, range: Range<u64>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} is not inside a stream of {} tokens", self.len());
        let first = self.range.start;
        Self { map: Arc::clone(&self.map), width: self.width, range: first + range.start..first + range.end }
    }

    /// Fills `out` with the tokens from `start` on.
    ///
    /// # Panics
    /// If the stream ends before `out` is full.
    pub fn read(&self, start: u64, out: &mut [u32]) {
        let end = start + out.len() as u64;
        assert!(end <= self.len(), "tokens {start}..{end} are not inside a stream of {} tokens", self.len());
        let bytes = |token: u64| ((self.range.start + token) * self.width.bytes()) as usize;
        let source = &self.map[bytes(start)..bytes(end)];
        match self.width {
            TokenWidth::U16 => {
                let (ids, _) = source.as_chunks();
                out.iter_mut().zip(ids).for_each(|(out, id)| *out = u32::from(u16::from_le_bytes(*id)));
            }
            TokenWidth::U32 => {
                let (ids, _) = source.as_chunks();
                out.iter_mut().zip(ids).for_each(|(out, id)| *out = u32::from_le_bytes(*id));
            }
        }
    }
}

/// Writes a file of token ids.
#[derive(Debug)]
pub(crate) struct TokenWriter {
    path: PathBuf,
    file: BufWriter<File>,
    width: TokenWidth,
    tokens: u64,
    /// Size of the complete file in bytes as far as it can be estimated, for the message about a full disk.
    pub(crate) expected_bytes: u64,
}

impl TokenWriter {
    pub(crate) fn create(path: &Path, width: TokenWidth) -> Result<Self, DataError> {
        let file = File::create(path).map_err(|error| DataError::writing(path, 0, error))?;
        Ok(Self { path: path.to_owned(), file: BufWriter::with_capacity(1 << 20, file), width, tokens: 0, expected_bytes: 0 })
    }

    /// Tokens written so far.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    pub(crate) fn write(&mut self, ids: &[u32]) -> Result<(), DataError> {
        let bytes: Vec<u8> = match self.width {
            TokenWidth::U16 => ids.iter().flat_map(|id| (*id as u16).to_le_bytes()).collect(),
            TokenWidth::U32 => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
        };
        let written = self.file.write_all(&bytes);
        self.tokens += ids.len() as u64;
        written.map_err(|error| self.write_error(error))
    }

    /// Syncs everything to disk.
    pub(crate) fn finish(mut self) -> Result<u64, DataError> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|error| self.write_error(error)).map(|()| self.tokens)
    }

    fn write_error(&self, error: io::Error) -> DataError {
        DataError::writing(&self.path, self.expected_bytes.max(self.tokens * self.width.bytes()), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(width: TokenWidth, ids: &[u32]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let mut writer = TokenWriter::create(&path, width).unwrap();
        writer.write(ids).unwrap();
        assert_eq!(writer.finish().unwrap(), ids.len() as u64);
        (folder, path)
    }

    #[test]
    fn ids_come_back_as_they_were_written() {
        for (width, ids) in [(TokenWidth::U16, [0, 1, 65_535, 7]), (TokenWidth::U32, [0, 65_536, u32::MAX, 7])] {
            let (_folder, path) = written(width, &ids);
            let stream = TokenStream::open(&path, width, 4).unwrap().unwrap();
            let mut out = [0; 4];
            stream.read(0, &mut out);
            assert_eq!(out, ids);
            let tail = stream.slice(1..4).slice(1..3);
            assert_eq!(tail.len(), 2);
            tail.read(1, &mut out[..1]);
            assert_eq!(out[0], 7);
        }
    }

    #[test]
    fn a_file_of_another_length_is_not_taken_for_complete() {
        let (_folder, path) = written(TokenWidth::U16, &[1, 2, 3]);
        assert!(TokenStream::open(&path, TokenWidth::U16, 4).unwrap().is_none());
        assert!(TokenStream::open(&path, TokenWidth::U32, 3).unwrap().is_none());
        assert!(TokenStream::open(&path, TokenWidth::U16, 0).unwrap().is_none());
        assert!(TokenStream::open(&path, TokenWidth::U16, u64::MAX).unwrap().is_none());
    }

    #[test]
    fn the_vocabulary_decides_the_width() {
        assert_eq!(TokenWidth::of(65_536), TokenWidth::U16);
        assert_eq!(TokenWidth::of(65_537), TokenWidth::U32);
    }

    #[test]
    fn a_full_disk_is_named_with_the_room_it_takes() {
        let mut writer = TokenWriter::create(Path::new("/dev/full"), TokenWidth::U16).unwrap();
        writer.expected_bytes = 123_456_789;
        writer.write(&[1; 10]).unwrap();
        let error = writer.finish().unwrap_err();
        assert!(matches!(error, DataError::DiskFull { needed: 123_456_789, .. }), "{error}");
        assert_eq!(error.to_string(), "no space left for /dev/full, which needs about 123.5 MB");
    }
}

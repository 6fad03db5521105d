//! Random tokens, for measurements that need many tokens and no text.

use std::io;
use std::path::Path;

use crate::data::random::Random;
use crate::data::stream::{TokenWidth, TokenWriter};
use crate::data::{DataError, TokenStream};
use crate::disk::Disk;

/// Number of ids generated at a time.
const PIECE: u64 = 1 << 16;

/// Writes `tokens` uniformly random ids below `vocab_size` to the new file `path`, and opens it.
///
/// The file is a stream: 16 bits an id if the vocabulary allows, else 32, little-endian.
///
/// # Errors
/// When it cannot be written.
pub fn random_tokens(
    path: &Path,
    vocab_size: usize,
    tokens: u64,
    seed: u64,
) -> Result<TokenStream, DataError> {
    let width = TokenWidth::of(vocab_size);
    let mut writer = TokenWriter::create(&Disk::default(), path, width)?;
    writer.expected_bytes = tokens * width.bytes();
    let mut random = Random::new(seed, 0);
    for start in (0..tokens).step_by(PIECE as usize) {
        let ids: Vec<u32> = (start..tokens.min(start + PIECE))
            .map(|_| random.below(vocab_size as u64) as u32)
            .collect();
        writer.write(&ids)?;
    }
    let outline = writer.finish()?;
    let opened = TokenStream::open(path, &outline, vocab_size)
        .and_then(|stream| stream.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()));
    opened.map_err(|error| DataError::writing(path, 0, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_and_every_id_is_in_the_vocabulary() {
        let folder = tempfile::tempdir().unwrap();
        for vocab_size in [7, 100_000] {
            let draw = |seed| {
                let mut ids = vec![0; 70_000];
                random_tokens(&folder.path().join("tokens"), vocab_size, 70_000, seed)
                    .unwrap()
                    .read(0, &mut ids)
                    .unwrap();
                ids
            };
            let ids = draw(1);
            assert_eq!(ids, draw(1));
            assert_ne!(ids, draw(2));
            assert!(ids.iter().all(|id| (*id as usize) < vocab_size));
            assert!(ids.iter().any(|id| *id as usize > vocab_size / 2));
        }
    }
}

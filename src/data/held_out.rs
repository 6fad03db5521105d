//! Which tokens of a text are held out for validation.
//!
//! Whole documents are held out, in the order of the hashes of their text: the choice is spread
//! over all files, is the same for every seed, nearly the same for another tokenizer, and keeps
//! copies of a document on one side. A document that alone would fill more than a quarter
//! of the validation text is cut into passages, of which some are held out. Start at [`hold_out`].

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::random::{GOLDEN, mix};
use crate::data::stream::{StreamOutline, TokenWidth, TokenWriter};
use crate::data::{DataError, TokenStream};
use crate::disk::Disk;
use crate::text::format::counted;

/// A document longer than one in so many of the wanted tokens is cut into passages.
const MIN_DOCUMENTS: u64 = 4;
/// Passages in the validation text, unless they would be too short or too long.
const PASSAGES: u64 = 16;
/// Tokens of a passage, at least and at most.
const PASSAGE_TOKENS: (u64, u64) = (1024, 8192);
/// Numbers of 32 bits that the table holds for a document: its length and its hash, the low half
/// first.
const COLUMNS: usize = 4;

/// A document as the table knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DocumentEntry {
    /// Its tokens, with BOS and EOS.
    pub tokens: u64,
    /// Hash of its text.
    pub hash: u64,
}

/// Two parts of a text, as ranges of its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Split {
    /// In the order of the text.
    pub train: Vec<Range<u64>>,
    /// In the order of the choice, so that the first tokens of the validation text already come
    /// from everywhere.
    pub validation: Vec<Range<u64>>,
    /// What was chosen.
    pub chosen: HeldOut,
}

/// What was held out for validation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Validation tokens.
    pub tokens: u64,
    /// Documents that were held out whole, but for the last one, which may be cut.
    pub documents: u64,
    /// Passages that were held out of long documents.
    pub passages: u64,
    /// Documents that these passages belong to.
    pub cut_documents: u64,
}

/// A document or a passage of one.
#[derive(Debug, Clone, Copy)]
struct Unit {
    /// Decides when it is chosen.
    key: u64,
    document: usize,
    start: u64,
    tokens: u64,
    is_passage: bool,
}

/// Holds out exactly `wanted` tokens of the text of `documents`, which has more.
pub(crate) fn hold_out(documents: &[DocumentEntry], wanted: u64) -> Split {
    let mut units = units(documents, wanted);
    units.sort_unstable_by_key(|unit| (unit.key, unit.start));
    let mut left = wanted;
    let mut chosen = Vec::new();
    for mut unit in units {
        if left == 0 {
            break;
        }
        // The last one is cut.
        unit.tokens = unit.tokens.min(left);
        left -= unit.tokens;
        chosen.push(unit);
    }
    let total = documents.iter().map(|document| document.tokens).sum();
    let (passages, whole): (Vec<&Unit>, Vec<&Unit>) =
        chosen.iter().partition(|unit| unit.is_passage);
    let cut_documents: HashSet<usize> = passages.iter().map(|unit| unit.document).collect();
    let held_out = HeldOut {
        tokens: wanted - left,
        documents: whole.len() as u64,
        passages: passages.len() as u64,
        cut_documents: cut_documents.len() as u64,
    };
    let validation: Vec<_> =
        chosen.iter().map(|unit| unit.start..unit.start + unit.tokens).collect();
    Split { train: between(&validation, total), validation, chosen: held_out }
}

/// What can be held out.
fn units(documents: &[DocumentEntry], wanted: u64) -> Vec<Unit> {
    let max_whole = wanted / MIN_DOCUMENTS;
    let passage = (wanted / PASSAGES).clamp(PASSAGE_TOKENS.0, PASSAGE_TOKENS.1);
    let mut units = Vec::new();
    let mut start = 0;
    for (number, document) in documents.iter().enumerate() {
        let end = start + document.tokens;
        if document.tokens <= max_whole.max(passage) {
            units.push(Unit {
                key: document.hash,
                document: number,
                start,
                tokens: document.tokens,
                is_passage: false,
            });
        } else {
            for (idx, from) in (start..end).step_by(passage as usize).enumerate() {
                let key = mix(document.hash.wrapping_add(GOLDEN.wrapping_mul(idx as u64 + 1)));
                units.push(Unit {
                    key,
                    document: number,
                    start: from,
                    tokens: passage.min(end - from),
                    is_passage: true,
                });
            }
        }
        start = end;
    }
    units
}

/// What lies between `ranges` in a text of `total` tokens.
fn between(ranges: &[Range<u64>], total: u64) -> Vec<Range<u64>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| range.start);
    let starts = [0].into_iter().chain(sorted.iter().map(|range| range.end));
    let ends = sorted.iter().map(|range| range.start).chain([total]);
    starts.zip(ends).map(|(start, end)| start..end).filter(|range| !range.is_empty()).collect()
}

impl HeldOut {
    /// What was held out, in a sentence.
    #[must_use]
    pub fn note(self) -> String {
        let Self { tokens, documents, passages, cut_documents } = self;
        let whole = (documents > 0).then(|| counted(documents, "document"));
        let parts = (passages > 0).then(|| {
            format!(
                "{} of {}",
                counted(passages, "passage"),
                counted(cut_documents, "long document")
            )
        });
        let what: Vec<String> = whole.into_iter().chain(parts).collect();
        format!("held out {} for validation ({tokens} tokens)", what.join(" and "))
    }
}

/// Writes the table of `documents` to `path`.
pub(crate) fn write_table(
    disk: &Disk,
    path: &Path,
    documents: &[DocumentEntry],
) -> Result<StreamOutline, DataError> {
    let mut writer = TokenWriter::create(disk, path, TokenWidth::U32)?;
    for documents in documents.chunks(1 << 16) {
        let halves = |number: u64| [number as u32, (number >> 32) as u32];
        let numbers: Vec<u32> = documents
            .iter()
            .flat_map(|document| [halves(document.tokens), halves(document.hash)])
            .flatten()
            .collect();
        writer.write(&numbers)?;
    }
    writer.finish()
}

/// Reads the table of the documents of a text of `tokens` tokens.
pub(crate) fn read_table(
    table: &TokenStream,
    tokens: u64,
) -> Result<Vec<DocumentEntry>, DataError> {
    let mut numbers = vec![0; table.len() as usize];
    table.read(0, &mut numbers)?;
    let (rows, rest) = numbers.as_chunks::<COLUMNS>();
    let whole = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let documents: Vec<_> = rows
        .iter()
        .map(|row| DocumentEntry { tokens: whole(row[0], row[1]), hash: whole(row[2], row[3]) })
        .collect();
    let sum = documents.iter().try_fold(0_u64, |sum, document| sum.checked_add(document.tokens));
    if rest.is_empty()
        && sum == Some(tokens)
        && documents.iter().all(|document| document.tokens > 0)
    {
        Ok(documents)
    } else {
        Err(table.damaged("it does not list the documents of its text".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(lengths: &[u64]) -> Vec<DocumentEntry> {
        lengths
            .iter()
            .zip(1..)
            .map(|(tokens, number)| DocumentEntry { tokens: *tokens, hash: mix(number) })
            .collect()
    }

    fn tokens(ranges: &[Range<u64>]) -> u64 {
        ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Every token is on exactly one side, for all shapes of text.
    #[test]
    fn a_split_has_the_wanted_length_and_loses_nothing() {
        for (lengths, wanted) in [
            (vec![10; 1000], 137),
            (vec![1], 0),
            (vec![100_000], 8),
            (vec![300_000, 5, 40_000, 7], 20_000),
            ((1..500).collect(), 60_000),
            (vec![5000, 5000], 9999),
        ] {
            let documents = documents(&lengths);
            let total: u64 = lengths.iter().sum();
            let Split { train, validation, chosen } = hold_out(&documents, wanted);
            assert_eq!(
                (tokens(&validation), tokens(&train), chosen.tokens),
                (wanted, total - wanted, wanted),
                "{lengths:?}"
            );
            let mut all = [train.clone(), validation].concat();
            all.sort_unstable_by_key(|range| range.start);
            assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start), "{all:?}");
            assert!(train.is_sorted_by_key(|range| range.start));
        }
    }

    #[test]
    fn short_documents_are_held_out_whole_and_from_everywhere() {
        let documents = documents(&vec![50; 10_000]);
        let Split { validation, chosen, .. } = hold_out(&documents, 5000);
        assert_eq!(chosen, HeldOut { tokens: 5000, documents: 100, passages: 0, cut_documents: 0 });
        assert!(
            validation.iter().all(|range| range.start % 50 == 0 && range.end - range.start == 50)
        );
        let quarters: Vec<usize> = (0..4)
            .map(|quarter| {
                validation.iter().filter(|range| range.start / 125_000 == quarter).count()
            })
            .collect();
        assert!(quarters.iter().all(|count| (10..=45).contains(count)), "{quarters:?}");
        // A prefix of the validation text comes from everywhere as well.
        assert!(
            validation[..20].iter().any(|range| range.start < 250_000)
                && validation[..20].iter().any(|range| range.start >= 250_000)
        );
    }

    #[test]
    fn long_documents_give_passages_of_several_documents() {
        let documents = documents(&[250_000; 25]);
        let Split { validation, chosen, .. } = hold_out(&documents, 62_500);
        assert_eq!(
            (chosen.tokens, chosen.passages),
            (62_500, 17),
            "16 passages of 3906 tokens, and 4 tokens"
        );
        assert!(chosen.documents == 0 && chosen.cut_documents >= 8, "{chosen:?}");
        assert!(validation.iter().all(|range| range.end - range.start <= 3906));
        assert_eq!(
            chosen.note(),
            format!(
                "held out 17 passages of {} long documents for validation (62500 tokens)",
                chosen.cut_documents
            )
        );
    }

    /// Reordered files move every document; the same ones are chosen, in the same order.
    #[test]
    fn the_choice_depends_on_the_content_alone() {
        let held = |documents: &[DocumentEntry]| -> Vec<u64> {
            let starts: Vec<u64> = documents
                .iter()
                .scan(0, |end, document| Some(std::mem::replace(end, *end + document.tokens)))
                .collect();
            let number = |start: u64| starts.partition_point(|other| *other <= start) - 1;
            hold_out(documents, 1000)
                .validation
                .iter()
                .map(|range| documents[number(range.start)].hash)
                .collect()
        };
        let mut lengths: Vec<u64> = (30..180).collect();
        let forward = documents(&lengths);
        let backward: Vec<DocumentEntry> = forward.iter().rev().copied().collect();
        assert_eq!(held(&forward), held(&backward));
        lengths.push(9000);
        assert!(held(&documents(&lengths)).len() > 5);
    }

    #[test]
    fn whole_documents_and_passages_are_told_apart() {
        let lengths: Vec<u64> =
            [200_000].into_iter().chain(std::iter::repeat_n(40, 3000)).collect();
        let chosen = hold_out(&documents(&lengths), 20_000).chosen;
        assert!(
            chosen.passages > 1 && chosen.documents > 20 && chosen.cut_documents == 1,
            "{chosen:?}"
        );
        let HeldOut { documents, passages, .. } = chosen;
        assert_eq!(
            chosen.note(),
            format!(
                "held out {documents} documents and {passages} passages of 1 long document for \
                 validation (20000 tokens)"
            )
        );
    }

    #[test]
    fn copies_of_a_document_are_on_one_side_but_for_the_last_one_held_out() {
        let mut twice = documents(&[40; 200]);
        twice.extend_from_within(..);
        for wanted in [1600, 1640] {
            let Split { validation, .. } = hold_out(&twice, wanted);
            let places: Vec<u64> = validation.iter().map(|range| range.start / 40 % 200).collect();
            assert_eq!(places.len() as u64, wanted / 40);
            assert!(places.chunks_exact(2).all(|pair| pair[0] == pair[1]), "{places:?}");
        }
    }

    #[test]
    fn a_table_comes_back_as_it_was_written_and_fits_its_text_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("documents");
        let documents = [
            DocumentEntry { tokens: 1 << 40, hash: u64::MAX - 5 },
            DocumentEntry { tokens: 3, hash: 1 << 33 },
        ];
        let outline = write_table(&Disk::default(), &path, &documents).unwrap();
        let table = TokenStream::open(&path, &outline, 1 << 32).unwrap().unwrap();
        assert_eq!(read_table(&table, (1 << 40) + 3).unwrap(), documents);
        assert!(matches!(read_table(&table, 7), Err(DataError::DamagedTokens { .. })));
        let most = DocumentEntry { tokens: u64::MAX, hash: 0 };
        let none = DocumentEntry { tokens: 0, hash: 0 };
        for (documents, tokens) in [(vec![most, most], u64::MAX - 1), (vec![none, documents[1]], 3)]
        {
            let outline = write_table(&Disk::default(), &path, &documents).unwrap();
            let table = TokenStream::open(&path, &outline, 1 << 32).unwrap().unwrap();
            assert!(
                matches!(read_table(&table, tokens), Err(DataError::DamagedTokens { .. })),
                "{documents:?}"
            );
        }
    }
}

//! A text file or a file of JSON records, after two bytes that choose how it is read.
//!
//! Cutting long documents into pieces loses and invents no text, and what is read is what plain
//! decoders read.

use std::fs;
use std::path::Path;

use patchtui::data::{
    DataError, DocumentCounts, DocumentOptions, DocumentReader, Piece, SourceFile, TextFormat,
    TextRules, text_of_bytes, without_mark,
};
use serde_json::Value;

use super::scratch;

pub(super) fn read(bytes: &[u8]) {
    let [how, words, content @ ..] = bytes else { return };
    let format = [TextFormat::Plain, TextFormat::JsonLines, TextFormat::Json][usize::from(how % 3)];
    let rules = if how & 4 == 0 { TextRules::Current } else { TextRules::First };
    let max_bad_records = if how & 8 == 0 { 0.0 } else { 1.0 };
    let path = scratch("documents").join("text");
    fs::write(&path, content).unwrap();
    let whole = DocumentOptions {
        text_field: "text".into(),
        max_document_words: u64::MAX,
        max_bad_records,
        reach: 0,
        rules,
    };
    let reach = usize::from(how >> 4);
    let cut = DocumentOptions { max_document_words: u64::from(words % 16), reach, ..whole.clone() };
    let (Ok((pieces, _)), Ok((cut_pieces, report))) =
        (pieces_of(&path, format, whole.clone()), pieces_of(&path, format, cut))
    else {
        // Cutting has no errors of its own.
        assert!(pieces_of(&path, format, whole).is_err());
        return;
    };
    let texts: Vec<String> = pieces.into_iter().map(|piece| piece.text).collect();
    let joined = join(&cut_pieces);
    if reach > 0 {
        assert_eq!(joined, texts, "pieces that overlap are parts of one document");
        assert_eq!(report.documents, texts.len() as u64);
    } else {
        assert_eq!(joined.concat(), texts.concat());
    }
    assert_eq!(report.text_bytes, texts.iter().map(|text| text.len() as u64).sum::<u64>());
    if rules == TextRules::Current {
        check_content(content, format, &texts);
    }
}

fn pieces_of(
    path: &Path,
    format: TextFormat,
    options: DocumentOptions,
) -> Result<(Vec<Piece>, DocumentCounts), DataError> {
    let mut reader = DocumentReader::new(options);
    let mut pieces = Vec::new();
    let file =
        SourceFile { path: path.to_owned(), format, bytes: 0, modified_nanos: 0, changed_nanos: 0 };
    reader.read(&file, &mut |piece, _| {
        pieces.push(piece);
        Ok(())
    })?;
    let _ = reader.report().notes();
    Ok((pieces, reader.finish()?))
}

/// The documents that `pieces` were cut from.
fn join(pieces: &[Piece]) -> Vec<String> {
    let mut documents: Vec<String> = Vec::new();
    let mut is_open = false;
    for Piece { text, overlap, is_first, is_last } in pieces {
        assert_ne!(*is_first, is_open, "a document begins when the one before has ended");
        if *is_first {
            documents.push(String::new());
        }
        let document = documents.last_mut().unwrap();
        assert!(
            document.ends_with(&text[..*overlap]),
            "{:?} does not continue {document:?}",
            &text[..*overlap]
        );
        document.push_str(&text[*overlap..]);
        is_open = !is_last;
    }
    assert!(!is_open, "the last document has an end");
    documents
}

fn check_content(content: &[u8], format: TextFormat, texts: &[String]) {
    let Ok(text) = text_of_bytes(content) else { return };
    if format == TextFormat::Plain {
        assert_eq!(texts.concat(), text);
    }
    // JSON has no other line break than the line feed outside of strings, so that lines of records
    // are parsed one by one.
    let plain = without_mark(std::str::from_utf8(content).unwrap());
    let records = plain
        .split('\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .map(serde_json::from_str::<Value>);
    if let (TextFormat::JsonLines, Ok(records)) = (format, records.collect::<Result<Vec<_>, _>>()) {
        let of_record = |record: &Value| {
            record.as_str().or_else(|| record.get("text")?.as_str()).map(str::to_owned)
        };
        let expected: Vec<String> =
            records.iter().filter_map(of_record).filter(|text| !text.is_empty()).collect();
        assert_eq!(texts, expected);
    }
}

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::data::{TextFault, find_files};

fn options(max_bad_records: f64) -> DocumentOptions {
    DocumentOptions {
        text_field: "text".into(),
        max_document_words: 10_000,
        max_bad_records,
        reach: 0,
        rules: TextRules::Current,
    }
}

/// Reads one file of `content` and returns its pieces.
fn pieces(
    name: &str,
    content: &[u8],
    options: DocumentOptions,
) -> Result<(Vec<String>, DocumentCounts), DataError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    let mut reader = DocumentReader::new(options);
    let mut pieces = Vec::new();
    reader.read(&find_files(&[path]).unwrap()[0], &mut |piece, _| {
        pieces.push(piece.text);
        Ok(())
    })?;
    reader.finish().map(|report| (pieces, report))
}

fn split_with(text: &str, max_words: u64, reach: usize, chunk: usize) -> Vec<Piece> {
    let mut splitter = Splitter::new(max_words, reach);
    let mut pieces = Vec::new();
    let mut sink = |piece| {
        pieces.push(piece);
        Ok(())
    };
    let chars: Vec<char> = text.chars().collect();
    chars
        .chunks(chunk)
        .for_each(|part| splitter.push(&part.iter().collect::<String>(), &mut sink).unwrap());
    splitter.finish(&mut sink).unwrap();
    pieces
}

fn split(text: &str, max_words: u64, chunk: usize) -> Vec<String> {
    split_with(text, max_words, 0, chunk).into_iter().map(|piece| piece.text).collect()
}

#[test]
fn every_format_gives_its_documents() {
    let check = |name: &str, content: &str, expected: &[&str]| {
        let (pieces, report) = pieces(name, content.as_bytes(), options(0.0)).unwrap();
        assert_eq!(pieces, expected, "{name}: {content}");
        assert_eq!(report.documents, expected.len() as u64);
    };
    check("a.txt", "one\ntwo\n", &["one\ntwo\n"]);
    check("a.md", "# title", &["# title"]);
    check("a.jsonl", "{\"text\": \"a\"}\r\n\n{\"id\": 1, \"text\": \"b\\nc\"}", &["a", "b\nc"]);
    check("a.jsonl", "\u{feff}{\"text\": \"a\"}", &["a"]);
    check("a.json", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n", &["a", "b"]);
    check("a.json", " \n [{\"text\": \"a\"}, \"b\",\n {\"text\": \"c\"}]\n", &["a", "b", "c"]);
    check("a.json", "\u{feff}[\"a\"]", &["a"]);
    check("a.json", "[]", &[]);
    check("a.jsonl", "{\"text\": \"\"}\n{\"text\": \"b\"}", &["b"]);
    check("a.ndjson", "{\"text\": \"a\"}\n", &["a"]);
    check("a.jsonlines", "{\"text\": \"a\"}\n", &["a"]);
    check("a.txt", "\u{feff}one\r\ntwo\r\n", &["one\ntwo\n"]);
    check("a.txt", "\u{feff}", &[]);
}

/// Bug reports 6 and 7.
#[test]
fn records_of_other_programs_are_read() {
    let check = |name: &str, content: &str, expected: &[&str]| {
        let (pieces, report) = pieces(name, content.as_bytes(), options(0.0)).unwrap();
        assert_eq!(pieces, expected, "{name}: {content}");
        assert_eq!(report.bad_records, 0);
    };
    check(
        "a.jsonl",
        "{\"score\": NaN, \"text\": \"NaN \\\" Infinity\", \"x\": [-Infinity, \
         Infinity]}\n{\"text\": \"b\"}",
        &["NaN \" Infinity", "b"],
    );
    check(
        "a.json",
        "[{\"score\": NaN, \"text\": \"a\"}, {\"text\": \"NaN\", \"s\": -Infinity}]",
        &["a", "NaN"],
    );
    check("a.json", "{\n  \"score\": NaN,\n  \"text\": \"a\"\n}\n", &["a"]);
    check("a.jsonl", "\u{feff}\n{\n  \"text\": \"a\"\n}\n{\n  \"text\": \"b\"\n}\n", &["a", "b"]);
    let long = format!("[{{\"text\": \"{}\", \"score\": NaN}}, \"b\"]", "x".repeat(20_000));
    check("a.json", &long, &["x".repeat(20_000).as_str(), "b"]);
    let error = pieces("a.jsonl", b"{\"score\": Nan, \"text\": \"a\"}", options(0.0)).unwrap_err();
    assert!(error.to_string().contains("a.jsonl:1: "), "{error}");
    let error = pieces("a.jsonl", b"{\"text\": NaN}", options(0.0)).unwrap_err();
    assert!(error.to_string().contains("is a number, not a string"), "{error}");
}

/// Bug report 9.
#[test]
fn a_bad_byte_breaks_one_record_wherever_it_is() {
    let good = "{\"text\": \"a good record\"}\n".repeat(4000).into_bytes();
    for line in [3, 3900] {
        let mut content = good.clone();
        content[(line - 1) * (good.len() / 4000) + 12] = 0xFF;
        let (found, report) = pieces("a.jsonl", &content, options(0.01)).unwrap();
        assert_eq!((found.len(), report.bad_records), (3999, 1));
        let bad = report.first_bad_record.unwrap();
        assert_eq!(
            (bad.record, bad.reason.as_str()),
            (line as u64, "byte 13 of the line is not UTF-8")
        );
        let error = pieces("a.jsonl", &content, options(0.0)).unwrap_err();
        assert!(matches!(error, DataError::TooManyBadRecords { .. }), "{error}");
    }
}

#[test]
fn carriage_returns_are_counted_and_said() {
    let content = format!("\u{feff}{}", "a line\r\n".repeat(100_000));
    let (found, report) = pieces("a.txt", content.as_bytes(), options(0.0)).unwrap();
    assert_eq!(found.concat(), "a line\n".repeat(100_000));
    assert_eq!((report.carriage_returns, report.files_with_carriage_returns), (100_000, 1));
    assert_eq!(report.notes(), ["line ends converted from CRLF to LF: 100000 in 1 file"]);
    let first = DocumentOptions { rules: TextRules::First, ..options(0.0) };
    let (found, report) = pieces("a.txt", content.as_bytes(), first).unwrap();
    assert_eq!(
        (found.concat(), report.notes()),
        (content, Vec::<String>::new()),
        "a run that exists keeps its text"
    );
}

#[test]
fn broken_records_are_named_with_file_line_and_fault() {
    let check = |name: &str, content: &str, place: &str, fault: &str| {
        let error = pieces(name, content.as_bytes(), options(0.0)).unwrap_err();
        assert!(matches!(error, DataError::TooManyBadRecords { bad: 1, .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains(place) && message.contains(fault), "{message}");
    };
    check("a.jsonl", "{\"text\": \"a\"}\n{\"text\": ", "a.jsonl:2: ", "EOF while parsing");
    check(
        "a.jsonl",
        "\n\n{\"body\": \"a\", \"id\": 1}",
        "a.jsonl:3: ",
        "no field \"text\", only \"body\", \"id\"",
    );
    check("a.json", "\n{}", "a.json:2: ", "no field \"text\", only {}");
    check(
        "a.json",
        "[{\"text\": \"a\"}, {\"text\": 7}]",
        "a.json, record 2: ",
        "field \"text\" is a number",
    );
    check("a.json", "[[]]", "a.json, record 1: ", "the record is an array");
}

#[test]
fn a_small_share_of_broken_records_is_skipped_and_counted() {
    let content = "{\"text\": \"a\"}\nbroken\n{\"text\": \"b\"}\n{\"text\": \"c\"}\n";
    let (found, report) = pieces("a.jsonl", content.as_bytes(), options(0.25)).unwrap();
    assert_eq!(found, ["a", "b", "c"]);
    assert_eq!((report.records, report.bad_records), (4, 1));
    assert_eq!(report.first_bad_record.unwrap().record, 2);
    let error = pieces("a.jsonl", content.as_bytes(), options(0.24)).unwrap_err();
    assert!(matches!(error, DataError::TooManyBadRecords { bad: 1, records: 4, .. }));
    let invalid =
        [b"{\"text\": \"a\"}\n{\"text\": \"".as_slice(), b"\xFF\"}\n{\"text\": \"b\"}"].concat();
    assert_eq!(
        pieces("a.jsonl", &invalid, options(0.5)).unwrap().0,
        ["a", "b"],
        "bytes that are not UTF-8 break one record only"
    );
}

#[test]
fn an_array_that_breaks_off_is_an_error() {
    let error =
        pieces("a.json", b"[{\"text\": \"a\"},\n {\"text\": \"b\"", options(1.0)).unwrap_err();
    assert!(matches!(error, DataError::BrokenJson { line: 2, .. }), "{error}");
    let error = pieces("a.json", b"[\"a\"] [", options(1.0)).unwrap_err();
    assert!(matches!(error, DataError::BrokenJson { .. }), "{error}");
}

#[test]
fn text_that_turns_binary_late_is_an_error_with_its_place() {
    let mut content = "word ".repeat(200_000).into_bytes();
    content[700_001] = 0;
    let error = pieces("a.txt", &content, options(0.0)).unwrap_err();
    assert!(
        matches!(error, DataError::NotText { offset: 700_001, fault: TextFault::Nul, .. }),
        "{error}"
    );
    content[600_000] = 0xFF;
    let error = pieces("a.txt", &content, options(0.0)).unwrap_err();
    assert!(
        matches!(error, DataError::NotText { offset: 600_000, fault: TextFault::NotUtf8, .. }),
        "{error}"
    );
    content.truncate(600_000);
    content.push(0xC3);
    let error = pieces("a.txt", &content, options(0.0)).unwrap_err();
    assert!(
        matches!(error, DataError::NotText { offset: 600_000, .. }),
        "the file ends inside a character: {error}"
    );
}

#[test]
fn a_character_on_the_border_of_two_reads_survives() {
    let content = format!("{}\u{20ac}{}", "x".repeat((1 << 18) - 1), "y".repeat(10));
    let (found, _) = pieces("a.txt", content.as_bytes(), options(0.0)).unwrap();
    assert_eq!(found.concat(), content);
}

#[test]
fn long_documents_are_cut_before_a_word() {
    assert_eq!(split("a b c d e", 2, 100), ["a b", " c d", " e"]);
    assert_eq!(split("a b \n", 2, 100), ["a b \n"]);
    assert_eq!(split("a  b\n\nc", 1, 100), ["a ", " b\n", "\nc"]);
    assert_eq!(split("", 2, 100), Vec::<String>::new());
    let wide = "\u{4e2d}".repeat(100);
    let found = split(&wide, 1, 7);
    assert!(
        found.iter().all(|piece| piece.len() <= 66) && found.concat() == wide,
        "text without spaces is cut by its size"
    );
    let content = "w ".repeat(25_000);
    let (found, report) = pieces("a.txt", content.as_bytes(), options(0.0)).unwrap();
    assert_eq!((found.len(), report.documents, report.split_documents), (3, 1, 1));
    assert_eq!(found.concat(), content);
}

proptest! {
    #[test]
    fn the_pieces_of_a_document_are_the_document(text in "[ab\u{e9} \n]{0,400}", max_words in 1_u64..20, chunk in 1_usize..50) {
        let found = split(&text, max_words, chunk);
        prop_assert_eq!(found.concat(), text.clone());
        prop_assert!(found.iter().all(|piece| piece.split_whitespace().count() as u64 <= max_words));
        prop_assert_eq!(&found, &split(&text, max_words, 1000), "cuts do not depend on how the text arrives");
    }

    #[test]
    fn pieces_that_overlap_make_the_document_once(text in "[ab\u{e9} \n]{0,600}", max_words in 1_u64..20, reach in 1_usize..12, chunk in 1_usize..50) {
        let found = split_with(&text, max_words, reach, chunk);
        let mut joined = String::new();
        for (idx, piece) in found.iter().enumerate() {
            prop_assert!(joined.ends_with(&piece.text[..piece.overlap]));
            prop_assert_eq!((piece.is_first, piece.is_last), (idx == 0, idx + 1 == found.len()));
            prop_assert!(idx == 0 || piece.overlap >= 2 * reach - 2);
            joined.push_str(&piece.text[piece.overlap..]);
        }
        prop_assert_eq!(joined, text.clone());
        prop_assert_eq!(&found, &split_with(&text, max_words, reach, 1000), "cuts do not depend on how the text arrives");
    }
}

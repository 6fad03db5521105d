//! Files of folders and patterns that are not read as text: which, why, and how that is reported.
//!
//! A file that a configuration names explicitly is always read. Start at [`reason`] and
//! [`PassedOver`].

use std::path::Path;

use serde::{Deserialize, Serialize};

/// Names listed per reason.
const NUM_EXAMPLES: usize = 3;

/// Files about the text, without their extension, e.g. `README.md`.
const ABOUT_TEXT: [&str; 12] = [
    "readme",
    "license",
    "licence",
    "copying",
    "notice",
    "authors",
    "changelog",
    "contributing",
    "code_of_conduct",
    "citation",
    "requirements",
    "robots",
];
/// JSON or text files of data sets, models and programs that are not documents.
const NOT_DOCUMENTS: [&str; 14] = [
    "dataset_info.json",
    "dataset_infos.json",
    "dataset_dict.json",
    "state.json",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "model.safetensors.index.json",
    "package.json",
    "package-lock.json",
    "tsconfig.json",
    "requirements-dev.txt",
    "requirements_dev.txt",
    "cmakelists.txt",
];
/// The files of a tokenizer.
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
];

/// Why a file is not read as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its extension is not one of text files; in lower case and with the dot; empty for a name
    /// without an extension.
    Ending(String),
    /// Its name is that of a file about the text, a data set, a model or a program.
    AboutText,
    /// It belongs to a tokenizer.
    Tokenizer,
    /// It is empty.
    Empty,
}

/// The files that were skipped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOverGroup {
    /// Why.
    pub reason: Reason,
    /// Number of files.
    pub files: u64,
    /// The first names.
    pub examples: Vec<String>,
}

/// The files that were skipped, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PassedOver {
    /// One group per reason, in order of first occurrence.
    pub groups: Vec<PassedOverGroup>,
}

/// Why a file that is not named explicitly is not read, judged by its name; `None` for a text file.
pub(crate) fn reason_by_name(path: &Path) -> Option<Reason> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let (stem, ending) =
        name.rsplit_once('.').map_or((name.as_str(), ""), |(stem, ending)| (stem, ending));
    if TOKENIZER_FILES.contains(&name.as_str()) {
        return Some(Reason::Tokenizer);
    }
    let is_about = matches!(ending, "md" | "txt") && ABOUT_TEXT.contains(&stem);
    (is_about || NOT_DOCUMENTS.contains(&name.as_str())).then_some(Reason::AboutText)
}

/// The extension as shown: two parts if the last one only names the compression.
pub(crate) fn shown_ending(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let mut parts = name.rsplit('.').take(3).collect::<Vec<_>>();
    // The part before the first dot is the name.
    parts.truncate(name.matches('.').count());
    let is_packed =
        matches!(parts.first(), Some(&("gz" | "bz2" | "xz" | "zst" | "lz4" | "br" | "z")));
    match parts.as_slice() {
        [] => String::new(),
        [last, packed, ..] if is_packed && packed.len() <= 6 => format!(".{packed}.{last}"),
        [last, ..] => format!(".{last}"),
    }
}

/// Whether the file starts like a `tokenizer.json`, whatever its name.
pub(crate) fn is_tokenizer_file(head: &[u8]) -> bool {
    let has = |text: &str| head.windows(text.len()).any(|window| window == text.as_bytes());
    let head_is_object = head.trim_ascii_start().first() == Some(&b'{');
    head_is_object && has("\"version\"") && has("\"added_tokens\"") && has("\"truncation\"")
}

impl PassedOver {
    /// Adds one file.
    pub(crate) fn add(&mut self, path: &Path, reason: Reason) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let idx =
            self.groups.iter().position(|group| group.reason == reason).unwrap_or_else(|| {
                self.groups.push(PassedOverGroup { reason, files: 0, examples: Vec::new() });
                self.groups.len() - 1
            });
        let group = &mut self.groups[idx];
        group.files += 1;
        if group.examples.len() < NUM_EXAMPLES {
            group.examples.push(name);
        }
    }

    /// Adds the files of `other`.
    pub(crate) fn extend(&mut self, other: Self) {
        for group in other.groups {
            match self.groups.iter_mut().find(|own| own.reason == group.reason) {
                Some(own) => {
                    own.files += group.files;
                    own.examples.extend(group.examples);
                    own.examples.truncate(NUM_EXAMPLES);
                }
                None => self.groups.push(group),
            }
        }
    }

    /// Whether no file was skipped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// One sentence per reason.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.groups.iter().map(PassedOverGroup::note).collect()
    }
}

impl PassedOverGroup {
    fn note(&self) -> String {
        let files = if self.files == 1 { "file" } else { "files" };
        let more = if self.files > self.examples.len() as u64 { ", ..." } else { "" };
        let names = format!("({}{more})", self.examples.join(", "));
        let count = self.files;
        match &self.reason {
            Reason::Ending(ending) if ending.is_empty() => {
                format!("skipped {count} {files} without an extension {names}")
            }
            Reason::Ending(ending) => format!("skipped {count} {ending} {files} {names}"),
            Reason::AboutText => format!(
                "skipped {count} {files} that describe data or programs {names}; to train on one, \
                 name it in data.files"
            ),
            Reason::Tokenizer => format!("skipped {count} tokenizer {files} {names}"),
            Reason::Empty => format!("skipped {count} empty {files} {names}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_told_from_what_lies_beside_texts() {
        let reason = |name: &str| reason_by_name(Path::new(name));
        for name in ["a.txt", "d/readme-for-kids.txt", "data.json", "books.md", "reading.txt"] {
            assert_eq!(reason(name), None, "{name}");
        }
        for name in [
            "README.md",
            "d/Readme.txt",
            "requirements.txt",
            "LICENSE.txt",
            "dataset_info.json",
            "config.json",
        ] {
            assert_eq!(reason(name), Some(Reason::AboutText), "{name}");
        }
        assert_eq!(reason("d/tokenizer.json"), Some(Reason::Tokenizer));
    }

    #[test]
    fn endings_are_shown_as_a_person_would_name_them() {
        let check =
            |name: &str, ending: &str| assert_eq!(shown_ending(Path::new(name)), ending, "{name}");
        check("a.CSV", ".csv");
        check("a.txt.bz2", ".txt.bz2");
        check("c.jsonl.xz", ".jsonl.xz");
        check("x.tar.gz", ".tar.gz");
        check("v1.2.html", ".html");
        check("a.bz2", ".bz2");
        check("Makefile", "");
    }

    #[test]
    fn each_reason_is_one_sentence_with_names() {
        let mut passed_over = PassedOver::default();
        for name in ["a.csv", "b.csv", "c.csv", "d.csv"] {
            passed_over.add(Path::new(name), Reason::Ending(".csv".into()));
        }
        passed_over.add(Path::new("d/e.txt"), Reason::Empty);
        let mut both = passed_over.clone();
        both.extend(passed_over);
        assert_eq!(
            both.notes(),
            [
                "skipped 8 .csv files (a.csv, b.csv, c.csv, ...)",
                "skipped 2 empty files (e.txt, e.txt)"
            ]
        );
    }

    #[test]
    fn a_tokenizer_file_is_known_by_its_start() {
        assert!(is_tokenizer_file(
            br#" {"version": "1.0", "truncation": null, "padding": null, "added_tokens": []"#
        ));
        assert!(!is_tokenizer_file(br#"{"text": "a tokenizer file has a \"version\""}"#));
        assert!(!is_tokenizer_file(b""));
    }
}

//! Finds the text files that a configuration names.
//!
//! Looks at paths, folders and patterns, and at the first 64 KiB of a file. Start at
//! [`find_files`].

use std::collections::HashSet;
use std::fs::{self, File, FileType};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::data::passed_over::{Reason, is_tokenizer_file, reason_by_name, shown_ending};
use crate::data::text::utf_16;
use crate::data::{DataError, PassedOver, TextFault, TextRules};

/// Bytes that are read to check a file.
const HEAD_BYTES: u64 = 1 << 16;

/// How a file stores its documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    /// The whole file is one document.
    Plain,
    /// One JSON record per line.
    JsonLines,
    /// One JSON array of records, or one record per line.
    Json,
}

/// One text file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Canonical path, so that a file is listed once.
    pub path: PathBuf,
    /// Format by extension.
    pub format: TextFormat,
    /// Size in bytes.
    pub bytes: u64,
    /// Modification time, in nanoseconds since 1970.
    pub modified_nanos: u128,
    /// Time of the last change of content, name or permissions (ctime), in nanoseconds since 1970;
    /// programs cannot set it.
    pub changed_nanos: i128,
}

/// Text files, and other files that are not read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FoundFiles {
    /// Text files, each once.
    pub files: Vec<SourceFile>,
    /// Files of folders and patterns that are not text.
    pub passed_over: PassedOver,
}

/// Finds the files that match `patterns`, each once, sorted within a pattern.
///
/// A pattern is a file, a folder (searched for text files that are not hidden), or a path with `*`,
/// `?` and `**`.
///
/// # Errors
/// When a pattern matches nothing, or a file in an unsupported format.
pub fn find_files(patterns: &[PathBuf]) -> Result<Vec<SourceFile>, DataError> {
    find_text(patterns, TextRules::Current).map(|found| found.files)
}

/// The same under `rules`, with the files that were skipped.
///
/// # Errors
/// As [`find_files`].
pub(crate) fn find_text(patterns: &[PathBuf], rules: TextRules) -> Result<FoundFiles, DataError> {
    let mut found = FoundFiles::default();
    let mut seen = HashSet::new();
    for pattern in patterns {
        let Matches { mut paths, passed_over } = matching(pattern, rules)?;
        paths.sort();
        if paths.is_empty() {
            return Err(DataError::NothingMatches {
                pattern: pattern.clone(),
                passed_over: passed_over.notes(),
            });
        }
        found.passed_over.extend(passed_over);
        for path in paths {
            let file = SourceFile::new(&path)?;
            if seen.insert(file.path.clone()) {
                found.files.push(file);
            }
        }
    }
    Ok(found)
}

impl TextFormat {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "txt" | "md" => Some(Self::Plain),
            "jsonl" | "ndjson" | "jsonlines" => Some(Self::JsonLines),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// The same under the first rules, which accepted fewer extensions.
    fn of_first_rules(path: &Path) -> Option<Self> {
        Self::of(path).filter(|_| {
            path.extension().is_none_or(|ending| {
                !["ndjson", "jsonlines"].iter().any(|new| ending.eq_ignore_ascii_case(new))
            })
        })
    }
}

impl SourceFile {
    fn new(path: &Path) -> Result<Self, DataError> {
        let format = TextFormat::of(path)
            .ok_or_else(|| DataError::UnsupportedFormat { path: path.to_owned() })?;
        let path = fs::canonicalize(path).map_err(|error| DataError::reading(path, error))?;
        let metadata = fs::metadata(&path).map_err(|error| DataError::reading(&path, error))?;
        if let Some(what) = other_than_a_file(metadata.file_type()) {
            return Err(DataError::NotRegularFile { path, what });
        }
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let modified_nanos = modified.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos());
        let changed_nanos =
            i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
        Ok(Self { path, format, bytes: metadata.len(), modified_nanos, changed_nanos })
    }

    /// Checks the start of the file.
    ///
    /// # Errors
    /// When it cannot be read, is empty, or does not begin with text. Invalid bytes inside JSON
    /// records are left to the reader, which treats them alike everywhere in the file.
    pub(crate) fn check(&self, rules: TextRules) -> Result<(), DataError> {
        let head = self.head()?;
        if head.is_empty() {
            return Err(DataError::EmptyFile { path: self.path.clone() });
        }
        let fault = match std::str::from_utf8(&head) {
            // The head may end inside a character; the file may not.
            Err(error) if error.error_len().is_some() || self.bytes <= head.len() as u64 => {
                Some((error.valid_up_to(), TextFault::NotUtf8))
            }
            _ => None,
        };
        let nul = head.iter().position(|byte| *byte == 0).map(|offset| (offset, TextFault::Nul));
        let is_left_to_reader =
            self.format != TextFormat::Plain && rules > TextRules::First && !is_binary(&head);
        let wide = utf_16(&head).map(|fault| (0, fault));
        match wide.or(nul.or(fault).filter(|_| !is_left_to_reader)) {
            Some((offset, fault)) => {
                Err(DataError::NotText { path: self.path.clone(), offset: offset as u64, fault })
            }
            None => Ok(()),
        }
    }

    /// The first bytes.
    fn head(&self) -> Result<Vec<u8>, DataError> {
        let unreadable = |error| DataError::reading(&self.path, error);
        let mut head = Vec::new();
        File::open(&self.path)
            .map_err(unreadable)?
            .take(HEAD_BYTES)
            .read_to_end(&mut head)
            .map_err(unreadable)?;
        Ok(head)
    }

    /// Whether size and modification time are unchanged.
    pub(crate) fn check_unchanged(&self) -> Result<(), DataError> {
        if Self::new(&self.path)? == *self {
            Ok(())
        } else {
            Err(DataError::FileChanged { path: self.path.clone() })
        }
    }
}

/// Kind of a path that is not a regular file; pipes and devices may never end.
fn other_than_a_file(kind: FileType) -> Option<&'static str> {
    let table = [
        (kind.is_dir(), "a folder"),
        (kind.is_fifo(), "a pipe"),
        (kind.is_socket(), "a socket"),
        (kind.is_char_device() || kind.is_block_device(), "a device"),
    ];
    table.into_iter().find(|(is, _)| *is).map(|(_, what)| what)
}

/// Whether the bytes are binary rather than text with a fault: more than one in a hundred is zero.
fn is_binary(head: &[u8]) -> bool {
    let zeros: usize = head.iter().map(|byte| usize::from(*byte == 0)).sum();
    zeros > 8 && zeros * 100 > head.len()
}

/// The files that a pattern matches.
#[derive(Default)]
struct Matches {
    paths: Vec<PathBuf>,
    passed_over: PassedOver,
}

impl Matches {
    /// Adds a file that the pattern does not name explicitly, unless it is not text.
    fn take(&mut self, path: PathBuf) {
        match reason_against(&path) {
            Some(reason) => self.passed_over.add(&path, reason),
            None => self.paths.push(path),
        }
    }
}

/// Why a file that is not named explicitly is not text, if so. Compressed text is not skipped
/// silently: it is an unsupported format and an error later.
fn reason_against(path: &Path) -> Option<Reason> {
    let format = TextFormat::of(path);
    if format.is_none() && !is_packed_text(path) {
        return Some(Reason::Ending(shown_ending(path)));
    }
    let by_name = reason_by_name(path);
    if by_name.is_some() || format != Some(TextFormat::Json) {
        return by_name;
    }
    let file = SourceFile::new(path).ok()?;
    is_tokenizer_file(&file.head().ok()?).then_some(Reason::Tokenizer)
}

fn matching(pattern: &Path, rules: TextRules) -> Result<Matches, DataError> {
    let mut found = Matches::default();
    let metadata = match fs::metadata(pattern) {
        Ok(metadata) => metadata,
        Err(_) if has_wildcard(pattern) => {
            match rules {
                TextRules::First => found.paths = expand(pattern),
                // A pattern with an extension asks for those files: an unsupported one is an error,
                // as for a named file.
                TextRules::Second | TextRules::Current => {
                    for path in expand(pattern) {
                        match reason_against(&path) {
                            Some(Reason::Ending(_)) | None => found.paths.push(path),
                            Some(reason) => found.passed_over.add(&path, reason),
                        }
                    }
                }
            }
            return Ok(found);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(DataError::reading(pattern, error)),
    };
    if !metadata.is_dir() {
        found.paths.push(pattern.to_owned());
        return Ok(found);
    }
    walk(pattern, &mut HashSet::new(), &mut |path| match rules {
        TextRules::First if TextFormat::of_first_rules(path).is_some() || is_packed_text(path) => {
            found.paths.push(path.to_owned());
        }
        TextRules::First => {}
        TextRules::Second | TextRules::Current => found.take(path.to_owned()),
    })?;
    Ok(found)
}

fn is_packed_text(path: &Path) -> bool {
    let ends_with = |extension: &str| {
        path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
    };
    ends_with("parquet")
        || ((ends_with("zst") || ends_with("gz"))
            && path.file_stem().is_some_and(|stem| TextFormat::of(Path::new(stem)).is_some()))
}

/// Calls `visit` with every file below `folder` that is not hidden.
fn walk(
    folder: &Path,
    seen: &mut HashSet<PathBuf>,
    visit: &mut dyn FnMut(&Path),
) -> Result<(), DataError> {
    let unreadable = |error| DataError::reading(folder, error);
    // Links may form cycles.
    if !seen.insert(fs::canonicalize(folder).map_err(unreadable)?) {
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            entries.push(entry.path());
        }
    }
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, seen, visit)?;
        } else {
            visit(&path);
        }
    }
    Ok(())
}

fn has_wildcard(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().iter().any(|byte| matches!(byte, b'*' | b'?'))
}

/// Expands the wildcards of `pattern`; skips folders that cannot be read.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut candidates = vec![PathBuf::new()];
    let components: Vec<Component<'_>> = pattern.components().collect();
    for (index, component) in components.iter().enumerate() {
        let is_last = index + 1 == components.len();
        let name = component.as_os_str().as_encoded_bytes();
        candidates = match name {
            b"**" if is_last => candidates.iter().flat_map(|folder| files_below(folder)).collect(),
            b"**" => candidates.iter().flat_map(|folder| folders_below(folder)).collect(),
            _ if has_wildcard(Path::new(component)) => {
                candidates.iter().flat_map(|folder| children(folder, name)).collect()
            }
            _ => candidates.into_iter().map(|folder| folder.join(component)).collect(),
        };
    }
    // Pipes and the like are reported by an error later, not silently skipped.
    candidates.into_iter().filter(|path| path.exists() && !path.is_dir()).collect()
}

fn children(folder: &Path, pattern: &[u8]) -> Vec<PathBuf> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let fits = |name: &[u8]| {
        wildcard_matches(pattern, name) && (!name.starts_with(b".") || pattern.starts_with(b"."))
    };
    entries
        .flatten()
        .filter(|entry| fits(entry.file_name().as_encoded_bytes()))
        .map(|entry| entry.path())
        .collect()
}

fn folders_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let deeper = children(&found[next], b"*")
            .into_iter()
            .filter(|path| path.is_dir() && !path.is_symlink());
        let deeper: Vec<PathBuf> = deeper.collect();
        found.extend(deeper);
        next += 1;
    }
    found
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    folders_below(folder)
        .iter()
        .flat_map(|folder| children(folder, b"*"))
        .filter(|path| path.is_file())
        .collect()
}

/// Whether `name` matches a `pattern` of `*` (anything) and `?` (one character).
pub(crate) fn wildcard_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to retry if the text after the last star does not match: one byte further.
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n + 1));
                p += 1;
            }
            Some(b'?') => {
                p += 1;
                n += 1;
                while n < name.len() && name[n] & 0xC0 == 0x80 {
                    n += 1;
                }
            }
            Some(byte) if *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((after_star, next)) => {
                    retry = Some((after_star, next + 1));
                    (p, n) = (after_star, next);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advice::{Advice, Audience};

    #[test]
    fn wildcards_match_as_in_a_shell() {
        let fits =
            |pattern: &str, name: &str| wildcard_matches(pattern.as_bytes(), name.as_bytes());
        for (pattern, name) in [
            ("*", ""),
            ("*.txt", "a.txt"),
            ("a*b*c", "aXbXbXc"),
            ("?.md", "x.md"),
            ("?.md", "\u{e9}.md"),
            ("**", "ab"),
            ("a*", "a"),
        ] {
            assert!(fits(pattern, name), "{pattern} should match {name}");
        }
        for (pattern, name) in
            [("*.txt", "a.md"), ("?", ""), ("?", "ab"), ("a*b", "ac"), ("", "a"), ("a", "")]
        {
            assert!(!fits(pattern, name), "{pattern} should not match {name}");
        }
    }

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in [
            "b.txt",
            "a.md",
            "notes.pdf",
            "sub/c.jsonl",
            "sub/deep/d.json",
            ".hidden.txt",
            "sub/.git/x.txt",
        ] {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "text").unwrap();
        }
        root
    }

    fn names(root: &Path, patterns: &[&str]) -> Vec<String> {
        let patterns: Vec<PathBuf> = patterns.iter().map(|pattern| root.join(pattern)).collect();
        let base = fs::canonicalize(root).unwrap();
        let relative =
            |file: SourceFile| file.path.strip_prefix(&base).unwrap().display().to_string();
        find_files(&patterns).unwrap().into_iter().map(relative).collect()
    }

    #[test]
    fn folders_and_patterns_lead_to_sorted_text_files() {
        let root = tree();
        let check = |patterns: &[&str], expected: &[&str]| {
            assert_eq!(names(root.path(), patterns), expected, "{patterns:?}");
        };
        check(&[""], &["a.md", "b.txt", "sub/c.jsonl", "sub/deep/d.json"]);
        check(&["*.txt"], &["b.txt"]);
        check(&["**/*.json*"], &["sub/c.jsonl", "sub/deep/d.json"]);
        check(&["sub/**"], &["sub/c.jsonl", "sub/deep/d.json"]);
        check(&["?.md", "b.txt", "*.txt"], &["a.md", "b.txt"]);
        check(&["s*b/deep/d.json"], &["sub/deep/d.json"]);
    }

    #[test]
    fn a_circle_of_links_is_walked_once() {
        let root = tree();
        std::os::unix::fs::symlink(root.path(), root.path().join("sub/loop")).unwrap();
        assert_eq!(names(root.path(), &[""]).len(), 4);
        assert_eq!(names(root.path(), &["**/*.txt"]), ["b.txt"]);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let root = tree();
        fs::write(root.path().join("packed.jsonl.zst"), "x").unwrap();
        let error = |pattern: &str| find_files(&[root.path().join(pattern)]).unwrap_err();
        assert!(matches!(error("nothing*"), DataError::NothingMatches { .. }));
        assert!(matches!(error("missing.txt"), DataError::NothingMatches { .. }));
        assert!(matches!(error("notes.pdf"), DataError::UnsupportedFormat { .. }));
        let packed = error("");
        assert!(matches!(packed, DataError::UnsupportedFormat { .. }));
        assert!(
            packed.hint(Audience::Command).contains("zstd -d"),
            "{}",
            packed.hint(Audience::Command)
        );
    }

    #[test]
    fn the_start_of_a_file_must_be_text() {
        let root = tempfile::tempdir().unwrap();
        let check = |content: &[u8]| {
            let path = root.path().join("file.txt");
            fs::write(&path, content).unwrap();
            find_files(&[path]).unwrap()[0].check(TextRules::Current)
        };
        assert!(check("caf\u{e9}".as_bytes()).is_ok());
        assert!(matches!(check(b""), Err(DataError::EmptyFile { .. })));
        assert!(matches!(
            check(b"ab\0c"),
            Err(DataError::NotText { offset: 2, fault: TextFault::Nul, .. })
        ));
        assert!(matches!(
            check(b"abc\xFFd"),
            Err(DataError::NotText { offset: 3, fault: TextFault::NotUtf8, .. })
        ));
        assert!(
            matches!(check(b"abc\xC3"), Err(DataError::NotText { offset: 3, .. })),
            "the file ends inside a character"
        );
        let mut long = vec![b'a'; (1 << 16) - 1];
        long.extend("\u{e9}".as_bytes());
        assert!(check(&long).is_ok(), "the head ends inside a character, the file does not");
    }
}

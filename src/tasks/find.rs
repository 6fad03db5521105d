//! Finds the file of a task: accepted names and folders.
//!
//! Names are case-insensitive; `*` matches any characters and `?` one. Start at [`Places`].

use std::fs;
use std::path::{Path, PathBuf};

use crate::data::wildcard_matches;
use crate::tasks::{Task, TaskError};

/// Possible folders and names of a file, in order of preference.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    /// Subfolders of the folder of task files. That folder itself comes last.
    pub folders: &'static [&'static str],
    /// Names that identify the file anywhere.
    pub names: &'static [&'static str],
    /// Names that identify it only in a folder of the task.
    pub names_in_own_folder: &'static [&'static str],
}

const HELLASWAG: Places = Places {
    folders: &["hellaswag"],
    names: &["hellaswag_val.jsonl", "*hellaswag_val*.jsonl", "hellaswag.jsonl"],
    names_in_own_folder: &["val.jsonl", "validation.jsonl"],
};

const PIQA: Places = Places {
    folders: &["piqa"],
    names: &["*piqa*valid*.jsonl", "piqa.jsonl"],
    names_in_own_folder: &["valid.jsonl", "validation.jsonl"],
};

const WINOGRANDE: Places = Places {
    folders: &["winogrande", "winogrande_1.1"],
    names: &["*winogrande*dev*.jsonl", "*winogrande*val*.jsonl", "winogrande.jsonl"],
    names_in_own_folder: &["dev.jsonl", "validation.jsonl"],
};

const ARC_EASY: Places = Places {
    folders: &[
        "arc_easy",
        "arc",
        "ARC-Easy",
        "ARC-V1-Feb2018-2/ARC-Easy",
        "ARC-V1-Feb2018/ARC-Easy",
    ],
    names: &["ARC-Easy-Test.jsonl", "*arc?easy*test*.jsonl", "arc_easy.jsonl"],
    names_in_own_folder: &[],
};

const ARC_CHALLENGE: Places = Places {
    folders: &[
        "arc_challenge",
        "arc",
        "ARC-Challenge",
        "ARC-V1-Feb2018-2/ARC-Challenge",
        "ARC-V1-Feb2018/ARC-Challenge",
    ],
    names: &["ARC-Challenge-Test.jsonl", "*arc?challenge*test*.jsonl", "arc_challenge.jsonl"],
    names_in_own_folder: &[],
};

const WIKITEXT: Places = Places {
    folders: &["wikitext", "wikitext103-test", "wikitext-103-test"],
    names: &["wikitext_document_level-test.json", "*wikitext*test*.json", "*wikitext*test*.jsonl"],
    names_in_own_folder: &["test.jsonl"],
};

/// Folders of MMLU; with one file per subject, the files are in a folder of their split.
const MMLU_FOLDERS: &[&str] = &["mmlu", "mmlu/data", "data"];

const MMLU_TEST: Places = Places {
    folders: MMLU_FOLDERS,
    names: &["mmlu_test.jsonl", "*mmlu_test*.jsonl"],
    names_in_own_folder: &["test.jsonl"],
};

const MMLU_DEV: Places = Places {
    folders: MMLU_FOLDERS,
    names: &["mmlu_dev.jsonl", "*mmlu_dev*.jsonl"],
    names_in_own_folder: &["dev.jsonl"],
};

/// A split of MMLU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Split {
    /// The questions.
    Test,
    /// Few-shot examples.
    Dev,
}

impl Split {
    fn word(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Dev => "dev",
        }
    }
}

/// The file of a task with a single file.
///
/// # Errors
/// When there is none, or several match.
pub(super) fn find_file(folder: &Path, task: &Task) -> Result<PathBuf, TaskError> {
    let places = match task {
        Task::HellaSwag => HELLASWAG,
        Task::Piqa => PIQA,
        Task::Winogrande => WINOGRANDE,
        Task::ArcEasy => ARC_EASY,
        Task::ArcChallenge => ARC_CHALLENGE,
        Task::Mmlu(_) => MMLU_TEST,
        Task::Wikitext | Task::WikitextPaper => WIKITEXT,
        Task::Text(path) => return Ok(path.clone()),
    };
    let names = [places.names, places.names_in_own_folder].concat();
    places.find(folder, &task.name())?.ok_or_else(|| TaskError::NoFile {
        folder: folder.to_owned(),
        task: task.name(),
        names,
    })
}

/// The file of all subjects of MMLU, if there is one.
///
/// # Errors
/// When several match.
pub(super) fn find_all_subjects(folder: &Path, split: Split) -> Result<Option<PathBuf>, TaskError> {
    let places = match split {
        Split::Test => MMLU_TEST,
        Split::Dev => MMLU_DEV,
    };
    places.find(folder, "mmlu")
}

/// The file of one subject of MMLU: `test/anatomy_test.csv`.
///
/// # Errors
/// When there is none.
pub(super) fn find_subject(
    folder: &Path,
    split: Split,
    subject: &str,
) -> Result<PathBuf, TaskError> {
    let (word, name) = (split.word(), format!("{subject}_{}.csv", split.word()));
    let folders = MMLU_FOLDERS.iter().copied().chain([""]).map(|inside| folder.join(inside));
    let mut paths = folders.flat_map(|folder| [folder.join(word).join(&name), folder.join(&name)]);
    paths.find(|path| path.is_file()).ok_or_else(|| {
        let names = match split {
            Split::Test => vec!["mmlu_test.jsonl", "test/SUBJECT_test.csv"],
            Split::Dev => vec!["mmlu_dev.jsonl", "dev/SUBJECT_dev.csv"],
        };
        TaskError::NoFile {
            folder: folder.to_owned(),
            task: format!("the {word} part of mmlu_{subject}"),
            names,
        }
    })
}

impl Places {
    fn find(self, folder: &Path, task: &str) -> Result<Option<PathBuf>, TaskError> {
        if !folder.is_dir() {
            return Err(TaskError::NotFolder { path: folder.to_owned() });
        }
        let own_name = folder
            .canonicalize()
            .ok()
            .and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        let is_own = own_name
            .is_some_and(|name| self.folders.iter().any(|known| known.eq_ignore_ascii_case(&name)));
        let inside = self.folders.iter().map(|name| (folder.join(name), true));
        for (place, is_own) in inside.chain([(folder.to_owned(), is_own)]) {
            let Ok(entries) = fs::read_dir(&place) else { continue };
            let mut files: Vec<PathBuf> =
                entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
            files.sort();
            for name in self.names.iter().chain(if is_own { self.names_in_own_folder } else { &[] })
            {
                let is_it = |path: &&PathBuf| {
                    path.file_name().is_some_and(|file| matches(name, &file.to_string_lossy()))
                };
                match files.iter().filter(is_it).take(2).collect::<Vec<_>>()[..] {
                    [] => {}
                    [path] => return Ok(Some(path.clone())),
                    [first, second, ..] => {
                        return Err(TaskError::SeveralFiles {
                            task: task.into(),
                            first: first.clone(),
                            second: second.clone(),
                        });
                    }
                }
            }
        }
        Ok(None)
    }
}

/// Whether `name` matches `pattern`, in any case of letters.
fn matches(pattern: &str, name: &str) -> bool {
    wildcard_matches(pattern.to_lowercase().as_bytes(), name.to_lowercase().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_names() {
        for (pattern, name, is_match) in [
            ("*arc?easy*test*.jsonl", "DERIVED_ARC-Easy-test.jsonl", true),
            ("*arc?easy*test*.jsonl", "arc_easy_test_100.jsonl", true),
            ("*arc?easy*test*.jsonl", "ARC-Easy-Train.jsonl", false),
            ("*arc?easy*test*.jsonl", "ARC-Challenge-Test.jsonl", false),
            ("hellaswag_val.jsonl", "HellaSwag_Val.jsonl", true),
            ("hellaswag_val.jsonl", "hellaswag_val.jsonl2", false),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern, name), is_match, "{pattern} {name}");
        }
    }
}

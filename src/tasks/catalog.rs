//! The tasks by name, and the parsing of task lists.
//!
//! Names, groups, and the metrics of each task. Start at [`Selection::parse`].

use std::fmt;
use std::path::PathBuf;

use crate::tasks::TaskError;
use crate::tasks::mmlu::{GROUPS, Group, SUBJECTS_PREFIX, subject};
use crate::text::nearest::nearest_name;

/// An evaluation task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Choosing the ending of a scene.
    HellaSwag,
    /// Choosing the physically workable of two solutions.
    Piqa,
    /// Choosing which of two names a sentence refers to.
    Winogrande,
    /// Grade-school science, easy questions.
    ArcEasy,
    /// Grade-school science, challenge questions.
    ArcChallenge,
    /// One of the 57 subjects of MMLU.
    Mmlu(&'static str),
    /// The test pages of `WikiText`, processed as in lm-eval.
    Wikitext,
    /// The test pages of `WikiText`, processed as in the paper.
    WikitextPaper,
    /// Any text.
    Text(PathBuf),
}

/// Name that selects all tasks of the paper.
const PAPER: &str = "paper";
/// Prefix of a task that is a text file.
const TEXT_PREFIX: &str = "text:";

/// The named tasks, without MMLU's subjects; the first seven are the paper's.
const NAMED: [(&str, Task); 7] = [
    ("wikitext-paper", Task::WikitextPaper),
    ("hellaswag", Task::HellaSwag),
    ("piqa", Task::Piqa),
    ("winogrande", Task::Winogrande),
    ("arc_easy", Task::ArcEasy),
    ("arc_challenge", Task::ArcChallenge),
    ("wikitext", Task::Wikitext),
];

impl Task {
    /// Name on the command line and in results, e.g. `"mmlu_anatomy"`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Mmlu(subject) => format!("{SUBJECTS_PREFIX}{subject}"),
            Self::Text(path) => format!("{TEXT_PREFIX}{}", path.display()),
            task => NAMED
                .iter()
                .find(|(_, named)| named == task)
                .map_or_else(String::new, |(name, _)| (*name).to_owned()),
        }
    }

    /// Name in a table: a subject of MMLU without the name of its group.
    #[must_use]
    pub fn alias(&self) -> String {
        match self {
            Self::Mmlu(subject) => (*subject).to_owned(),
            task => task.name(),
        }
    }

    /// Whether the choices are also compared by log-likelihood per character.
    pub(super) fn has_acc_norm(&self) -> bool {
        matches!(self, Self::HellaSwag | Self::Piqa | Self::ArcEasy | Self::ArcChallenge)
    }

    /// Version of the task definition in lm-eval, for its own tasks.
    pub(super) fn version(&self) -> Option<f64> {
        match self {
            Self::Wikitext => Some(2.0),
            Self::WikitextPaper | Self::Text(_) => None,
            _ => Some(1.0),
        }
    }

    /// Whether the task supports few-shot examples.
    pub(super) fn takes_examples(&self) -> bool {
        matches!(self, Self::Mmlu(_))
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// The tasks selected on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Each task once, in the order of the names.
    pub tasks: Vec<Task>,
    /// Groups of tasks with their own results, a parent group after its parts.
    pub groups: Vec<&'static Group>,
}

impl Selection {
    /// Parses a comma-separated list: tasks, groups of tasks, `paper` for the seven of the paper.
    ///
    /// # Errors
    /// When a name is unknown, or the list is empty.
    pub fn parse(names: &str) -> Result<Self, TaskError> {
        let mut selection = Self::default();
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            selection.add(name)?;
        }
        if selection.tasks.is_empty() { Err(TaskError::NoTask) } else { Ok(selection) }
    }

    /// Whether all seven tasks of the paper are selected.
    #[must_use]
    pub fn is_paper(&self) -> bool {
        let has_group = self.groups.iter().any(|group| group.name == "mmlu");
        has_group && NAMED[..6].iter().all(|(_, task)| self.tasks.contains(task))
    }

    fn add(&mut self, name: &str) -> Result<(), TaskError> {
        if let Some(path) = name.strip_prefix(TEXT_PREFIX) {
            self.push(Task::Text(path.into()));
        } else if name == PAPER {
            for (_, task) in &NAMED[..6] {
                self.push(task.clone());
            }
            self.add("mmlu")?;
        } else if let Some((_, task)) = NAMED.iter().find(|(known, _)| *known == name) {
            self.push(task.clone());
        } else if let Some(group) = GROUPS.iter().find(|group| group.name == name) {
            self.push_group(group);
        } else if let Some(subject) = name.strip_prefix(SUBJECTS_PREFIX).and_then(subject) {
            self.push(Task::Mmlu(subject));
        } else {
            return Err(TaskError::UnknownTask { name: name.to_owned(), nearest: nearest(name) });
        }
        Ok(())
    }

    fn push(&mut self, task: Task) {
        if !self.tasks.contains(&task) {
            self.tasks.push(task);
        }
    }

    fn push_group(&mut self, group: &'static Group) {
        for part in GROUPS.iter().filter(|part| group.parts.contains(&part.name)) {
            self.push_group(part);
        }
        for subject in group.subjects {
            self.push(Task::Mmlu(subject));
        }
        if !self.groups.contains(&group) {
            self.groups.push(group);
        }
    }
}

/// All names except those of files.
fn known_names() -> impl Iterator<Item = String> {
    let subjects = GROUPS
        .iter()
        .flat_map(|group| group.subjects)
        .map(|subject| format!("{SUBJECTS_PREFIX}{subject}"));
    let named = NAMED.iter().map(|(name, _)| *name).chain([PAPER]);
    named.chain(GROUPS.iter().map(|group| group.name)).map(str::to_owned).chain(subjects)
}

/// The name that was probably meant.
fn nearest(name: &str) -> Option<String> {
    let plain = |name: &str| name.to_lowercase().replace(['-', ' '], "_");
    let limit = (name.len() / 3).max(1);
    nearest_name(&plain(name), limit, known_names().map(|known| (plain(&known), known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> (Vec<String>, Vec<&'static str>) {
        let selection = Selection::parse(list).unwrap();
        (
            selection.tasks.iter().map(Task::name).collect(),
            selection.groups.iter().map(|group| group.name).collect(),
        )
    }

    #[test]
    fn a_list_of_names_selects_every_task_once() {
        assert_eq!(names("piqa, arc_easy,piqa,"), (vec!["piqa".into(), "arc_easy".into()], vec![]));
        assert_eq!(names("mmlu_anatomy,text:a b.txt").0, ["mmlu_anatomy", "text:a b.txt"]);
        let (tasks, groups) = names("mmlu_virology,mmlu");
        assert_eq!(
            (tasks.len(), tasks[0].as_str(), tasks[1].as_str()),
            (57, "mmlu_virology", "mmlu_abstract_algebra")
        );
        assert_eq!(
            groups,
            ["mmlu_stem", "mmlu_other", "mmlu_social_sciences", "mmlu_humanities", "mmlu"]
        );
        let (tasks, groups) = names("paper");
        assert_eq!((tasks.len(), groups.len()), (6 + 57, 5));
        assert!(Selection::parse("paper").unwrap().is_paper());
        assert!(!Selection::parse("piqa,mmlu").unwrap().is_paper());
        assert!(
            Selection::parse(
                "mmlu,wikitext-paper,hellaswag,piqa,winogrande,arc_easy,arc_challenge"
            )
            .unwrap()
            .is_paper()
        );
    }

    #[test]
    fn an_unknown_name_leads_to_the_nearest() {
        for (name, nearest) in [
            ("hella_swag", "hellaswag"),
            ("ARC-Easy", "arc_easy"),
            ("wikitxt", "wikitext"),
            ("mmlu_anatomi", "mmlu_anatomy"),
            ("papers", "paper"),
        ] {
            let Err(TaskError::UnknownTask { nearest: Some(found), .. }) = Selection::parse(name)
            else {
                panic!("{name}")
            };
            assert_eq!(found, nearest);
        }
        assert!(matches!(
            Selection::parse("boolq"),
            Err(TaskError::UnknownTask { nearest: None, .. })
        ));
        assert!(matches!(Selection::parse(" ,"), Err(TaskError::NoTask)));
    }
}

//! The subjects and groups of MMLU.
//!
//! Source: lm-eval 0.4.13, `tasks/mmlu/default`. Start at [`GROUPS`].

/// Prefix of the task names of subjects and groups.
pub(super) const SUBJECTS_PREFIX: &str = "mmlu_";

/// A group of tasks whose documents are weighted equally.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    /// Name on the command line and in results.
    pub name: &'static str,
    /// Name in a table.
    pub alias: &'static str,
    /// Subjects that belong to it directly.
    pub subjects: &'static [&'static str],
    /// Names of its subgroups.
    pub parts: &'static [&'static str],
}

/// All groups, the whole after its parts.
pub const GROUPS: [Group; 5] = [
    Group {
        name: "mmlu_stem",
        alias: "stem",
        subjects: &[
            "abstract_algebra",
            "anatomy",
            "astronomy",
            "college_biology",
            "college_chemistry",
            "college_computer_science",
            "college_mathematics",
            "college_physics",
            "computer_security",
            "conceptual_physics",
            "electrical_engineering",
            "elementary_mathematics",
            "high_school_biology",
            "high_school_chemistry",
            "high_school_computer_science",
            "high_school_mathematics",
            "high_school_physics",
            "high_school_statistics",
            "machine_learning",
        ],
        parts: &[],
    },
    Group {
        name: "mmlu_other",
        alias: "other",
        subjects: &[
            "business_ethics",
            "clinical_knowledge",
            "college_medicine",
            "global_facts",
            "human_aging",
            "management",
            "marketing",
            "medical_genetics",
            "miscellaneous",
            "nutrition",
            "professional_accounting",
            "professional_medicine",
            "virology",
        ],
        parts: &[],
    },
    Group {
        name: "mmlu_social_sciences",
        alias: "social sciences",
        subjects: &[
            "econometrics",
            "high_school_geography",
            "high_school_government_and_politics",
            "high_school_macroeconomics",
            "high_school_microeconomics",
            "high_school_psychology",
            "human_sexuality",
            "professional_psychology",
            "public_relations",
            "security_studies",
            "sociology",
            "us_foreign_policy",
        ],
        parts: &[],
    },
    Group {
        name: "mmlu_humanities",
        alias: "humanities",
        subjects: &[
            "formal_logic",
            "high_school_european_history",
            "high_school_us_history",
            "high_school_world_history",
            "international_law",
            "jurisprudence",
            "logical_fallacies",
            "moral_disputes",
            "moral_scenarios",
            "philosophy",
            "prehistory",
            "professional_law",
            "world_religions",
        ],
        parts: &[],
    },
    Group {
        name: "mmlu",
        alias: "mmlu",
        subjects: &[],
        parts: &["mmlu_stem", "mmlu_other", "mmlu_social_sciences", "mmlu_humanities"],
    },
];

impl Group {
    /// Whether `subject` belongs to it or to a subgroup.
    #[must_use]
    pub fn contains(&self, subject: &str) -> bool {
        self.subjects.contains(&subject)
            || GROUPS.iter().any(|part| self.parts.contains(&part.name) && part.contains(subject))
    }
}

/// The subject named `name`.
pub(super) fn subject(name: &str) -> Option<&'static str> {
    GROUPS.iter().flat_map(|group| group.subjects).copied().find(|subject| *subject == name)
}

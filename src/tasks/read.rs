//! Converts one record of a data set into the question that lm-eval asks.
//!
//! Supports the published formats of each data set, with one function per task; start at
//! [`question`].

use crate::tasks::cleaning::clean_hellaswag;
use crate::tasks::python::{capitalize, strip};
use crate::tasks::records::Record;
use crate::tasks::{Prompt, Question, Task, TaskError};

/// The question of `record`, for a task with self-contained records.
pub(super) fn question(task: &Task, record: &Record<'_>) -> Result<Question, TaskError> {
    match task {
        Task::HellaSwag => hellaswag(record),
        Task::Winogrande => winogrande(record),
        _ => arc(record),
    }
}

/// As published, or already cleaned: `query`, `choices`, `gold`.
fn hellaswag(record: &Record<'_>) -> Result<Question, TaskError> {
    if record.has("query") {
        let choices = record.choices("choices")?;
        let gold = record.choice("gold", choices.len())?;
        return Ok(Question {
            prompt: Prompt::Continuations { context: record.text("query")?, choices },
            gold,
        });
    }
    let scene = format!(
        "{}: {} {}",
        record.text("activity_label")?,
        record.text("ctx_a")?,
        capitalize(&record.text("ctx_b")?)
    );
    let choices: Vec<String> =
        record.choices("endings")?.iter().map(|ending| clean_hellaswag(ending)).collect();
    let gold = record.choice("label", choices.len())?;
    Ok(Question {
        prompt: Prompt::Continuations { context: clean_hellaswag(&scene), choices },
        gold,
    })
}

/// A goal and its two solutions; `gold` is in the record or in a label file.
pub(super) fn piqa(record: &Record<'_>, gold: usize) -> Result<Question, TaskError> {
    let choices = vec![record.text("sol1")?, record.text("sol2")?];
    Ok(Question {
        prompt: Prompt::Continuations { context: asked(&record.text("goal")?), choices },
        gold,
    })
}

/// The option replaces the gap, and the text after the gap is scored.
fn winogrande(record: &Record<'_>) -> Result<Question, TaskError> {
    let sentence = record.text("sentence")?;
    let gaps = sentence.matches('_').count();
    let Some((before, after)) = sentence.split_once('_').filter(|_| gaps == 1) else {
        return Err(
            record.wrong("sentence", &format!("a sentence with {gaps} gaps \"_\" instead of one"))
        );
    };
    let contexts = vec![
        format!("{before}{}", record.text("option1")?),
        format!("{before}{}", record.text("option2")?),
    ];
    // The answers are numbered 1 and 2.
    let gold = match record.choice("answer", 3) {
        Ok(number) if number > 0 => number - 1,
        Ok(_) => return Err(record.wrong("answer", "0, not 1 or 2")),
        Err(_) if record.has("answer") => return Err(record.wrong("answer", "not 1 or 2")),
        Err(missing) => return Err(missing),
    };
    Ok(Question {
        prompt: Prompt::Contexts { contexts, continuation: strip(after).to_owned() },
        gold,
    })
}

/// As published by AI2 (`question.stem`), as in Hugging Face's copy (`choices.text`), or plain:
/// `question`, `choices`, `gold`.
fn arc(record: &Record<'_>) -> Result<Question, TaskError> {
    let (question, choices, labels) = if let Some(question) = record.object("question", "question.")
    {
        let choices = question.objects("choices", "question.choices[].")?;
        let texts =
            choices.iter().map(|choice| choice.text("text")).collect::<Result<Vec<_>, _>>()?;
        let labels =
            choices.iter().map(|choice| choice.text("label")).collect::<Result<Vec<_>, _>>()?;
        (question.text("stem")?, texts, labels)
    } else if let Some(choices) = record.object("choices", "choices.") {
        (record.text("question")?, choices.choices("text")?, choices.texts("label")?)
    } else {
        let choices = record.choices("choices")?;
        let gold = record.choice("gold", choices.len())?;
        return Ok(Question {
            prompt: Prompt::Continuations { context: asked(&record.text("question")?), choices },
            gold,
        });
    };
    if labels.len() != choices.len() || choices.len() < 2 {
        return Err(record.place().bad(format!(
            "there are {} choices with {} labels",
            choices.len(),
            labels.len()
        )));
    }
    let key = record.text("answerKey")?;
    let gold = labels.iter().position(|label| *label == key).ok_or_else(|| {
        record.wrong("answerKey", &format!("{key:?}, not one of {}", labels.join(", ")))
    })?;
    Ok(Question { prompt: Prompt::Continuations { context: asked(&question), choices }, gold })
}

fn asked(question: &str) -> String {
    format!("Question: {question}\nAnswer:")
}

/// A text to be scored as a whole, under any of its field names.
pub(super) fn page(record: &Record<'_>) -> Result<String, TaskError> {
    record.text(if record.has("page") { "page" } else { "text" })
}

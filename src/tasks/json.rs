//! Results in the formats that scripts read: lm-eval's document, and one line per document.
//!
//! JSON has no non-finite numbers: they are written as strings. Start at [`results_document`].

use serde_json::{Map, Value, json};

use crate::tasks::result::Metric;
use crate::tasks::{Answer, Documents, GroupResult, LoadedTask, Task, TaskResult};

/// The results document of lm-eval, as far as it concerns tasks; `config` describes the model and
/// the settings.
#[must_use]
pub fn results_document(results: &[TaskResult], groups: &[GroupResult], config: Value) -> Value {
    let (mut all, mut of_groups, mut samples) = (Map::new(), Map::new(), Map::new());
    let (mut versions, mut num_fewshot, mut higher_is_better, mut subtasks) =
        (Map::new(), Map::new(), Map::new(), Map::new());
    for result in results {
        let name = result.task.name();
        all.insert(
            name.clone(),
            entry(&name, &result.task.alias(), result.num_documents, &result.metrics),
        );
        samples.insert(
            name.clone(),
            json!({ "original": result.num_available, "effective": result.num_documents }),
        );
        versions.insert(name.clone(), json!(result.task.version()));
        num_fewshot.insert(name.clone(), json!(result.num_fewshot));
        let better: Map<String, Value> = result
            .metrics
            .iter()
            .map(|metric| (metric.name.to_owned(), json!(metric.name.starts_with("acc"))))
            .collect();
        higher_is_better.insert(name, Value::Object(better));
    }
    for result in groups {
        let (name, group) = (result.group.name.to_owned(), result.group);
        let entry = entry(&name, group.alias, result.num_documents, &result.metrics);
        all.insert(name.clone(), entry.clone());
        of_groups.insert(name.clone(), entry);
        let parts = group
            .parts
            .iter()
            .map(|part| (*part).to_owned())
            .chain(group.subjects.iter().map(|subject| format!("mmlu_{subject}")));
        subtasks.insert(name, parts.collect());
    }
    let mut document = Map::new();
    document.insert("results".into(), Value::Object(all));
    if !groups.is_empty() {
        document.insert("groups".into(), Value::Object(of_groups));
    }
    let rest = [
        ("group_subtasks", subtasks),
        ("versions", versions),
        ("n-shot", num_fewshot),
        ("higher_is_better", higher_is_better),
        ("n-samples", samples),
    ];
    document.extend(rest.map(|(key, value)| (key.to_owned(), Value::Object(value))));
    document.insert("config".into(), config);
    Value::Object(document)
}

/// One line of JSON per document: its requests, the responses of the model, and whether they are
/// correct.
#[must_use]
pub fn sample_lines(task: &LoadedTask, result: &TaskResult) -> String {
    let name = task.task.name();
    let mut lines = String::new();
    for (doc_id, answer) in result.answers.iter().enumerate() {
        let line = match (&task.documents, answer) {
            (Documents::Questions(questions), Answer::Choice { log_likelihoods, judgement }) => {
                let question = &questions[doc_id];
                let asked = question
                    .requests()
                    .into_iter()
                    .zip(log_likelihoods)
                    .map(|(request, value)| json!({ "context": request.context, "continuation": request.continuation, "log_likelihood": number(*value) }));
                let mut line = json!({ "task": name, "doc_id": doc_id, "gold": question.gold, "requests": asked.collect::<Vec<_>>() });
                line["acc"] = json!(f64::from(u8::from(judgement.acc)));
                if task.task.has_acc_norm() {
                    line["acc_norm"] = json!(f64::from(u8::from(judgement.acc_norm)));
                }
                line
            }
            (Documents::Texts(texts), Answer::Text(value)) if task.task != Task::WikitextPaper => {
                let text = &texts[doc_id];
                json!({ "task": name, "doc_id": doc_id, "log_likelihood": number(*value), "words": text.num_words, "bytes": text.num_bytes })
            }
            // The paper's blocks are not documents.
            (_, Answer::Text(value)) => {
                json!({ "task": name, "block": doc_id, "log_likelihood": number(*value) })
            }
            (Documents::Texts(_), Answer::Choice { .. }) => continue,
        };
        lines += &line.to_string();
        lines.push('\n');
    }
    lines
}

fn entry(name: &str, alias: &str, num_documents: usize, metrics: &[Metric]) -> Value {
    let mut entry = Map::new();
    entry.insert("name".into(), json!(name));
    entry.insert("alias".into(), json!(alias));
    entry.insert("sample_len".into(), json!(num_documents));
    for metric in metrics {
        entry.insert(format!("{},none", metric.name), number(metric.value));
        entry.insert(
            format!("{}_stderr,none", metric.name),
            metric.stderr.map_or_else(|| json!("N/A"), number),
        );
    }
    Value::Object(entry)
}

fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!(value.to_string()) }
}

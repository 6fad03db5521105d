//! The activation study as a table, as JSON and as the figure.
//!
//! Pure functions of numbers; never measures. Start at [`ActivationReport`].

use serde::{Serialize, Serializer};

use crate::config::{ActivationTensor, ActivationThreshold, PatchSize};
use crate::report::figure::{Axis, AxisRange, AxisTicks, Line, LineChart};
use crate::report::format::{count, grouped, small};
use crate::run::{number, sanitize_line};

/// What was measured, of all models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ActivationReport {
    /// Which neurons.
    pub tensor: ActivationTensor,
    /// Where they begin to count as activated; in JSON an object like `{"absolute": 0.5}` or `{"times_mean": 1.5}`.
    #[serde(serialize_with = "threshold_as_json")]
    pub threshold: ActivationThreshold,
    /// The text that was read.
    pub text: String,
    /// In the order of the legend.
    pub models: Vec<ModelNumbers>,
}

/// One model that read patches of one size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelNumbers {
    /// The run that trained it.
    pub run: String,
    /// Directory of the checkpoint.
    pub checkpoint: String,
    /// Completed updates, if a run trained it.
    pub step: Option<u64>,
    /// K of the stage that the checkpoint was saved in.
    pub trained_patch_size: PatchSize,
    /// K of the patches that it read.
    pub patch_size: PatchSize,
    /// Tokens that it read.
    pub tokens: u64,
    /// Patches that these make.
    pub positions: u64,
    /// From the first layer to the last.
    pub layers: Vec<LayerNumbers>,
}

/// One layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LayerNumbers {
    /// Number of the layer, from 1.
    pub layer: usize,
    /// |x| that a neuron must exceed.
    #[serde(with = "number")]
    pub threshold: f64,
    /// Share of activated values over all positions and neurons.
    #[serde(with = "number")]
    pub activated_percent: f64,
    /// Share of neurons that are not activated at any position.
    #[serde(with = "number")]
    pub never_activated_percent: f64,
    /// Mean |x|.
    #[serde(with = "number")]
    pub mean_abs: f64,
}

impl ActivationReport {
    /// The numbers as a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{}\n", self.title());
        for model in &self.models {
            let ModelNumbers { run, step, trained_patch_size, patch_size, tokens, positions, .. } = model;
            let trained = if trained_patch_size == patch_size { String::new() } else { format!(", saved in a stage of K = {trained_patch_size}") };
            let positions = if patch_size.get() == 1 { String::new() } else { format!(" in {} patches", count(*positions)) };
            let of_model = format!("{run}{}, K = {patch_size}{trained}: {} tokens{positions}", of_step(*step), count(*tokens));
            text += &["\n", &sanitize_line(&of_model), "\n  layer   activated   never activated   mean |x|\n"].concat();
            for layer in &model.layers {
                text += &row(&layer.layer.to_string(), layer);
            }
            if model.layers.len() > 1 {
                text += &row("all", &model.mean());
            }
        }
        text
    }

    /// The numbers as one JSON document; what is not finite is a string.
    ///
    /// # Errors
    /// Never for what was measured.
    pub fn to_json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Layers across, percent upwards, one line per model and K.
    #[must_use]
    pub fn figure(&self) -> LineChart {
        let line = |model: &ModelNumbers| {
            let points = model.layers.iter().map(|layer| [layer.layer as f64, layer.activated_percent]).collect();
            Line { name: self.name(model), points }
        };
        let tokens = self.models.iter().map(|model| model.tokens).max().unwrap_or(0);
        LineChart {
            title: self.title(),
            subtitle: format!("Mean over positions and neurons, {} tokens of {}", count(tokens), self.text),
            x: Axis { title: "Layer".into(), ticks: AxisTicks::Whole, range: AxisRange::OfData },
            y: Axis { title: "Activated neurons (%)".into(), ticks: AxisTicks::Any, range: AxisRange::FromZero },
            lines: self.models.iter().map(line).collect(),
        }
    }

    fn title(&self) -> String {
        let tensor = match self.tensor {
            ActivationTensor::FfnOutput => "FFN output",
            ActivationTensor::Intermediate => "FFN intermediate",
        };
        format!("Activated neurons per layer: |{tensor}| > {}", self.threshold)
    }

    /// Name of a line: no longer than what tells the models apart.
    fn name(&self, model: &ModelNumbers) -> String {
        let is_only_step = self.models.iter().all(|other| other.run != model.run || other.step == model.step);
        let step = if is_only_step { String::new() } else { of_step(model.step) };
        format!("{}{step}, K = {}", model.run, model.patch_size)
    }
}

impl ModelNumbers {
    /// The mean over the layers, which are equally wide.
    fn mean(&self) -> LayerNumbers {
        let mean = |number: fn(&LayerNumbers) -> f64| self.layers.iter().map(number).sum::<f64>() / self.layers.len() as f64;
        LayerNumbers {
            layer: 0,
            threshold: mean(|layer| layer.threshold),
            activated_percent: mean(|layer| layer.activated_percent),
            never_activated_percent: mean(|layer| layer.never_activated_percent),
            mean_abs: mean(|layer| layer.mean_abs),
        }
    }
}

fn of_step(step: Option<u64>) -> String {
    step.map_or_else(String::new, |step| format!(", step {}", grouped(step)))
}

fn row(name: &str, layer: &LayerNumbers) -> String {
    let percent = |value: f64| format!("{} %", small(value));
    let (activated, never) = (percent(layer.activated_percent), percent(layer.never_activated_percent));
    format!("  {name:>5}   {activated:>9}   {never:>15}   {:>8}\n", small(layer.mean_abs))
}

fn threshold_as_json<S: Serializer>(threshold: &ActivationThreshold, serializer: S) -> Result<S::Ok, S::Error> {
    let (kind, number) = match threshold {
        ActivationThreshold::Absolute(number) => ("absolute", number),
        ActivationThreshold::TimesMean(factor) => ("times_mean", factor),
    };
    serializer.collect_map([(kind, number)])
}

//! The activation study as a table, as JSON and as the figure.
//!
//! Pure functions of measured numbers. Start at [`ActivationReport`].

use serde::{Serialize, Serializer};

use crate::config::{ActivationTensor, ActivationThreshold, PatchSize};
use crate::record::number;
use crate::report::figure::{Axis, AxisRange, AxisTicks, Line, LineChart};
use crate::text::format::{count, grouped, small};
use crate::text::sanitize_line;

/// The measurements of all models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ActivationReport {
    /// The measured neurons.
    pub tensor: ActivationTensor,
    /// The threshold; in JSON an object, e.g. `{"absolute": 0.5}` or `{"times_mean": 1.5}`.
    #[serde(serialize_with = "threshold_as_json")]
    pub threshold: ActivationThreshold,
    /// Input text.
    pub text: String,
    /// Models in the order of the legend.
    pub models: Vec<ModelNumbers>,
}

/// One model measured at one patch size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelNumbers {
    /// The run that trained it.
    pub run: String,
    /// Directory of the checkpoint.
    pub checkpoint: String,
    /// Completed updates, if the model comes from a run.
    pub step: Option<u64>,
    /// Patch size (K) of the stage that the checkpoint was saved in.
    pub trained_patch_size: PatchSize,
    /// Patch size (K) of the measurement.
    pub patch_size: PatchSize,
    /// Tokens read.
    pub tokens: u64,
    /// Patches of these tokens.
    pub positions: u64,
    /// Layers from first to last.
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
    /// Share of active values over all positions and neurons.
    #[serde(with = "number")]
    pub activated_percent: f64,
    /// Share of neurons that are not active at any position.
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
            let ModelNumbers {
                run, step, trained_patch_size, patch_size, tokens, positions, ..
            } = model;
            let trained = if trained_patch_size == patch_size {
                String::new()
            } else {
                format!(", saved in a stage of K = {trained_patch_size}")
            };
            let positions = if patch_size.get() == 1 {
                String::new()
            } else {
                format!(" in {} patches", count(*positions))
            };
            let of_model = format!(
                "{run}{}, K = {patch_size}{trained}: {} tokens{positions}",
                of_step(*step),
                count(*tokens)
            );
            text += &[
                "\n",
                &sanitize_line(&of_model),
                "\n  layer      active      never active   mean |x|\n",
            ]
            .concat();
            for layer in &model.layers {
                text += &row(&layer.layer.to_string(), layer);
            }
            if model.layers.len() > 1 {
                text += &row("all", &model.mean());
            }
        }
        text
    }

    /// The numbers as one JSON document; non-finite numbers are strings.
    ///
    /// # Errors
    /// Never for measured numbers.
    pub fn to_json(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The figure: layers on the x axis, percent on the y axis, one line per model and K.
    #[must_use]
    pub fn figure(&self) -> LineChart {
        let line = |model: &ModelNumbers| {
            let points = model
                .layers
                .iter()
                .map(|layer| [layer.layer as f64, layer.activated_percent])
                .collect();
            Line { name: self.name(model), points }
        };
        let tokens = self.models.iter().map(|model| model.tokens).max().unwrap_or(0);
        LineChart {
            title: self.title(),
            subtitle: format!(
                "Mean over positions and neurons, {} tokens of {}",
                count(tokens),
                self.text
            ),
            x: Axis { title: "Layer".into(), ticks: AxisTicks::Whole, range: AxisRange::OfData },
            y: Axis {
                title: "Active neurons (%)".into(),
                ticks: AxisTicks::Any,
                range: AxisRange::FromZero,
            },
            lines: self.models.iter().map(line).collect(),
        }
    }

    fn title(&self) -> String {
        let tensor = match self.tensor {
            ActivationTensor::FfnOutput => "FFN output",
            ActivationTensor::Intermediate => "FFN intermediate",
        };
        format!("Active neurons per layer: |{tensor}| > {}", self.threshold)
    }

    /// Name of a line: only what distinguishes the models.
    fn name(&self, model: &ModelNumbers) -> String {
        let is_only_step =
            self.models.iter().all(|other| other.run != model.run || other.step == model.step);
        let step = if is_only_step { String::new() } else { of_step(model.step) };
        format!("{}{step}, K = {}", model.run, model.patch_size)
    }
}

impl ModelNumbers {
    /// Mean over the layers, which are equally wide.
    fn mean(&self) -> LayerNumbers {
        let mean = |number: fn(&LayerNumbers) -> f64| {
            self.layers.iter().map(number).sum::<f64>() / self.layers.len() as f64
        };
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
    let (activated, never) =
        (percent(layer.activated_percent), percent(layer.never_activated_percent));
    format!("  {name:>5}   {activated:>9}   {never:>15}   {:>8}\n", small(layer.mean_abs))
}

fn threshold_as_json<S: Serializer>(
    threshold: &ActivationThreshold,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let (kind, number) = match threshold {
        ActivationThreshold::Absolute(number) => ("absolute", number),
        ActivationThreshold::TimesMean(factor) => ("times_mean", factor),
    };
    serializer.collect_map([(kind, number)])
}

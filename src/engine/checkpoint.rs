//! Weights and moments to and from a checkpoint directory.
//!
//! `model.safetensors` has Hugging Face's names, `optimizer.safetensors` the moments by the same names; equal states give equal
//! bytes. The order of writing and the validity of the files are the concern of [`crate::run::Checkpoints`].

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};

use crate::config::OptimizerConfig;
use crate::engine::gradients::as_matrix;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::optimizer::{AdamW, Moments};
use crate::engine::tensor_file::{Entry, TensorFile, TensorFileError, write_tensors};
use crate::plan::ModelShape;
use crate::run::{Checkpoint, CheckpointError, Checkpoints, EventSender, MODEL_FILE, NewCheckpoint, OPTIMIZER_FILE, StopFlag, StopLevel, TrainerState};

/// What is to be saved.
#[derive(Debug)]
pub struct Snapshot<'a> {
    /// Weights.
    pub model: &'a LlamaForCausalLM,
    /// Moments.
    pub optimizer: &'a AdamW,
    /// Position of the run.
    pub state: TrainerState,
    /// Time in steps of each stage so far, in seconds.
    pub active_seconds: Vec<f64>,
    /// Whether pruning keeps it.
    pub permanent: bool,
}

/// Saves `snapshot` after the lines of all `events` so far. Returns whether something was written.
///
/// # Errors
/// As [`Checkpoints::save`].
pub fn save(checkpoints: &Checkpoints, snapshot: Snapshot<'_>, events: &EventSender, stop: &StopFlag) -> Result<(Checkpoint, bool), CheckpointError> {
    let (weights, moments) = entries(snapshot.model, snapshot.optimizer);
    let tensor_bytes = weights.iter().chain(&moments).map(|entry| (size_of::<f32>() * entry.dims.iter().product::<usize>()) as u64).sum();
    let (mut weights, mut moments) = (Some(weights), Some(moments));
    checkpoints.save(NewCheckpoint {
        state: snapshot.state,
        active_seconds: snapshot.active_seconds,
        permanent: snapshot.permanent,
        tensor_bytes,
        write_tensors: &mut |name, path| {
            let entries = if name == MODEL_FILE { weights.take() } else { moments.take() };
            write_tensors(path, entries.unwrap_or_default()).map_err(Into::into)
        },
        sync_lines: &|| events.sync_lines(),
        stop: &|| stop.level() == StopLevel::Now,
    })
}

/// The weights of `checkpoint`, on `device`.
///
/// # Errors
/// When a tensor is missing or has a shape that does not fit `shape`.
pub fn load_model(checkpoint: &Checkpoint, shape: &ModelShape, device: &Device) -> Result<LlamaForCausalLM, TensorFileError> {
    let mut file = TensorFile::open(&checkpoint.path.join(MODEL_FILE))?;
    LlamaForCausalLM::new(shape, &mut |name, dims| file.read(name, dims), device)
}

/// The optimizer of `checkpoint`, with its moments on `device` (without autodiff).
///
/// # Errors
/// When a weight of `model` has no moments or moments of another shape, or there are moments of no weight.
pub fn load_optimizer(checkpoint: &Checkpoint, config: OptimizerConfig, model: &LlamaForCausalLM, device: &Device) -> Result<AdamW, TensorFileError> {
    let path = checkpoint.path.join(OPTIMIZER_FILE);
    let mut file = TensorFile::open(&path)?;
    let mut optimizer = AdamW::new(config);
    optimizer.count = checkpoint.state.optimizer_count;
    let weights = if optimizer.count == 0 { Vec::new() } else { entries(model, &optimizer).0 };
    for Entry { name, dims, .. } in &weights {
        let columns = dims.last().copied().unwrap_or(1);
        let rows = dims.iter().product::<usize>() / columns.max(1);
        let mut moment = |suffix: &str| -> Result<Tensor<2>, TensorFileError> {
            Ok(Tensor::from_data(TensorData::new(file.read(&format!("{name}.{suffix}"), dims)?, [rows, columns]), device))
        };
        let moments = Moments { exp_avg: moment("exp_avg")?, exp_avg_sq: moment("exp_avg_sq")? };
        optimizer.moments.insert(name.clone(), moments);
    }
    let (found, expected) = (file.shapes().len(), 2 * weights.len());
    if found != expected {
        return Err(TensorFileError::Damaged { path, problem: format!("it has {found} moments instead of {expected}") });
    }
    Ok(optimizer)
}

/// Weights and moments as named entries.
fn entries(model: &LlamaForCausalLM, optimizer: &AdamW) -> (Vec<Entry>, Vec<Entry>) {
    struct Collect<'a> {
        path: Vec<String>,
        optimizer: &'a AdamW,
        weights: Vec<Entry>,
        moments: Vec<Entry>,
    }
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.path.join(".");
            let tensor = param.val().inner();
            let dims = tensor.dims().to_vec();
            if let Some(moments) = self.optimizer.moments.get(&name) {
                let mut push = |suffix: &str, tensor: &Tensor<2>| {
                    self.moments.push(Entry { name: format!("{name}.{suffix}"), dims: dims.clone(), tensor: tensor.clone() });
                };
                push("exp_avg", &moments.exp_avg);
                push("exp_avg_sq", &moments.exp_avg_sq);
            }
            self.weights.push(Entry { name, dims, tensor: as_matrix(tensor) });
        }
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
    }
    let mut collect = Collect { path: Vec::new(), optimizer, weights: Vec::new(), moments: Vec::new() };
    model.visit(&mut collect);
    (collect.weights, collect.moments)
}

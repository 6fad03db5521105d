//! Whether a model is still in its patch stage: `export` refuses it and `eval` warns about it, with
//! the same words.

use std::fmt;

use crate::config::PatchSize;
use crate::engine::open::{ModelFiles, ModelOrigin};
use crate::record::PlanFile;
use crate::record::files::read_small;

/// Why a model is not yet a token-level language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchStage {
    /// Its weights come from a patch stage.
    Patches(PatchSize),
    /// Its weights come from a token stage (K = 1), but a later token stage has not begun.
    Before {
        /// The current stage, counted from 1.
        reached: usize,
        /// The last token stage, counted from 1.
        last: usize,
    },
}

impl ModelFiles {
    /// Why the model is not yet a token-level language model; `None` if it is one.
    #[must_use]
    pub fn patch_stage(&self) -> Option<PatchStage> {
        if self.patch_size != PatchSize::ONE {
            return Some(PatchStage::Patches(self.patch_size));
        }
        let ModelOrigin::Checkpoint(found) = &self.origin else { return None };
        let plan = read_small(&found.run.plan())
            .ok()
            .and_then(|bytes| serde_json::from_slice::<PlanFile>(&bytes).ok())?
            .plan;
        let last = plan.stages.iter().rposition(|stage| stage.patch_size == PatchSize::ONE)?;
        let reached = found.checkpoint.state.stage;
        (reached < last).then_some(PatchStage::Before { reached: reached + 1, last: last + 1 })
    }
}

/// Readable after the name of a model and a colon.
impl fmt::Display for PatchStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Patches(patch_size) => {
                write!(f, "training stopped in the patch stage (K = {patch_size})")
            }
            Self::Before { reached, last } => write!(
                f,
                "training stopped in stage {reached}; its last token stage, {last}, has not begun"
            ),
        }
    }
}

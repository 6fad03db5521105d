//! The panes of the screen. Every pane reads a screen's state and only draws; untrusted text is
//! sanitized here, right before it becomes cells.

mod activations;
mod boot;
mod footer;
mod frame;
mod home;
mod log;
mod objective;
mod overlays;
mod samples;
mod stage_bar;
mod status;
mod summary;
mod tiny;
mod token_loss;

pub(crate) use activations::ActivationsPane;
pub(crate) use boot::BootPane;
pub(crate) use footer::Footer;
pub(crate) use home::HomePane;
pub(crate) use log::LogPane;
pub(crate) use objective::ObjectivePane;
pub(crate) use overlays::OverlayView;
pub(crate) use samples::SamplesPane;
pub(crate) use stage_bar::StageBar;
pub(crate) use status::StatusLines;
pub(crate) use summary::SummaryPane;
pub(crate) use tiny::{OneLine, TinyScreen};
pub(crate) use token_loss::TokenLossPane;

//! The terminal client of a run: shows its history, sends its keys as commands, and can leave without the run noticing.
//!
//! Knows [`crate::run::History`] and the two ends of an [`crate::control::EngineLink`]; never sockets, engines or tensors.
//! State changes only in [`App::update`]; views only draw; terminal and threads are below [`run`]. Start at [`App`].

mod app;
mod chart;
mod event_loop;
mod format;
mod keys;
mod panes;
mod screen;
mod terminal;
mod theme;

pub use app::{App, Effect, Msg, Overlay, Pane};
pub use chart::{Curve, Domain, Extremes, decimate, nice_domain, nice_ticks};
pub use event_loop::{TuiExit, TuiOptions, run};
pub use keys::{Action, BINDINGS, Binding, action_of};
pub use screen::{view, view_text};
pub use terminal::{FRAME_BEGIN, FRAME_END, KeyParser, ScreenBackend};
pub use theme::{Look, Markers};

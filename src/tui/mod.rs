//! The terminal client: a list of runs, and the screen of one run, which controls it and can detach
//! without disturbing it.
//!
//! Runs are shown from a [`crate::record::History`] and the two ends of an
//! [`crate::control::EngineLink`]; the actions of the list are passed in as [`HomeActions`]. State
//! changes only in [`App::update`]; views only draw; terminal and threads are below [`run`]. Start
//! at [`App`].

mod app;
mod chart;
mod event_loop;
mod home_screen;
mod keys;
mod links;
mod message;
mod panes;
mod run_screen;
mod screen;
mod terminal;
mod theme;
mod typing;

pub use app::{App, Screen};
pub use chart::{
    Domain, Dots, Extremes, Viewport, decimate, decimate_series, nice_domain, nice_ticks,
};
pub use event_loop::{
    HomeActions, ListRuns, ListenToRun, Opening, ResumeRun, StartRun, TuiExit, TuiOptions, run,
};
pub use home_screen::{HomeScreen, Prompt};
pub use keys::{
    Binding, HOME_KEYS, HomeAction, Jump, Look, RUN_KEYS, RunAction, Scroll, Steer, action_of,
    run_keys,
};
pub use message::{Access, CommandIds, Effect, Msg, Refusal, RunId, RunList};
pub use run_screen::{LinkState, Notice, NoticePhase, Overlay, Pane, RunScreen};
pub use screen::{view, view_text};
pub use terminal::{FRAME_BEGIN, FRAME_END, KeyParser, ScreenBackend};
pub use theme::{Background, Markers, Theme};

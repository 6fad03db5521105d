//! Exact line charts in dots: the picture is the same as if a line through every point were drawn.
//!
//! A column of dots keeps its first, last, lowest and highest point (M4: Jugel et al., VLDB 2014),
//! so no spike is lost; a non-finite point is a gap with a mark. Start at [`Chart`], which a pane
//! builds and a widget draws.

mod data;
mod decimate;
mod dots;
mod scale;
mod widget;

pub(crate) use data::{Chart, Curve, Mark, Points};
pub use decimate::{Extremes, decimate, decimate_series};
pub use dots::Dots;
pub use scale::{Domain, Viewport, nice_domain, nice_ticks};
pub(crate) use scale::{PIECES, robust_range};

//! Line styles: color, dash and marker change together, and no combination repeats before the 42nd
//! line.

/// Colors that most people with a color vision deficiency can tell apart (Okabe and Ito, 2008); its
/// yellow is too pale on white.
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333"];
/// `stroke-dasharray`; the solid line comes first.
const DASHES: [&str; 6] = ["none", "8 4", "2 3", "10 4 2 4", "14 4", "5 2"];

/// Style of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineStyle {
    pub colour: &'static str,
    pub dash: &'static str,
    pub marker: Marker,
}

/// Marker at each point of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    Circle,
    Square,
    TriangleUp,
    Diamond,
    TriangleDown,
    Ring,
}

const MARKERS: [Marker; 6] = [
    Marker::Circle,
    Marker::Square,
    Marker::TriangleUp,
    Marker::Diamond,
    Marker::TriangleDown,
    Marker::Ring,
];

impl LineStyle {
    /// Style of line number `idx`.
    pub(super) fn of(idx: usize) -> Self {
        Self {
            colour: COLOURS[idx % COLOURS.len()],
            dash: DASHES[idx % DASHES.len()],
            marker: MARKERS[idx % MARKERS.len()],
        }
    }

    /// The marker at a position, as an SVG element.
    pub(super) fn marker_at(&self, [x, y]: [f64; 2]) -> String {
        let colour = self.colour;
        let polygon = |points: &[[f64; 2]]| {
            let points: Vec<String> =
                points.iter().map(|[dx, dy]| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
            format!("<polygon points=\"{}\" fill=\"{colour}\"/>", points.join(" "))
        };
        match self.marker {
            Marker::Circle => {
                format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.8\" fill=\"{colour}\"/>")
            }
            Marker::Ring => format!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\" fill=\"#ffffff\" \
                 stroke=\"{colour}\" stroke-width=\"1.8\"/>"
            ),
            Marker::Square => polygon(&[[-3.5, -3.5], [3.5, -3.5], [3.5, 3.5], [-3.5, 3.5]]),
            Marker::TriangleUp => polygon(&[[0.0, -4.8], [4.6, 3.4], [-4.6, 3.4]]),
            Marker::Diamond => polygon(&[[0.0, -5.0], [5.0, 0.0], [0.0, 5.0], [-5.0, 0.0]]),
            Marker::TriangleDown => polygon(&[[0.0, 4.8], [4.6, -3.4], [-4.6, -3.4]]),
        }
    }
}

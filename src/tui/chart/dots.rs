//! A grid of dots, two by four in a cell.

use crate::tui::chart::decimate::Extremes;
use crate::tui::theme::Markers;

/// Dots across a cell.
pub(crate) const ACROSS: usize = 2;
/// Dots down a cell.
pub(crate) const DOWN: usize = 4;

/// A curve as dots in `width` by `height` cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dots {
    width: usize,
    height: usize,
    cells: Vec<u8>,
}

impl Dots {
    /// An empty grid.
    #[must_use]
    pub fn empty(width: usize, height: usize) -> Self {
        Self { width, height, cells: vec![0; width * height] }
    }

    /// The dots of a line through the points kept per column.
    #[must_use]
    pub fn new(extremes: &[Extremes], width: usize, height: usize) -> Self {
        let mut dots = Self::empty(width, height);
        let mut previous: Option<Extremes> = None;
        for piece in extremes {
            if let Some(previous) = previous.filter(|_| piece.is_joined) {
                dots.line((previous.column, previous.last), (piece.column, piece.first));
            }
            dots.line((piece.column, piece.min), (piece.column, piece.max));
            previous = Some(*piece);
        }
        dots
    }

    /// Sets the dots of a straight line (Bresenham) between two dots, rows counted from the bottom.
    pub fn line(&mut self, from: (usize, usize), to: (usize, usize)) {
        let (mut x, mut y) = (from.0.cast_signed(), from.1.cast_signed());
        let (to_x, to_y) = (to.0.cast_signed(), to.1.cast_signed());
        let (across, down) = ((to_x - x).abs(), -(to_y - y).abs());
        let (step_x, step_y) = ((to_x - x).signum(), (to_y - y).signum());
        let mut error = across + down;
        loop {
            self.set(x.cast_unsigned(), y.cast_unsigned());
            if (x, y) == (to_x, to_y) {
                return;
            }
            let doubled = 2 * error;
            if doubled >= down {
                error += down;
                x += step_x;
            }
            if doubled <= across {
                error += across;
                y += step_y;
            }
        }
    }

    /// The glyph of the cell at `column` and `row` (from the top), if it has dots.
    #[must_use]
    pub fn glyph(&self, column: usize, row: usize, markers: Markers) -> Option<char> {
        let dots = *self
            .cells
            .get(row * self.width + column)
            .filter(|dots| **dots != 0 && column < self.width)?;
        match markers {
            Markers::Braille => char::from_u32(0x2800 + u32::from(dots)),
            Markers::Ascii => Some(match (dots & 0b0001_1011 != 0, dots & 0b1110_0100 != 0) {
                (true, true) => ':',
                (true, false) => '\'',
                _ => '.',
            }),
        }
    }

    fn set(&mut self, x: usize, y: usize) {
        /// The bit of a dot in a Braille character, by row from the top and column.
        const BITS: [[u8; ACROSS]; DOWN] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        let Some(from_top) = (self.height * DOWN).checked_sub(y + 1) else { return };
        if x < self.width * ACROSS {
            self.cells[from_top / DOWN * self.width + x / ACROSS] |=
                BITS[from_top % DOWN][x % ACROSS];
        }
    }
}

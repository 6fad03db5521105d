//! Large matrix products: what is copied, and in which order the tiles are computed.
//!
//! ```text
//!            b: panels of four vectors of columns      A tile of the result is as large as the registers can hold. Its row of a
//!            ┌───┬───┬───┐                             panel and its column of `a` are loaded once for each term; what they are
//!   a        │   │   │   │ terms                       loaded for are as many multiplications as the tile has values.
//!  ┌─────┐   ├───┼───┼───┤
//!  │  ─  │   │   │   │   │                             A few hundred terms are summed in the registers before the tile is written,
//!  ├─────┤   └───┴───┴───┘                             so that some panels stay in the second cache while the rows of `a`
//!  │     │   ┌───┬───┬───┐                             pass by.
//!  └─────┘   │ ─ │   │   │ out: tiles
//!            └───┴───┴───┘
//! ```
//!
//! The tile kernels are those of the `gemm` crate. The difference is how matrices are repacked into
//! the order in which a tile reads them. The crate copies all of `b` for each part of the rows, and
//! a transposed `b` value by value, where the values of a column evict each other from the cache if
//! the row length is a power of two. Here a column is copied once, or once per thread, and a
//! transposed `b` block by block. `a` is copied as well if it is transposed, as for the gradients
//! of weights: the cost of the copies then determines how the result is split.
//!
//! A value is the sum over its terms in order, in chunks whose size depends on the number of terms
//! and the layout of `a` alone: neither tiles nor threads change it.

#![expect(
    clippy::inline_always,
    reason = "only code inlined into the closure of `best` is compiled for the instruction set"
)]

use std::cell::Cell;
use std::ops::Range;
use std::thread::LocalKey;

#[cfg(target_arch = "x86_64")]
use gemm_f32::microkernel;

use super::matrix::{Matrix, MatrixMut, Old, Product};
use super::vector::best;

/// Maximum size of the work between two copies.
struct Blocks {
    /// Terms summed in registers.
    terms: usize,
    /// Columns whose panels are used together.
    columns: usize,
    /// Rows whose groups are used together.
    rows: usize,
}

/// If the rows of `a` are read in place. The panels take half a megabyte.
const IN_PLACE: Blocks = Blocks { terms: 512, columns: 256, rows: usize::MAX };
/// If they are copied, and so should be used for many columns. The panels take a megabyte.
const COPIED: Blocks = Blocks { terms: 256, columns: 1024, rows: 120 };
/// Values per cache line.
const LINE: usize = 16;
/// Rows per tile.
const ROWS: usize = 6;
/// Parts per thread, so that a thread that is delayed has less to do.
pub(super) const PARTS_PER_THREAD: usize = 2;
/// Minimum number of rows and columns of a part.
const LEAST_ROWS: usize = 48;
const LEAST_COLUMNS: usize = 128;
/// With fewer rows, columns or terms, copies do not pay off.
const LEAST: usize = 32;

/// The tile kernels of an instruction set.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "other processors have none"))]
enum Tiles {
    Avx512,
    Fma,
}

/// What a tile kernel of the `gemm` crate computes: `out = factor * left * panel`, plus the old
/// values of `out` if they are kept. Strides are in values.
struct TileCall {
    columns: usize,
    rows: usize,
    terms: usize,
    out: *mut f32,
    out_row_stride: isize,
    panel: *const f32,
    panel_term_stride: isize,
    left: *const f32,
    left_term_stride: isize,
    left_row_stride: isize,
    factor: f32,
    keeps_old: bool,
}

/// A tile kernel, with the arguments of [`TileCall`] in the crate's order.
type Kernel = unsafe fn(
    usize,
    usize,
    usize,
    *mut f32,
    *const f32,
    *const f32,
    isize,
    isize,
    isize,
    isize,
    isize,
    f32,
    f32,
    u8,
    bool,
    bool,
    bool,
    *const f32,
);

impl TileCall {
    /// Runs `kernel`.
    ///
    /// # Safety
    /// The CPU must have the kernel's instructions; `left` and `panel` must have values for all
    /// rows, columns (a multiple of the vector width) and terms, and `out` for all rows and
    /// columns, which nothing else accesses.
    #[expect(unsafe_code, reason = "the kernels of the gemm crate take pointers")]
    #[inline]
    unsafe fn run(self, kernel: Kernel) {
        const OUT_COLUMN_STRIDE: isize = 1;
        const OLD_FACTOR: f32 = 1.0;
        // Complex numbers only, and an optional table of factors.
        const CONJUGATED: bool = false;
        let no_table = std::ptr::null();
        // SAFETY: the caller has made sure that these values exist.
        unsafe {
            kernel(
                self.columns,
                self.rows,
                self.terms,
                self.out,
                self.panel,
                self.left,
                self.out_row_stride,
                OUT_COLUMN_STRIDE,
                self.panel_term_stride,
                self.left_term_stride,
                self.left_row_stride,
                OLD_FACTOR,
                self.factor,
                u8::from(self.keeps_old),
                CONJUGATED,
                CONJUGATED,
                CONJUGATED,
                no_table,
            );
        }
    }
}

impl Tiles {
    /// The kernels that the `gemm` crate would choose; `None` without vectors of eight.
    fn here() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let (avx512, fma) = (
                std::arch::is_x86_feature_detected!("avx512f"),
                std::arch::is_x86_feature_detected!("fma"),
            );
            if avx512 { Some(Self::Avx512) } else { fma.then_some(Self::Fma) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        None
    }

    /// Values per vector.
    fn lanes(self) -> usize {
        match self {
            Self::Avx512 => 16,
            Self::Fma => 8,
        }
    }

    /// Columns of a tile and of a panel.
    fn width(self) -> usize {
        match self {
            Self::Avx512 => 64,
            Self::Fma => 16,
        }
    }

    /// The kernel for tiles of this many columns and rows.
    #[cfg(target_arch = "x86_64")]
    fn kernel(self, columns: usize, rows: usize) -> Kernel {
        match self {
            Self::Avx512 => microkernel::avx512f::f32::UKR[columns.div_ceil(16) - 1][rows - 1],
            Self::Fma => microkernel::fma::f32::UKR[columns.div_ceil(8) - 1][rows - 1],
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn kernel(self, _: usize, _: usize) -> Kernel {
        unreachable!("there are no tiles here")
    }

    /// Copies columns of `b`, which are the rows of `lines`, into panels.
    fn copy(self, lines: Matrix<'_>, panels: &mut [f32]) {
        match self {
            Self::Avx512 => best!(copy::<64>(lines, 16, panels)),
            Self::Fma => best!(copy::<16>(lines, 8, panels)),
        }
    }
}

/// Whether this module should compute `product`.
pub(super) fn pays(product: &Product<'_>) -> bool {
    let Product { out, a, .. } = product;
    out.rows.min(out.columns).min(a.columns) >= LEAST && Tiles::here().is_some()
}

/// Splits the result of `product`, for which it [`pays`], into about `parts`, each of which copies
/// what it needs.
pub(super) fn split(product: Product<'_>, parts: usize) -> Vec<Product<'_>> {
    let Product { out, old, a, b } = product;
    let (rows, columns) = (out.rows, out.columns);
    let (parts, across) = if is_copied(a) {
        // One per thread, since more parts would copy more: parts side by side copy the same rows,
        // parts one below the other the same columns. A value of a row takes about twice as
        // long.
        let parts = parts.div_ceil(PARTS_PER_THREAD);
        let cost = |across: &usize| 2 * across * rows + parts.div_ceil(*across) * columns;
        (parts, (1..=parts).min_by_key(cost).unwrap_or(1))
    } else if rows >= 4 * columns {
        // With many rows, each thread takes some of them, which it then finds in its cache; each
        // then copies every column.
        (parts, 2)
    } else {
        (parts, parts)
    };
    let across = across.min(parts).min(columns / LEAST_COLUMNS).max(1);
    let down = parts.div_ceil(across).min(rows / LEAST_ROWS).max(1);
    let (height, width) = (
        rows.div_ceil(down).next_multiple_of(ROWS),
        columns.div_ceil(across).next_multiple_of(LINE),
    );
    let mut found = Vec::new();
    for (first, out) in (0..).step_by(height).zip(out.split_rows(height)) {
        let a = a.block(first..first + out.rows, 0..a.columns);
        let blocks = out.split_columns(width).into_iter().zip(b.transposed().split_rows(width));
        found.extend(blocks.map(|(out, b)| Product { out, old, a, b: b.transposed() }));
    }
    found
}

/// Whether the rows of `a` must be copied: a tile reads them term by term.
fn is_copied(a: Matrix<'_>) -> bool {
    a.column_stride != 1
}

/// Computes `product`, for which it [`pays`], or a part of it, on the calling thread.
///
/// # Panics
/// When this CPU has no tile kernels.
pub(super) fn compute(product: Product<'_>) {
    let tiles = Tiles::here().expect("the caller checked that it pays");
    let Product { mut out, old, a, b } = product;
    let (b, is_copied) = (b.transposed(), is_copied(a));
    let most = if is_copied { COPIED } else { IN_PLACE };
    let chunk = a.columns.div_ceil(a.columns.div_ceil(most.terms));
    let held = most.columns.min(out.columns.next_multiple_of(tiles.lanes()));
    let together = most.rows.min(out.rows.next_multiple_of(ROWS));
    let mut panels = Room::new(&PANELS, chunk * held);
    let mut groups =
        Room::new(&GROUPS, if is_copied { together / ROWS * distance(chunk) } else { 0 });
    for terms in ranges(0..a.columns, chunk) {
        let old = if terms.start == 0 { old } else { Old::Kept };
        for columns in ranges(0..out.columns, held) {
            tiles.copy(b.block(columns.clone(), terms.clone()), panels.values_mut());
            for rows in ranges(0..out.rows, together) {
                let a = a.block(rows.clone(), terms.clone());
                let left = if is_copied {
                    best!(copy_groups(a, groups.values_mut()));
                    Left::Groups(groups.values(), terms.len())
                } else {
                    Left::Rows(a)
                };
                let mut block = Block { tiles, out: &mut out, old, factor: a.factor * b.factor };
                block.compute(left, panels.values(), (rows, columns.clone()));
            }
        }
    }
}

/// Splits `range` into ranges of `size`; the last one has the rest.
fn ranges(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(size).map(move |start| start..range.end.min(start + size))
}

/// Rows of `a`, for a chunk of terms.
#[derive(Clone, Copy)]
enum Left<'a> {
    Rows(Matrix<'a>),
    /// Copied into groups, with their number of terms.
    Groups(&'a [f32], usize),
}

impl<'a> Left<'a> {
    /// The rows of a tile that begins with the row `first`.
    fn tile(self, first: usize) -> Matrix<'a> {
        match self {
            Left::Rows(a) => a.block(first..a.rows.min(first + ROWS), 0..a.columns),
            Left::Groups(values, terms) => {
                Matrix::new(&values[first / ROWS * distance(terms)..], terms, ROWS).transposed()
            }
        }
    }
}

/// Tiles that are computed in the same way.
struct Block<'a, 'b> {
    tiles: Tiles,
    out: &'a mut MatrixMut<'b>,
    old: Old,
    factor: f32,
}

impl Block<'_, '_> {
    /// Computes the tiles of some rows and columns, given their rows of `a` and their panels.
    fn compute(
        &mut self,
        left: Left<'_>,
        panels: &[f32],
        (rows, columns): (Range<usize>, Range<usize>),
    ) {
        for tile_rows in ranges(rows.clone(), ROWS) {
            let left = left.tile(tile_rows.start - rows.start);
            for tile_columns in ranges(columns.clone(), self.tiles.width()) {
                let panel = &panels[(tile_columns.start - columns.start) * left.columns..];
                self.tile(left, panel, (tile_rows.clone(), tile_columns));
            }
        }
    }

    /// Computes a tile from rows of `a` and a panel.
    #[expect(unsafe_code, reason = "the kernels of the gemm crate take pointers")]
    fn tile(
        &mut self,
        left: Matrix<'_>,
        panel: &[f32],
        (rows, columns): (Range<usize>, Range<usize>),
    ) {
        let (terms, width) = (left.columns, columns.len().next_multiple_of(self.tiles.lanes()));
        assert!(
            rows.end <= self.out.rows && columns.end <= self.out.columns,
            "the tile is in bounds"
        );
        assert!(
            rows.len() <= left.rows && width * terms <= panel.len(),
            "the rows and columns of the tile exist"
        );
        let (kernel, step) = (self.tiles.kernel(columns.len(), rows.len()), |stride: usize| {
            isize::try_from(stride).expect("slices are shorter")
        });
        let (out, row_stride) = self.out.start_of(rows.start, columns.start);
        let call = TileCall {
            columns: columns.len(),
            rows: rows.len(),
            terms,
            out,
            out_row_stride: step(row_stride),
            panel: panel.as_ptr(),
            panel_term_stride: step(width),
            left: left.values.as_ptr(),
            left_term_stride: step(left.column_stride),
            left_row_stride: step(left.row_stride),
            factor: self.factor,
            keeps_old: self.old == Old::Kept,
        };
        // SAFETY: this CPU has the instructions (`Tiles::here`). The kernel reads `width` values of
        // each term of the panel, as many values of `left` as there are rows, and reads and
        // writes the rows and columns of the tile, all of which exist: that was just
        // checked, and for `left`, a block of a matrix, on construction; `out`, which nothing else
        // accesses, shares no value with the others.
        unsafe { call.run(kernel) };
    }
}

/// Distance between groups of this many terms: an odd number of cache lines, so that groups do not
/// evict each other from the cache.
fn distance(terms: usize) -> usize {
    (terms * ROWS).next_multiple_of(2 * LINE) + LINE
}

/// Copies the rows of `lines`, whose values of a term are contiguous, into groups of [`ROWS`]: for
/// each term the values of the rows, one after the other. The last group may have fewer rows,
/// followed by values of earlier products.
#[inline(always)]
fn copy_groups(lines: Matrix<'_>, place: &mut [f32]) {
    /// Groups copied together.
    const TOGETHER: usize = 8;
    /// A vector: the values after a group's rows are overwritten by its next term, which is faster
    /// than copying just six.
    const VECTOR: usize = 8;
    const READ: usize = (TOGETHER - 1) * ROWS + VECTOR;
    let mut groups = place.chunks_exact_mut(distance(lines.columns));
    let readable = lines.values.len() - (lines.columns - 1) * lines.column_stride;
    let whole = lines.rows.min(readable.saturating_sub(VECTOR - ROWS)) / (TOGETHER * ROWS)
        * (TOGETHER * ROWS);
    for first in (0..whole).step_by(TOGETHER * ROWS) {
        let mut groups: [&mut [f32]; TOGETHER] =
            std::array::from_fn(|_| groups.next().expect("the buffer has room for the rows"));
        for term in 0..lines.columns {
            let line = lines.values[term * lines.column_stride + first..]
                .first_chunk::<READ>()
                .expect("a line of complete groups ends inside the values");
            for (number, group) in groups.iter_mut().enumerate() {
                group[term * ROWS..][..VECTOR].copy_from_slice(&line[number * ROWS..][..VECTOR]);
            }
        }
    }
    for (rows, group) in ranges(whole..lines.rows, ROWS).zip(groups) {
        for (term, values) in
            group.as_chunks_mut::<ROWS>().0[..lines.columns].iter_mut().enumerate()
        {
            values[..rows.len()]
                .copy_from_slice(&lines.values[term * lines.column_stride..][rows.clone()]);
        }
    }
}

/// Copies the rows of `lines` into panels of `WIDTH`: for each term the values of the rows, one
/// after the other. The last panel may have fewer rows, padded with zeros to a multiple of `unit`.
#[inline(always)]
fn copy<const WIDTH: usize>(lines: Matrix<'_>, unit: usize, mut panels: &mut [f32]) {
    /// More panels would evict each other from the cache: their distance may be a power of two.
    const TOGETHER: usize = 4;
    for rows in ranges(0..lines.rows, TOGETHER * WIDTH) {
        let lines = lines.block(rows, 0..lines.columns);
        let mut panels = panels
            .split_off_mut(..lines.rows.next_multiple_of(unit) * lines.columns)
            .expect("the buffer has room for the rows");
        if lines.row_stride == 1 {
            copy_terms::<WIDTH>(lines, panels);
            continue;
        }
        for rows in ranges(0..lines.rows, WIDTH) {
            let lines = lines.block(rows, 0..lines.columns);
            let padded = lines.rows.next_multiple_of(unit);
            let panel = panels
                .split_off_mut(..padded * lines.columns)
                .expect("the buffer has room for the rows");
            // With a width known at compile time, the loop is unrolled.
            if padded == WIDTH { turn(lines, WIDTH, panel) } else { turn(lines, padded, panel) }
        }
    }
}

/// Copies rows whose values of a term are already contiguous.
#[inline(always)]
fn copy_terms<const WIDTH: usize>(lines: Matrix<'_>, panels: &mut [f32]) {
    let (terms, whole) = (lines.columns, lines.rows - lines.rows % WIDTH);
    let last = panels.len() / terms - whole;
    for term in 0..terms {
        let (groups, rest) =
            lines.values[term * lines.column_stride..][..lines.rows].split_at(whole);
        for (number, group) in groups.as_chunks::<WIDTH>().0.iter().enumerate() {
            panels[(number * terms + term) * WIDTH..][..WIDTH].copy_from_slice(group);
        }
        if last > 0 {
            let place = &mut panels[whole * terms + term * last..][..last];
            place[..rest.len()].copy_from_slice(rest);
            place[rest.len()..].fill(0.0);
        }
    }
}

/// Copies the rows of one panel, whose terms are contiguous.
#[inline(always)]
fn turn(lines: Matrix<'_>, width: usize, panel: &mut [f32]) {
    /// Rows and terms transposed together: more rows would evict each other from the cache.
    const BLOCK: usize = 8;
    let (terms, whole) = (lines.columns, lines.rows - lines.rows % BLOCK);
    for first in (0..whole).step_by(BLOCK) {
        let rows: [&[f32]; BLOCK] = std::array::from_fn(|idx| lines.row(first + idx));
        let blocks = rows.map(|row| row.as_chunks::<BLOCK>().0);
        for start in 0..terms / BLOCK {
            for term in 0..BLOCK {
                let values: [f32; BLOCK] = std::array::from_fn(|idx| blocks[idx][start][term]);
                panel[(start * BLOCK + term) * width + first..][..BLOCK].copy_from_slice(&values);
            }
        }
        for term in terms - terms % BLOCK..terms {
            rows.iter()
                .enumerate()
                .for_each(|(idx, row)| panel[term * width + first + idx] = row[term]);
        }
    }
    for row in whole..width {
        for term in 0..terms {
            panel[term * width + row] = if row < lines.rows { lines.row(row)[term] } else { 0.0 };
        }
    }
}

thread_local! {
    /// The memory of the previous product, so that it is neither allocated nor zeroed again.
    static PANELS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static GROUPS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Memory for copies, aligned to a cache line.
struct Room {
    memory: Vec<f32>,
    first: usize,
    /// Keeps the memory until the next product.
    keeper: &'static LocalKey<Cell<Vec<f32>>>,
}

impl Room {
    fn new(keeper: &'static LocalKey<Cell<Vec<f32>>>, length: usize) -> Self {
        let mut memory = keeper.take();
        if memory.len() < length + LINE {
            memory.resize(length + LINE, 0.0);
        }
        let first = memory.as_ptr().align_offset(LINE * size_of::<f32>());
        Self { memory, first, keeper }
    }

    fn values(&self) -> &[f32] {
        &self.memory[self.first..]
    }

    fn values_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.first..]
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.keeper.set(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::matrix::testing::values;
    use super::*;

    /// `out + 0.5 a b` of thirds, in `parts` parts, and the same in f64. `turned`: whether `a` and
    /// `b` are transposed.
    fn computed(
        [rows, columns, terms]: [usize; 3],
        turned: [bool; 2],
        parts: usize,
    ) -> (Vec<f32>, Vec<f64>) {
        // Sums of thirds are rounded, so that another order of the terms gives another sum.
        let [a, b] = [(rows * terms, 1), (terms * columns, 2)].map(|(count, seed)| {
            values(count, seed).iter().map(|value| value / 3.0).collect::<Vec<_>>()
        });
        let matrix = |values, rows, columns, turned| {
            if turned {
                Matrix::new(values, columns, rows).transposed()
            } else {
                Matrix::new(values, rows, columns)
            }
        };
        let (left, right) =
            (matrix(&a, rows, terms, turned[0]), matrix(&b, terms, columns, turned[1]));
        let mut out = values(rows * columns, 3);
        let value = |matrix: Matrix<'_>, row: usize, column: usize| {
            f64::from(matrix.values[row * matrix.row_stride + column * matrix.column_stride])
        };
        let expected = |(idx, old): (usize, &f32)| {
            let (row, column) = (idx / columns, idx % columns);
            f64::from(*old)
                + 0.5
                    * (0..terms)
                        .map(|term| value(left, row, term) * value(right, term, column))
                        .sum::<f64>()
        };
        let expected = out.iter().enumerate().map(expected).collect();
        let product = Product {
            out: MatrixMut::new(&mut out, rows, columns),
            old: Old::Kept,
            a: left.times(0.5),
            b: right,
        };
        split(product, parts).into_iter().for_each(compute);
        (out, expected)
    }

    /// No term is larger than 1.
    fn furthest(found: &[f32], expected: &[f64]) -> f64 {
        found
            .iter()
            .zip(expected)
            .map(|(found, expected)| (f64::from(*found) - expected).abs())
            .fold(0.0, f64::max)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_number_of_parts_changes_no_bit(
            rows in 1..600_usize, columns in 1..300_usize, terms in 1..1400_usize, turned in any::<[bool; 2]>(), parts in 2..20_usize,
        ) {
            let shape = [rows, columns, terms];
            let (whole, expected) = computed(shape, turned, 1);
            prop_assert!(furthest(&whole, &expected) <= 1e-6 * terms as f64, "{}", furthest(&whole, &expected));
            prop_assert!(whole == computed(shape, turned, parts).0);
        }
    }
}

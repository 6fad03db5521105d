//! The points of a curve ordered by x, with the extremes and quantiles of any range kept up to
//! date.
//!
//! Adding a point costs O(log n). The lowest and highest point of a range come from a tree with
//! sixteen children per node, and the value below which most points of a stage lie from two heaps;
//! neither reads the points again. The screen and the snapshots for the wire are drawn from this.
//! Start at [`Series::bounds`].

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::ops::{Deref, Range};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Children of a node.
const FAN_OUT: usize = 16;
/// The share of a stage's points below [`Spread::usual`], in percent.
const USUAL_PERCENT: usize = 95;

/// A point of the stage's own objective.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepPoint {
    /// Stage, counted from 0.
    pub stage: usize,
    /// Completed updates.
    pub step: u64,
    /// Tokens read so far.
    pub tokens: u64,
    /// Nats per scored target.
    #[serde(with = "crate::record::number")]
    pub loss: f64,
}

/// Points in step order, readable as a slice. A copy costs nothing until one of the two grows.
#[derive(Debug, Clone, Default)]
pub struct Series(Arc<Inner>);

#[derive(Debug, Clone, Default)]
struct Inner {
    points: Vec<StepPoint>,
    /// `levels[0]` has a node for every sixteen points, each further level one for every sixteen
    /// nodes below.
    levels: Vec<Vec<Option<Bounds>>>,
    /// Ranges of points that are not finite.
    gaps: Vec<Range<usize>>,
    stages: Vec<StageSeries>,
}

/// Where the lowest and the highest finite point of a range are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Index of the lowest; the first on a tie.
    pub lowest: usize,
    /// Index of the highest; the first on a tie.
    pub highest: usize,
}

/// Distribution of the finite losses of a stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Number of finite losses.
    pub count: usize,
    /// Lowest loss.
    pub lo: f64,
    /// Highest loss.
    pub hi: f64,
    /// The 95th percentile of the losses.
    pub usual: f64,
}

/// The points of one stage, which are contiguous.
#[derive(Debug, Clone)]
struct StageSeries {
    start: usize,
    quantile: Quantile,
}

/// The numbers below a quantile, and those from it on.
#[derive(Debug, Clone, Default)]
struct Quantile {
    below: BinaryHeap<Number>,
    above: BinaryHeap<Reverse<Number>>,
    lo: Option<Number>,
    hi: Option<Number>,
}

/// A number under the total order of floating-point numbers.
#[derive(Debug, Clone, Copy)]
struct Number(f64);

impl Series {
    /// Appends a point.
    pub fn push(&mut self, point: StepPoint) {
        Arc::make_mut(&mut self.0).push(point);
    }

    /// Keeps the points whose step satisfies `is_kept`; costs as much as rebuilding.
    pub fn retain(&mut self, is_kept: impl Fn(u64) -> bool) {
        if !self.iter().all(|point| is_kept(point.step)) {
            *self = self.iter().copied().filter(|point| is_kept(point.step)).collect();
        }
    }

    /// The points of each stage, in order.
    pub fn stages(&self) -> impl DoubleEndedIterator<Item = Range<usize>> {
        let ends = self
            .0
            .stages
            .iter()
            .skip(1)
            .map(|stage| stage.start)
            .chain([self.0.points.len()])
            .collect::<Vec<_>>();
        self.0
            .stages
            .iter()
            .map(|stage| stage.start)
            .zip(ends)
            .map(|(start, end)| start..end)
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Distribution of the losses of the stage whose points begin at `start`; `None` if none is
    /// finite.
    #[must_use]
    pub fn spread(&self, start: usize) -> Option<Spread> {
        let idx = self.0.stages.binary_search_by_key(&start, |stage| stage.start).ok()?;
        self.0.stages[idx].quantile.spread()
    }

    /// Ranges of points within `range` that are not finite.
    pub fn gaps(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let first = self.0.gaps.partition_point(|gap| gap.end <= range.start);
        let gaps = self.0.gaps[first..].iter();
        gaps.take_while(move |gap| gap.start < range.end)
            .map(move |gap| gap.start.max(range.start)..gap.end.min(range.end))
    }

    /// Lowest and highest finite point of `range`, without reading most of its points.
    #[must_use]
    pub fn bounds(&self, range: Range<usize>) -> Option<Bounds> {
        let own = |idx: usize| {
            self.0.points[idx].loss.is_finite().then_some(Bounds { lowest: idx, highest: idx })
        };
        let (mut start, mut end) = (range.start, range.end.min(self.0.points.len()));
        let (mut before, mut after) = (None, None);
        let mut level = 0;
        // At each level, the ends that do not fill a node are merged, and the rest is looked up one
        // level higher.
        while start < end {
            let node =
                |idx: usize| if level == 0 { own(idx) } else { self.0.levels[level - 1][idx] };
            let is_last = level == self.0.levels.len();
            while start < end && (is_last || start % FAN_OUT != 0) {
                before = self.0.merged(before, node(start));
                start += 1;
            }
            while start < end && end % FAN_OUT != 0 {
                end -= 1;
                after = self.0.merged(node(end), after);
            }
            (start, end) = (start / FAN_OUT, end / FAN_OUT);
            level += 1;
        }
        self.0.merged(before, after)
    }

    /// At most about `limit` points: first, last, lowest and highest of each piece of equal width
    /// in tokens, and if it is not finite everywhere, a point of its first and of its last gap.
    #[must_use]
    pub fn thinned(&self, limit: usize) -> Self {
        let (Some(first), Some(last)) = (self.0.points.first(), self.0.points.last()) else {
            return Self::default();
        };
        if self.0.points.len() <= limit {
            return self.clone();
        }
        let pieces = (limit / 4).max(1) as u64;
        let width = (last.tokens.saturating_sub(first.tokens) / pieces).max(1);
        let piece_of = |point: &StepPoint| point.tokens.saturating_sub(first.tokens) / width;
        let mut kept = Vec::with_capacity(limit + 4);
        for stage in self.stages() {
            let mut start = stage.start;
            while start < stage.end {
                let piece = piece_of(&self.0.points[start]);
                let end = start
                    + self.0.points[start..stage.end]
                        .partition_point(|point| piece_of(point) <= piece);
                kept.extend([start, end - 1]);
                kept.extend(
                    self.bounds(start..end)
                        .iter()
                        .flat_map(|bounds| [bounds.lowest, bounds.highest]),
                );
                let mut gaps = self.gaps(start..end).map(|gap| gap.start);
                kept.extend(gaps.next());
                kept.extend(gaps.last());
                start = end;
            }
        }
        kept.sort_unstable();
        kept.dedup();
        kept.into_iter().map(|idx| self.0.points[idx]).collect()
    }
}

impl Inner {
    fn push(&mut self, point: StepPoint) {
        let idx = self.points.len();
        self.points.push(point);
        if self.points.get(idx.wrapping_sub(1)).is_none_or(|before| before.stage != point.stage) {
            self.stages.push(StageSeries { start: idx, quantile: Quantile::default() });
        }
        if !point.loss.is_finite() {
            match self.gaps.last_mut() {
                Some(gap) if gap.end == idx => gap.end = idx + 1,
                _ => self.gaps.push(idx..idx + 1),
            }
        } else if let Some(stage) = self.stages.last_mut() {
            stage.quantile.push(Number(point.loss));
        }
        let own = point.loss.is_finite().then_some(Bounds { lowest: idx, highest: idx });
        let mut node = idx;
        let mut level = 0;
        // Upwards until a level has one node.
        while level == 0 || self.levels[level - 1].len() > 1 {
            node /= FAN_OUT;
            if level == self.levels.len() {
                // The points below already belong to the new node as well.
                let all = self.levels.last().map_or(own, |below| {
                    below.iter().copied().reduce(|a, b| self.merged(a, b)).flatten()
                });
                self.levels.push(vec![all]);
            } else if let Some(old) = self.levels[level].get(node).copied() {
                self.levels[level][node] = self.merged(old, own);
            } else {
                self.levels[level].push(own);
            }
            level += 1;
        }
    }

    /// Merges the bounds of two adjacent ranges.
    fn merged(&self, first: Option<Bounds>, second: Option<Bounds>) -> Option<Bounds> {
        let (Some(first), Some(second)) = (first, second) else { return first.or(second) };
        let is_below = |a: usize, b: usize| {
            self.points[a].loss.total_cmp(&self.points[b].loss) == Ordering::Less
        };
        Some(Bounds {
            lowest: if is_below(second.lowest, first.lowest) {
                second.lowest
            } else {
                first.lowest
            },
            highest: if is_below(first.highest, second.highest) {
                second.highest
            } else {
                first.highest
            },
        })
    }
}

impl Spread {
    /// Distribution of `values`; `None` if none is finite.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut quantile = Quantile::default();
        values
            .into_iter()
            .filter(|value| value.is_finite())
            .for_each(|value| quantile.push(Number(value)));
        quantile.spread()
    }
}

impl Quantile {
    fn push(&mut self, number: Number) {
        self.lo = Some(self.lo.map_or(number, |lo| lo.min(number)));
        self.hi = Some(self.hi.map_or(number, |hi| hi.max(number)));
        if self.above.peek().is_none_or(|Reverse(least)| number >= *least) {
            self.above.push(Reverse(number));
        } else {
            self.below.push(number);
        }
        let count = self.below.len() + self.above.len();
        // The number at this index in sorted order is the least of those above.
        let idx = count * USUAL_PERCENT / 100;
        while self.below.len() < idx {
            self.below.extend(self.above.pop().map(|Reverse(number)| number));
        }
        while self.below.len() > idx {
            self.above.extend(self.below.pop().map(Reverse));
        }
    }

    fn spread(&self) -> Option<Spread> {
        let (Number(lo), Number(hi), Reverse(Number(usual))) =
            (self.lo?, self.hi?, *self.above.peek()?);
        Some(Spread { count: self.below.len() + self.above.len(), lo, hi, usual })
    }
}

impl Deref for Series {
    type Target = [StepPoint];

    fn deref(&self) -> &[StepPoint] {
        &self.0.points
    }
}

impl FromIterator<StepPoint> for Series {
    fn from_iter<I: IntoIterator<Item = StepPoint>>(points: I) -> Self {
        let mut series = Self::default();
        points.into_iter().for_each(|point| series.push(point));
        series
    }
}

/// Compares the points only; everything else is derived from them.
impl PartialEq for Series {
    fn eq(&self, other: &Self) -> bool {
        self.0.points == other.0.points
    }
}

impl Serialize for Series {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.points.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Series {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<StepPoint>::deserialize(deserializer)?.into_iter().collect())
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series() -> impl Strategy<Value = Series> {
        let loss = prop_oneof![8 => 0.0..10.0f64, 1 => Just(3.0), 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)];
        prop::collection::vec((loss, prop::bool::weighted(0.01)), 0..900).prop_map(|points| {
            let mut stage = 0;
            points
                .into_iter()
                .zip(1..)
                .map(|((loss, is_next), step)| {
                    stage += usize::from(is_next);
                    StepPoint { stage, step, tokens: 10 * step, loss }
                })
                .collect()
        })
    }

    fn lowest_and_highest(points: &[StepPoint]) -> Option<(f64, f64)> {
        let finite = || points.iter().map(|point| point.loss).filter(|loss| loss.is_finite());
        Some((finite().reduce(f64::min)?, finite().reduce(f64::max)?))
    }

    proptest! {
        #[test]
        fn any_stretch_has_the_bounds_and_gaps_of_its_points(series in series(), a in 0..900usize, b in 0..900usize) {
            let range = a.min(b).min(series.len())..a.max(b).min(series.len());
            let found = series.bounds(range.clone()).map(|bounds| (series[bounds.lowest].loss, series[bounds.highest].loss));
            prop_assert_eq!(found, lowest_and_highest(&series[range.clone()]));
            let gaps = series.gaps(range.clone()).flatten().collect::<Vec<_>>();
            prop_assert_eq!(gaps, range.filter(|idx| !series[*idx].loss.is_finite()).collect::<Vec<_>>());
        }

        #[test]
        fn a_stage_has_the_spread_of_its_points(series in series()) {
            for stage in series.stages() {
                let mut finite = series[stage.clone()].iter().map(|point| point.loss).filter(|loss| loss.is_finite()).collect::<Vec<_>>();
                finite.sort_by(f64::total_cmp);
                let expected = (!finite.is_empty()).then(|| (finite.len(), finite[0], finite[finite.len() - 1], finite[finite.len() * 95 / 100]));
                prop_assert_eq!(series.spread(stage.start).map(|spread| (spread.count, spread.lo, spread.hi, spread.usual)), expected);
            }
        }

        #[test]
        fn a_thinned_series_keeps_ends_bounds_and_gaps_of_every_stage(series in series(), limit in 4..200usize) {
            let thinned = series.thinned(limit);
            prop_assert!(thinned.len() <= series.len());
            prop_assert_eq!(thinned.stages().count(), series.stages().count());
            for (old, new) in series.stages().zip(thinned.stages()) {
                let (old, new) = (&series[old], &thinned[new]);
                prop_assert_eq!((old[0].step, old[old.len() - 1].step), (new[0].step, new[new.len() - 1].step));
                prop_assert_eq!(lowest_and_highest(old), lowest_and_highest(new));
                prop_assert_eq!(old.iter().any(|point| !point.loss.is_finite()), new.iter().any(|point| !point.loss.is_finite()));
            }
        }
    }

    #[test]
    fn a_rewound_series_is_like_one_that_never_went_further() {
        let point = |step| StepPoint {
            stage: usize::from(step > 50),
            step,
            tokens: step,
            loss: 1.0 / step as f64,
        };
        let mut rewound = (1..=100).map(point).collect::<Series>();
        rewound.retain(|step| step <= 40);
        let short = (1..=40).map(point).collect::<Series>();
        assert_eq!(
            (rewound.0.levels.clone(), rewound.stages().count(), rewound.spread(0)),
            (short.0.levels.clone(), 1, short.spread(0))
        );
    }
}

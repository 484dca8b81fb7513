//! How the templates of all people lie: what a comparison with a stranger gives follows from it.

use super::Template;

/// Statistics of the templates of many people. Of nobody in particular: a mean, and three spreads.
#[derive(Clone, PartialEq)]
pub struct Population {
    mean: Vec<f32>,
    /// Of templates from the mean: mean and standard deviation.
    squared_distance: (f64, f64),
    /// How far a stranger's template lies along a direction from the mean: the standard deviation.
    along: f64,
}

impl std::fmt::Debug for Population {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Population({} values)", self.mean.len())
    }
}

/// Templates that statistics need, at least: fewer would show in them.
pub const LEAST_TEMPLATES: usize = 20;

/// Turns a median of absolute deviations into the standard deviation of a normal distribution.
const DEVIATIONS_PER_MEDIAN: f64 = 1.4826;

/// Photos of one person differ less in directions in which people differ. A stranger's template that is drawn alike in all directions
/// moves the scores of photos of one person too much, or those of several people too little: this is in between (docs/accuracy.md).
const IN_BETWEEN: f64 = 0.85;

impl Population {
    /// `None` unless there are values, all are finite, and spreads are not negative.
    pub fn new(mean: Vec<f32>, squared_distance: (f64, f64), along: f64) -> Option<Self> {
        let spreads = [squared_distance.0, squared_distance.1, along];
        let good = !mean.is_empty()
            && mean.len() <= Template::MAX_DIMENSION
            && mean.iter().all(|v| v.is_finite())
            && spreads.iter().all(|v| v.is_finite() && *v >= 0.0);
        good.then_some(Self { mean, squared_distance, along })
    }

    /// Of templates of one dimension, of people most of whom have few of them; `None` for fewer than [`LEAST_TEMPLATES`].
    pub fn of(templates: &[&[f32]]) -> Option<Self> {
        let (count, dimension) = (templates.len() as f64, templates.first()?.len());
        if templates.len() < LEAST_TEMPLATES || templates.iter().any(|t| t.len() != dimension) {
            return None;
        }
        let mean = |at: usize| templates.iter().map(|t| t.get(at).map_or(0.0, |v| f64::from(*v))).sum::<f64>() / count;
        let mean: Vec<f64> = (0..dimension).map(mean).collect();
        let apart: Vec<Vec<f64>> =
            templates.iter().map(|t| t.iter().zip(&mean).map(|(v, m)| f64::from(*v) - m).collect()).collect();
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let squared: Vec<f64> = apart.iter().map(|t| product(t, t)).collect();
        let distance = squared.iter().sum::<f64>() / count;
        let deviation = (squared.iter().map(|d| (d - distance).powi(2)).sum::<f64>() / count).sqrt();
        // By medians: those few pairs that are of one person are far from the others.
        let others = |at: usize| (0..apart.len()).filter(move |other| *other != at);
        let along: Vec<f64> = (apart.iter().zip(&squared).enumerate())
            .filter(|(_, (_, squared))| **squared > 0.0)
            .flat_map(|(at, (own, squared))| others(at).map(move |other| (own, squared, other)))
            .filter_map(|(own, squared, other)| Some(product(own, apart.get(other)?) / squared.sqrt()))
            .collect();
        let middle = median(along.clone());
        let along =
            IN_BETWEEN * DEVIATIONS_PER_MEDIAN * median(along.into_iter().map(|v| (v - middle).abs()).collect());
        Self::new(mean.into_iter().map(|v| v as f32).collect(), (distance, deviation), along)
    }

    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Of templates from the mean: mean and standard deviation.
    pub fn squared_distance(&self) -> (f64, f64) {
        self.squared_distance
    }

    /// How far a stranger's template lies along a direction from the mean: the standard deviation.
    pub fn along(&self) -> f64 {
        self.along
    }

    /// What `compare` of `probe` and a stranger's template would give: a template that lies, from the mean, `distance` standard
    /// deviations farther than others, and as the standard normal numbers of `direction` say along each value.
    pub fn stranger(&self, probe: &Template, distance: f64, direction: impl Iterator<Item = f64>) -> f64 {
        let (mut squared, mut product) = (0.0, 0.0);
        for ((value, mean), normal) in probe.values().iter().zip(&self.mean).zip(direction) {
            let apart = f64::from(*value) - f64::from(*mean);
            squared += apart * apart;
            product += apart * normal;
        }
        let (mean, deviation) = self.squared_distance;
        1.0 - (squared + (mean + deviation * distance).max(0.0)) / 2.0 + self.along * product
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(middle, f64::total_cmp).1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_of_many() {
        let rows: Vec<Vec<f32>> = (0..20_u8).map(|n| vec![3.0, if n % 2 == 0 { 1.0 } else { -1.0 }]).collect();
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        assert_eq!(Population::of(&rows[..19]), None);
        let all = Population::of(&rows).unwrap();
        assert_eq!((all.mean(), all.squared_distance()), ([3.0, 0.0].as_slice(), (1.0, 0.0)));
        assert_eq!(Population::new(vec![f32::NAN], (1.0, 0.0), 1.0), None);
        assert_eq!(Population::new(vec![0.0], (1.0, -1.0), 1.0), None);
        assert_eq!(format!("{all:?}"), "Population(2 values)");
    }
}

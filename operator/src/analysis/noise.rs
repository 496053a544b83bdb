//! The long-run variance of a series: how much its mean moves, neighbours being alike.
//!
//! Checkpoints, caches and neighbours make the noise of an arm last for longer than a block. The
//! autocovariances are fitted with the shape of an ARMA(1,1) process (measurement noise plus a part
//! that fades by a factor ρ from block to block). How fast it fades is never known well, so the largest
//! long-run variance among all the fits that explain the data about as well as the best is taken, not
//! the best one's. Batch means and a plain AR(1) fit, tried on the same series, were too confident by
//! an order of magnitude.
//!
//! Pure arithmetic: nothing here knows what the numbers mean.

/// Autocovariances are fitted up to this lag.
const LAGS: usize = 40;
/// Values of ρ that are tried.
const GRID: u32 = 60;
/// The largest ρ that is tried. With `n` values, none above 1 − 4/n can be told from a trend.
const LARGEST_RHO: f64 = 0.97;
/// A fit is as good as the best when its squared error is larger by less than this many variances of
/// one autocovariance (the 90 % point of χ² with one degree of freedom).
const AS_GOOD: f64 = 2.7;
/// The part that fades can't be much more than all there is.
const LARGEST_SHARE: f64 = 1.2;
/// Histograms resolve latency to 0.1 %; no series of logarithms is quieter than that.
const LEAST_VARIANCE: f64 = 1e-6;

/// How noisy the mean of a series is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Noise {
    /// Variance of the mean times the number of values, for many values.
    pub long_run_variance: f64,
    /// The same over the plain variance; at least 1.
    pub inflation: f64,
}

/// A series with its sums of lagged products, kept up to date value by value.
#[derive(Debug, Clone, Default)]
pub(super) struct Autocovariances {
    /// The values less the first one, so that sums lose no digits.
    centred: Vec<f64>,
    first: f64,
    sum: f64,
    /// Σ `x[t]` · `x[t − lag]`, by lag from 0.
    products: Vec<f64>,
}

impl Autocovariances {
    pub(super) fn len(&self) -> usize {
        self.centred.len()
    }

    pub(super) fn mean(&self) -> f64 {
        self.first + self.sum / (self.len().max(1) as f64)
    }

    pub(super) fn push(&mut self, value: f64) {
        if self.centred.is_empty() {
            self.first = value;
            self.products = vec![0.0; LAGS + 1];
        }
        let value = value - self.first;
        self.centred.push(value);
        self.sum += value;
        for (product, earlier) in self.products.iter_mut().zip(self.centred.iter().rev()) {
            *product += value * earlier;
        }
    }

    /// The same series at half the resolution. An ARMA(1,1) series stays one.
    pub(super) fn averaged_in_pairs(&self) -> Self {
        let mut coarser = Self::default();
        for pair in self.centred.chunks_exact(2) {
            coarser.push(self.first + pair.iter().sum::<f64>() / 2.0);
        }
        coarser
    }

    /// Autocovariances at lags 0, 1, …, around the mean of the series, each from `n − lag` products.
    fn by_lag(&self, lags: usize) -> Vec<f64> {
        let count = self.len() as f64;
        let mean = self.sum / count;
        let (mut head, mut tail) = (0.0, 0.0);
        let ends = self.centred.iter().zip(self.centred.iter().rev());
        let mut covariances = Vec::with_capacity(lags + 1);
        for ((lag, product), (early, late)) in (0_u32..).zip(&self.products).take(lags + 1).zip(ends) {
            let terms = count - f64::from(lag);
            let sums = (self.sum - head) + (self.sum - tail);
            covariances.push((product - mean * sums + terms * mean * mean) / terms);
            head += early;
            tail += late;
        }
        covariances
    }
}

/// One fit: how fast the lasting part fades, its share of the variance, and how wrong the fit is.
struct Fit {
    rho: f64,
    share: f64,
    error: f64,
}

impl Fit {
    /// Long-run variance over plain variance.
    fn inflation(&self) -> f64 {
        1.0 + 2.0 * self.share * self.rho / (1.0 - self.rho)
    }
}

/// The largest long-run variance that the series is consistent with.
pub(super) fn long_run(series: &Autocovariances) -> Noise {
    let count = series.len() as f64;
    let lags = LAGS.min(series.len() / 3).max(1);
    let covariances = series.by_lag(lags);
    let variance = covariances.first().copied().unwrap_or(0.0).max(LEAST_VARIANCE);
    let correlations: Vec<f64> = covariances.iter().skip(1).map(|covariance| covariance / variance).collect();

    let largest_rho = LARGEST_RHO.min(1.0 - 4.0 / count).max(0.0);
    let fits: Vec<Fit> =
        (0..=GRID).map(|step| fit(&correlations, largest_rho * f64::from(step) / f64::from(GRID), count)).collect();
    let Some(best) = fits.iter().min_by(|a, b| a.error.total_cmp(&b.error)) else {
        return Noise { long_run_variance: variance, inflation: 1.0 };
    };
    // Bartlett: the variance of one estimated autocorrelation.
    let fading = best.share * best.rho;
    let scatter = (1.0 + 2.0 * fading * fading / (1.0 - best.rho * best.rho)) / count;
    let inflation = fits
        .iter()
        .filter(|fit| fit.error <= best.error + AS_GOOD * scatter)
        .map(Fit::inflation)
        .fold(1.0, f64::max)
        // The mean that was taken off is the series' own.
        * count
        / (count - 1.0).max(1.0);
    Noise { long_run_variance: variance * inflation, inflation }
}

/// The best share of a part that fades by `rho`, by weighted least squares over the lags.
///
/// Taking off the series' own mean lowers every autocorrelation by about the long-run variance over
/// `count`; the model is lowered alike, or slow noise would hide itself.
fn fit(correlations: &[f64], rho: f64, count: f64) -> Fit {
    let own_mean = 1.0 / (count - 1.0).max(1.0);
    let lowered = 2.0 * rho / (1.0 - rho) * own_mean;
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    let mut power = 1.0;
    for (lag, correlation) in (1_u32..).zip(correlations) {
        power *= rho;
        let weight = 1.0 - f64::from(lag) / count;
        let model = power - lowered;
        let observed = correlation + own_mean;
        xx += weight * model * model;
        xy += weight * model * observed;
        yy += weight * observed * observed;
    }
    let share = if xx > 1e-12 { (xy / xx).clamp(0.0, LARGEST_SHARE) } else { 0.0 };
    Fit { rho, share, error: yy - 2.0 * share * xy + share * share * xx }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: impl IntoIterator<Item = f64>) -> Autocovariances {
        let mut series = Autocovariances::default();
        for value in values {
            series.push(value);
        }
        series
    }

    #[test]
    fn autocovariances_agree_with_the_definition() {
        let values: Vec<f64> = (0..50).map(|i| 1000.0 + f64::from(i * i % 17)).collect();
        let got = series(values.iter().copied()).by_lag(5);
        let mean = values.iter().sum::<f64>() / 50.0;
        for (lag, got) in got.iter().enumerate() {
            let products: f64 = (lag..50).map(|t| (values[t] - mean) * (values[t - lag] - mean)).sum();
            let expected = products / (50 - lag) as f64;
            assert!((got - expected).abs() < 1e-6, "lag {lag}: {got} instead of {expected}");
        }
    }

    #[test]
    fn a_series_that_never_moves_has_the_noise_of_the_clock() {
        let noise = long_run(&series([0.25; 30]));
        assert!(noise.long_run_variance >= LEAST_VARIANCE && noise.long_run_variance.is_finite());
        assert!(noise.inflation >= 1.0);
    }

    #[test]
    fn averaging_in_pairs_keeps_the_mean() {
        let fine = series((0..100).map(f64::from));
        let coarse = fine.averaged_in_pairs();
        assert_eq!(coarse.len(), 50);
        assert!((coarse.mean() - fine.mean()).abs() < 1e-9);
    }
}

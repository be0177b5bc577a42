//! Medians, quantiles and how far rounds lie apart.

/// The value below which this part of sorted values lies.
pub fn quantile<T: Copy + Default>(sorted: &[T], part: f64) -> T {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank, between 0 and the length"
    )]
    let rank = (float(sorted.len()) * part) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(rank.min(last)).copied().unwrap_or_default()
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

/// How far the middle half of the values lies apart, in percent of their median: one round that a
/// stranger disturbed does not count, a machine that is busy all the time does.
pub fn spread_percent(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let outside = values.len() / 4;
    let middle = &values[outside..values.len() - outside];
    match (middle.first(), middle.last()) {
        (Some(least), Some(most)) if *most > 0.0 => 100.0 * (most - least) / quantile(&values, 0.5),
        _ => 0.0,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub fn float(count: usize) -> f64 {
    count as f64
}

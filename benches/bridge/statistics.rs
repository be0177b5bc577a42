//! Medians, quantiles and spreads.

/// The value below which this share of the sorted values lies.
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

/// The middle value; for an even number of values, the mean of the middle two.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len().is_multiple_of(2) && half > 0 {
        return f64::midpoint(values[half - 1], values[half]);
    }
    quantile(&values, 0.5)
}

/// The range of the middle half of the values, in percent of their median: a single disturbed round
/// does not count, a machine that is busy all the time does.
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

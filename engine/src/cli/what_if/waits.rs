//! What a what-if says of orders that wait for channels.

use croupier_protocol::Priority;
use serde_json::{Value, json};

use super::super::engine_seam::{Assumed, Compared, Comparison, Figures, Peak};
use super::super::error::CliError;
use super::super::print::Grid;
use super::super::records::rfc3339;
use super::difference;

pub(super) fn to_json(waits: &Comparison) -> Value {
    let compared = |key: &str, name: &str, compared: &Compared| {
        json!({
            key: name,
            "recorded": figures_json(&compared.recorded),
            "before": figures_json(&compared.before),
            "after": figures_json(&compared.after),
        })
    };
    let channels = waits.channels.iter();
    let channels = channels.map(|(name, of)| compared("channel", name, of));
    let lanes =
        Priority::ALL.map(|lane| compared("lane", lane.name(), &waits.lanes[lane.as_index()]));
    let assumed = waits.assumed.iter().map(|one: &Assumed| {
        let from = if one.is_said { "said" } else { "timeout" };
        json!({ "channel": one.channel, "latency_ms": one.latency_ms, "from": from })
    });
    let both = |[before, after]: [u64; 2]| json!({ "before": before, "after": after });
    json!({
        "channels": channels.collect::<Vec<_>>(),
        "lanes": lanes,
        "assumed": assumed.collect::<Vec<_>>(),
        "for_stock": both(waits.for_stock),
        "over": both(waits.over),
        "left": both(waits.left),
        "table_unknown": waits.table_unknown,
    })
}

fn figures_json(figures: &Figures) -> Value {
    let wait = |ms: u64| (figures.orders > 0).then_some(ms);
    let depth = figures.depth;
    json!({
        "orders": figures.orders,
        "outside": figures.outside,
        "jobs_most": figures.jobs_most,
        "depth_most": depth.map(|peak| peak.most),
        "depth_mean": depth.map(|peak| peak.mean_e3 as f64 / 1000.0),
        "depth_at": depth.and_then(at),
        "p50_ms": wait(figures.p50_ms),
        "p99_ms": wait(figures.p99_ms),
        "most_ms": wait(figures.most_ms),
    })
}

/// When it was that deep.
fn at(peak: Peak) -> Option<String> {
    (peak.most > 0).then(|| rfc3339(peak.most_at_ms))
}

pub(super) fn print(waits: &Comparison) -> Result<(), CliError> {
    let is_told = |of: &Compared| {
        let Compared {
            recorded,
            before,
            after,
        } = of;
        recorded.orders + before.orders + after.orders > 0
    };
    let columns = [
        "channel",
        "",
        ">orders",
        ">most jobs",
        ">most queued",
        ">mean",
        "at",
        ">P50 ms",
        ">P99 ms",
    ];
    let mut grid = Grid::new(&columns);
    for (name, of) in &waits.channels {
        add(&mut grid, name, of, |figures| figures.jobs_most);
    }
    grid.print()?;
    let columns = [
        "lane",
        "",
        ">orders",
        ">outside",
        ">most waiting",
        ">mean",
        "at",
        ">P50 ms",
        ">P99 ms",
    ];
    let mut grid = Grid::new(&columns);
    for lane in Priority::ALL {
        let of = &waits.lanes[lane.as_index()];
        if is_told(of) {
            add(&mut grid, lane.name(), of, |figures| Some(figures.outside));
        }
    }
    grid.print()
}

/// Four rows: as recorded, before, after, and the difference that the table makes.
fn add(grid: &mut Grid, name: &str, of: &Compared, third: impl Fn(&Figures) -> Option<u64>) {
    let Compared {
        recorded,
        before,
        after,
    } = of;
    let text = |number: Option<u64>| number.map_or("–".to_owned(), |number| number.to_string());
    let sides = [
        (name, "recorded", recorded),
        ("", "before", before),
        ("", "after", after),
    ];
    for (name, side, figures) in sides {
        let depth = figures.depth;
        let wait = |ms: u64| text((figures.orders > 0).then_some(ms));
        grid.row([
            name.to_owned(),
            side.to_owned(),
            figures.orders.to_string(),
            text(third(figures)),
            text(depth.map(|peak| peak.most)),
            depth.map_or("–".to_owned(), |peak| mean(peak.mean_e3 as i64)),
            depth.and_then(at).unwrap_or_else(|| "–".to_owned()),
            wait(figures.p50_ms),
            wait(figures.p99_ms),
        ]);
    }
    let by = |of: &dyn Fn(&Figures) -> u64| difference(of(before), of(after));
    let both_wait = before.orders > 0 && after.orders > 0;
    let wait = |of: &dyn Fn(&Figures) -> u64| if both_wait { by(of) } else { "–".to_owned() };
    let depth = |figures: &Figures| figures.depth.unwrap_or_default();
    let means = depth(after).mean_e3 as i64 - depth(before).mean_e3 as i64;
    grid.row([
        String::new(),
        "+/−".to_owned(),
        by(&|figures| figures.orders),
        by(&|figures| third(figures).unwrap_or_default()),
        by(&|figures| depth(figures).most),
        signed_mean(means),
        String::new(),
        wait(&|figures| figures.p50_ms),
        wait(&|figures| figures.p99_ms),
    ]);
}

/// Thousandths as a number with three places.
fn mean(e3: i64) -> String {
    format!("{}.{:03}", e3 / 1000, e3 % 1000)
}

fn signed_mean(e3: i64) -> String {
    match e3 {
        0 => "0".to_owned(),
        1.. => format!("+{}", mean(e3)),
        _ => format!("−{}", mean(-e3)),
    }
}

/// What is not in these tables, and what they rest on.
pub(super) fn summary(waits: &Comparison, mut say: impl FnMut(u64, String)) {
    let [before, after] = waits.for_stock;
    say(
        before + after,
        format!(
            "waits of {before} orders before and {after} after are not known: they are for stock, and no channel may be asked"
        ),
    );
    for one in waits.assumed.iter().filter(|one| one.is_said) {
        let Assumed {
            channel,
            latency_ms,
            ..
        } = one;
        say(
            1,
            format!("assumed: each job of channel {channel} lasts {latency_ms} ms"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_have_three_places_and_a_sign_when_they_are_differences() {
        assert_eq!([0, 7, 1_250].map(mean), ["0.000", "0.007", "1.250"]);
        let signed = [0, 1_250, -1_250, -7].map(signed_mean);
        assert_eq!(signed, ["0", "+1.250", "−1.250", "−0.007"]);
    }
}

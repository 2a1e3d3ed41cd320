//! A run's result as one page that needs nothing else: no script, no other file.

use std::fmt::Write as _;

use super::{
    report::Report,
    stats::{Percentiles, Slice},
};

/// The page.
pub fn page(report: &Report) -> String {
    let over_time = |of: fn(&Slice) -> Percentiles| {
        let curves = [
            ("p50", report.slices.iter().map(|slice| (slice.at, of(slice).p50)).collect()),
            ("p90", report.slices.iter().map(|slice| (slice.at, of(slice).p90)).collect()),
            ("p99", report.slices.iter().map(|slice| (slice.at, of(slice).p99)).collect()),
            ("max", report.slices.iter().map(|slice| (slice.at, of(slice).max)).collect()),
        ];
        lines(&curves)
    };
    let mut page = String::from(HEAD);
    let title = escape(&format!("chatload: {}", report.scenario));
    // Writing to a string does not fail.
    let _ = write!(
        page,
        "<title>{title}</title><h1>{title}</h1><pre>{table}</pre>\
         <h2>Latency until arrival, over time</h2>{arrivals}\
         <h2>Latency until the acknowledgement, over time</h2>{acks}\
         <p>Of the messages that should have been sent at that time, from then on.</p>\
         <h2>Messages acknowledged per part of the window</h2>{rates}\
         <h2>Histogram of latencies</h2>{histogram}\
         <h2>Settings</h2><pre>{settings}</pre><p>chatload {version}; {processors} processors, {model}, Linux {kernel}</p>",
        table = escape(&report.to_string()),
        arrivals = over_time(|slice| slice.delivery),
        acks = over_time(|slice| slice.ack),
        rates = bars(
            &report
                .slices
                .iter()
                .map(|slice| (format!("{:.0} s", slice.at), slice.messages))
                .collect::<Vec<_>>()
        ),
        histogram = bars(&report.histogram.iter().map(|bar| (time(bar.to), bar.count)).collect::<Vec<_>>()),
        settings = escape(&serde_json::to_string_pretty(&report.settings).unwrap_or_default()),
        version = escape(&report.version),
        processors = report.machine.processors,
        model = escape(&report.machine.model),
        kernel = escape(&report.machine.kernel),
    );
    page
}

const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8>\
    <style>body{font:15px sans-serif;max-width:62em;margin:2em auto;padding:0 1em}pre{background:#f4f4f4;padding:1em;overflow:auto}\
    svg{width:100%;background:#fafafa}text{font:11px sans-serif}</style>";
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 260.0;
const MARGIN: f64 = 60.0;
const COLOURS: [&str; 4] = ["#2a7", "#28c", "#c80", "#c33"];

/// Microseconds in words.
fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.3} ms", us as f64 / 1_000.0),
        _ => format!("{:.3} s", us as f64 / 1_000_000.0),
    }
}

/// Curves of latencies over seconds; the upright axis is logarithmic.
fn lines(curves: &[(&str, Vec<(f64, u64)>)]) -> String {
    let values = || curves.iter().flat_map(|(_, points)| points).filter(|(_, us)| *us > 0);
    let Some(highest) = values().map(|(_, us)| *us).max() else { return "<p>Nothing.</p>".into() };
    let lowest = values().map(|(_, us)| *us).min().unwrap_or(1);
    let last = values().map(|(at, _)| *at).fold(1.0, f64::max);
    let (bottom, top) = ((lowest as f64).log10().floor(), (highest as f64).log10().ceil());
    let decades = (top - bottom).max(1.0);
    let x = |at: f64| MARGIN + at / last * (WIDTH - 2.0 * MARGIN);
    let y = |us: f64| HEIGHT - 25.0 - (us.log10() - bottom) / decades * (HEIGHT - 45.0);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\">");
    for decade in 0..=decades as u32 {
        let us = 10_f64.powf(bottom + f64::from(decade));
        let (at, name) = (y(us), time(us as u64));
        let _ = write!(
            svg,
            "<path d=\"M{MARGIN} {at:.1}H{}\" stroke=\"#ddd\"/><text x=4 y={at:.1}>{name}</text>",
            WIDTH - MARGIN
        );
    }
    for at in [0.0, last / 2.0, last] {
        let _ = write!(svg, "<text x={:.1} y={}>{at:.0} s</text>", x(at), HEIGHT - 6.0);
    }
    for (nth, (name, points)) in curves.iter().enumerate() {
        let colour = COLOURS[nth % COLOURS.len()];
        let path: String = points
            .iter()
            .filter(|(_, us)| *us > 0)
            .map(|(at, us)| format!("{:.1},{:.1} ", x(*at), y(*us as f64)))
            .collect();
        let _ = write!(
            svg,
            "<polyline points=\"{path}\" fill=none stroke=\"{colour}\" stroke-width=1.5 />\
             <text x={} y={} fill=\"{colour}\">{name}</text>",
            WIDTH - MARGIN + 8.0,
            20.0 + 16.0 * nth as f64,
        );
    }
    svg + "</svg>"
}

/// Bars with a name each.
fn bars(values: &[(String, u64)]) -> String {
    let Some(highest) = values.iter().map(|(_, count)| *count).max().filter(|count| *count > 0) else {
        return "<p>Nothing.</p>".into();
    };
    let width = (WIDTH - 2.0 * MARGIN) / values.len() as f64;
    // Names need room.
    let every = (values.len() / 10).max(1);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\"><text x=4 y=20>{highest}</text>");
    for (nth, (name, count)) in values.iter().enumerate() {
        let x = MARGIN + width * nth as f64;
        let height = *count as f64 / highest as f64 * (HEIGHT - 45.0);
        let name = escape(name);
        let _ = write!(
            svg,
            "<rect x={x:.1} y={:.1} width={:.1} height={height:.1} fill=\"#28c\"><title>{name}: {count}</title></rect>",
            HEIGHT - 25.0 - height,
            width * 0.9,
        );
        if nth % every == 0 {
            let _ = write!(svg, "<text x={x:.1} y={}>{name}</text>", HEIGHT - 6.0);
        }
    }
    svg + "</svg>"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_draw_is_said() {
        assert_eq!(lines(&[("p50", vec![])]), "<p>Nothing.</p>");
        assert_eq!(bars(&[]), "<p>Nothing.</p>");
        assert_eq!(bars(&[("a".into(), 0)]), "<p>Nothing.</p>");
    }

    #[test]
    fn what_is_drawn_lies_inside() {
        let svg =
            lines(&[("p50", vec![(0.0, 1), (5.0, 999_999)]), ("max", vec![(0.0, 50), (5.0, 3_000_000)])]);
        for point in svg.split("points=\"").skip(1).flat_map(|part| part.split('"').take(1)) {
            for pair in point.split_ascii_whitespace() {
                let (x, y) = pair.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y), "{pair}");
            }
        }
        assert!(bars(&[("<b>".into(), 3)]).contains("&lt;b&gt;: 3"));
    }
}

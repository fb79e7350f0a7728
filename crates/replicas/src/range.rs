//! Time range that a query reads, according to its parameters.

use metrifold_http::form::Form;
use metrifold_promql::{At, Duration, Expr, NodeKind, Offset, Options, parse};

/// Prometheus' default lookback for the newest sample of a series, in milliseconds.
const LOOKBACK: i64 = 300_000;

/// Nanoseconds in a millisecond.
const NANOS: i64 = 1_000_000;

/// Parameters of a query, from its URL and from its body if that is a form.
pub(crate) struct Parameters(Vec<Form>);

impl Parameters {
    /// Reads the parameters. Invalid ones are skipped: the replica will refuse them.
    pub(crate) fn read(query: Option<&str>, form: Option<&[u8]>) -> Self {
        let form = form.and_then(|form| std::str::from_utf8(form).ok());
        // A parameter of the form takes precedence over the URL's, as in Go.
        let texts = form.into_iter().chain(query);
        Self(texts.filter_map(|text| Form::parse(text).ok()).collect())
    }

    /// The first value of a parameter.
    pub(crate) fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.0.iter().find_map(|form| form.values(name).next())
    }

    fn time(&self, name: &str) -> Option<i64> {
        time(self.get(name)?)
    }

    /// The time range that a query to `path` reads, in milliseconds since the epoch. `None` if the
    /// parameters do not tell.
    pub(crate) fn range(&self, path: &str, now: i64) -> Option<(i64, i64)> {
        let (start, end) = match path {
            "/api/v1/query" => {
                let time = match self.get("time") {
                    Some(time) => self::time(time)?,
                    None => now,
                };
                (time, time)
            }
            "/api/v1/query_range" | "/api/v1/query_exemplars" => {
                (self.time("start")?, self.time("end")?)
            }
            "/api/v1/series" | "/api/v1/labels" => {
                return Some((self.time("start")?, self.time("end")?));
            }
            _ if path.starts_with("/api/v1/label/") => {
                return Some((self.time("start")?, self.time("end")?));
            }
            _ => return None,
        };
        let text = self.get("query")?;
        let parsed = parse(text, &Options::default()).ok();
        let reach = parsed.and_then(|expr| reach(&expr, start, end));
        Some(reach.unwrap_or((start.saturating_sub(LOOKBACK), end)))
    }
}

/// The time range that an expression reads when it is evaluated from `start` to `end`. `None` if it
/// has computed durations.
fn reach(expr: &Expr, start: i64, end: i64) -> Option<(i64, i64)> {
    let mut found: Option<(i64, i64)> = None;
    // The tree is walked without recursion, however deep it is.
    let mut left = vec![(expr.root(), start, end)];
    while let Some((id, from, to)) = left.pop() {
        match &expr[id].kind {
            NodeKind::Selector(selector) => {
                let (from, to) = moved(
                    selector.at.as_ref(),
                    selector.offset,
                    (from, to),
                    (start, end),
                )?;
                let from = from.saturating_sub(LOOKBACK);
                found = Some(match found {
                    Some((first, last)) => (first.min(from), last.max(to)),
                    None => (from, to),
                });
            }
            NodeKind::Range(range) => {
                let length = fixed(range.range)?;
                left.push((range.selector, from.saturating_sub(length), to));
            }
            NodeKind::Subquery(subquery) => {
                let (from, to) = moved(
                    subquery.at.as_ref(),
                    subquery.offset,
                    (from, to),
                    (start, end),
                )?;
                let length = fixed(subquery.range)?;
                left.push((subquery.expr, from.saturating_sub(length), to));
            }
            _ => left.extend(expr.children(id).map(|child| (child, from, to))),
        }
    }
    // An expression without a selector reads nothing.
    Some(found.unwrap_or((end, end)))
}

/// Applies `@` and `offset` to a range. With `@`, the length of enclosing ranges is kept.
fn moved(
    at: Option<&At>,
    offset: Offset,
    (from, to): (i64, i64),
    (start, end): (i64, i64),
) -> Option<(i64, i64)> {
    let offset = match offset {
        Offset::None => 0,
        Offset::Fixed(nanos) => nanos / NANOS,
        Offset::Computed(_) => return None,
    };
    let (from, to) = match at {
        None => (from, to),
        // The distance from `from` to the evaluation is the sum of the enclosing ranges.
        Some(at) => {
            let time = match at {
                At::Timestamp(millis) => *millis,
                At::Start => start,
                At::End => end,
            };
            (time.saturating_sub(start.saturating_sub(from).max(0)), time)
        }
    };
    Some((from.saturating_sub(offset), to.saturating_sub(offset)))
}

fn fixed(duration: Duration) -> Option<i64> {
    match duration {
        Duration::Fixed(nanos) => Some(nanos / NANOS),
        Duration::Computed(_) => None,
    }
}

/// A time as Prometheus accepts it, in milliseconds: seconds since the epoch, or RFC 3339.
pub(crate) fn time(text: &str) -> Option<i64> {
    if let Ok(secs) = text.parse::<f64>() {
        let millis = secs * 1000.0;
        return (millis.is_finite() && millis.abs() < 1e17).then_some(millis.round() as i64);
    }
    rfc3339(text)
}

/// Reads `2015-07-01T20:10:51.781Z` or `…+02:00`.
fn rfc3339(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't'])?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone);
    let mut clock = clock.splitn(3, ':');
    let hour: i64 = clock.next()?.parse().ok()?;
    let minute: i64 = clock.next()?.parse().ok()?;
    let second: f64 = clock.next()?.parse().ok()?;
    let offset = match zone {
        "Z" | "z" => 0,
        zone => {
            let (sign, zone) = zone.split_at(1);
            let (hours, minutes) = zone.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            if sign == "-" { -minutes } else { minutes }
        }
    };
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && (0..=9999).contains(&year);
    let valid = valid && (0..24).contains(&hour) && (0..60).contains(&minute);
    if !valid || !(0.0..61.0).contains(&second) {
        return None;
    }
    let minutes = days(year, month, day) * 1440 + hour * 60 + minute - offset;
    Some(minutes * 60_000 + (second * 1000.0).round() as i64)
}

/// Days since 1970-01-01, in the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day comes last.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let in_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + in_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(path: &str, query: &str) -> Option<(i64, i64)> {
        let range = Parameters::read(Some(query), None).range(path, 1_000_000_000);
        range.map(|(start, end)| (start / 1000, end / 1000))
    }

    #[test]
    fn the_form_takes_precedence_over_the_url() {
        let form = &b"query=b&end=20000"[..];
        let parameters = Parameters::read(Some("query=a&start=10000&end=1"), Some(form));
        let read = ["query", "start", "end", "step"].map(|name| parameters.get(name));
        assert_eq!(read, [Some("b"), Some("10000"), Some("20000"), None]);
    }

    #[test]
    fn a_query_reads_as_far_back_as_its_selectors_ranges_and_offsets_say() {
        let path = "/api/v1/query_range";
        for (query, expected) in [
            ("up", (9_700, 20_000)),
            ("rate(x[1h])", (6_100, 20_000)),
            ("x+offset+1h", (6_100, 16_400)),
            ("x+offset+-1h", (13_300, 23_600)),
            ("max_over_time(rate(x[5m])[1h:1m])", (5_800, 20_000)),
            ("up+%2B+x+offset+1d", (-76_700, 20_000)),
            ("x+@+5000", (4_700, 5_000)),
            ("rate(x[1h]+@+end())", (16_100, 20_000)),
            ("1", (20_000, 20_000)),
            ("wrong(", (9_700, 20_000)),
        ] {
            let found = range(
                path,
                &format!("query={query}&start=10000&end=20000&step=15"),
            );
            assert_eq!(found, Some(expected), "{query}");
        }
    }

    #[test]
    fn other_endpoints_read_what_they_say() {
        for (path, query, expected) in [
            ("/api/v1/query", "query=up&time=5000", Some((4_700, 5_000))),
            ("/api/v1/query", "query=up", Some((999_700, 1_000_000))),
            ("/api/v1/series", "match[]=up&start=1&end=2", Some((1, 2))),
            ("/api/v1/label/job/values", "start=1&end=2", Some((1, 2))),
            ("/api/v1/labels", "", None),
            ("/api/v1/query_range", "query=up&start=x&end=2", None),
            ("/api/v1/rules", "", None),
        ] {
            assert_eq!(range(path, query), expected, "{path}?{query}");
        }
        let form = Parameters::read(None, Some(b"query=up%7Ba%3D%22+%22%7D&time=1"));
        assert_eq!(form.get("query"), Some("up{a=\" \"}"));
        assert_eq!(Parameters::read(Some("query=%ff"), None).get("query"), None);
    }

    #[test]
    fn times_are_read_in_both_forms() {
        for (text, expected) in [
            ("1435781451.781", Some(1_435_781_451_781)),
            ("2015-07-01T20:10:51.781Z", Some(1_435_781_451_781)),
            ("2015-07-01T22:10:51.781+02:00", Some(1_435_781_451_781)),
            ("2015-07-01T18:40:51.781-01:30", Some(1_435_781_451_781)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000)),
            ("2015-13-01T20:10:51Z", None),
            ("2015-07-01", None),
            ("NaN", None),
            ("now", None),
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
    }
}

//! Classifies statuses: those that concern the batch, and those that concern the endpoint.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use metrifold_base::keys::{Shape, Shaped};

/// Meaning of a status for the batch that it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// The batch is kept and retried.
    Retry,
    /// The batch is dropped, or only the series at fault if they can be found.
    Refuse,
}

/// `retry.statuses`: differences from the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Statuses {
    /// No differences.
    #[default]
    Usual,
    /// The specification of remote write to the letter: a batch that is answered with 4xx other
    /// than 429 is not sent again, not even in parts.
    Specification,
    /// Verdicts for single statuses, and for classes of them.
    Table {
        exact: BTreeMap<u16, Verdict>,
        /// Classes by their first digit.
        classes: BTreeMap<u16, Verdict>,
    },
}

impl Shaped for Statuses {
    const SHAPE: Shape = Shape::Either(
        &Shape::Word(&["specification"]),
        &Shape::Map(&Shape::Word(&["retry", "refuse"])),
    );
}

impl Statuses {
    /// The verdict for a status other than 2xx.
    pub(super) fn verdict(&self, status: StatusCode) -> Verdict {
        self.explicit(status).unwrap_or(match is_content(status) {
            true => Verdict::Refuse,
            false => Verdict::Retry,
        })
    }

    /// The configured verdict for a status, if there is one.
    pub(super) fn explicit(&self, status: StatusCode) -> Option<Verdict> {
        match self {
            Self::Usual => None,
            Self::Specification => {
                let refused = status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
                refused.then_some(Verdict::Refuse)
            }
            Self::Table { exact, classes } => {
                let code = status.as_u16();
                exact.get(&code).or(classes.get(&(code / 100))).copied()
            }
        }
    }
}

/// Whether a status concerns the content of a batch. Others, such as 404, apply to every request,
/// so isolating series would be in vain.
pub(super) fn is_content(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::CONFLICT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY
    )
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Statuses;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(
                    "\"specification\", or a table such as { 404 = \"refuse\", 5xx = \"retry\" }",
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Statuses, E> {
                match text {
                    "specification" => Ok(Statuses::Specification),
                    _ => Err(E::custom(
                        "must be \"specification\", or a table such as { 404 = \"refuse\" }",
                    )),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Statuses, A::Error> {
                let (mut exact, mut classes) = (BTreeMap::new(), BTreeMap::new());
                while let Some((key, verdict)) = map.next_entry::<String, Verdict>()? {
                    let (table, code) = match key.strip_suffix("xx") {
                        Some(class) => (&mut classes, class.parse().ok().filter(is_class)),
                        None => (&mut exact, key.parse().ok().filter(is_status)),
                    };
                    let code = code.ok_or_else(|| {
                        let reason = format!(
                            "{key:?} is not a status from 300 to 599, or one of 3xx, 4xx and 5xx"
                        );
                        A::Error::custom(reason)
                    })?;
                    table.insert(code, verdict);
                }
                Ok(Statuses::Table { exact, classes })
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

fn is_class(class: &u16) -> bool {
    (3..=5).contains(class)
}

fn is_status(status: &u16) -> bool {
    (300..=599).contains(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Table {
        statuses: Statuses,
    }

    fn read(text: &str) -> Result<Statuses, String> {
        let table: Result<Table, _> = toml::from_str(&format!("statuses = {text}"));
        let table = table.map_err(|error| error.message().to_owned());
        table.map(|table| table.statuses)
    }

    fn refused(statuses: &Statuses) -> Vec<u16> {
        let all = (100..600).filter_map(|code| StatusCode::from_u16(code).ok());
        let refused = all
            .filter(|status| !status.is_success() && statuses.verdict(*status) == Verdict::Refuse);
        refused.map(|status| status.as_u16()).collect()
    }

    #[test]
    fn only_what_speaks_of_the_content_is_refused() {
        assert_eq!(refused(&Statuses::default()), [400, 409, 413, 422]);
    }

    #[test]
    fn the_specification_refuses_4xx_but_429() {
        let specification = read("\"specification\"").unwrap();
        let expected: Vec<u16> = (400..500).filter(|code| *code != 429).collect();
        assert_eq!(refused(&specification), expected);
    }

    #[test]
    fn a_status_wins_over_its_class_and_both_over_the_default() {
        let table =
            read("{ 4xx = \"refuse\", 401 = \"retry\", 400 = \"retry\", 501 = \"refuse\" }");
        let mut expected: Vec<u16> = (402..500).collect();
        expected.push(501);
        assert_eq!(refused(&table.unwrap()), expected);
    }

    #[test]
    fn what_is_no_status_is_an_error_that_says_what_is() {
        for (text, said) in [
            ("\"rfc\"", "must be \"specification\""),
            ("{ 200 = \"retry\" }", "is not a status from 300 to 599"),
            ("{ 2xx = \"retry\" }", "is not a status from 300 to 599"),
            ("{ 4x = \"retry\" }", "is not a status from 300 to 599"),
            ("{ 404 = \"drop\" }", "`retry`"),
            ("404", "\"specification\", or a table"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}

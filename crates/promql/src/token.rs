//! Tokens, and their names in messages.

use crate::go;
use crate::text::Span;

/// Kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    // Tokens outside of the groups below.
    Blank,
    Colon,
    Comma,
    Duration,
    Eof,
    Eql,
    Identifier,
    LeftBrace,
    LeftBracket,
    LeftParen,
    MetricIdentifier,
    Number,
    RightBrace,
    RightBracket,
    RightParen,
    Space,
    String,
    Times,
    OpenHistogram,
    CloseHistogram,
    HistogramKey,
    ResetHint,
    // Operators.
    Add,
    And,
    At,
    Atan2,
    Div,
    EqlRegex,
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Mod,
    Mul,
    NotEqual,
    NotRegex,
    Or,
    Pow,
    Sub,
    TrimLower,
    TrimUpper,
    Unless,
    // Aggregations.
    Avg,
    Bottomk,
    Count,
    CountValues,
    Group,
    LimitRatio,
    Limitk,
    Max,
    Min,
    Quantile,
    Stddev,
    Stdvar,
    Sum,
    Topk,
    // Keywords.
    Anchored,
    Bool,
    By,
    Fill,
    FillLeft,
    FillRight,
    GroupLeft,
    GroupRight,
    Ignoring,
    Offset,
    On,
    Smoothed,
    Without,
    // Functions of the query's own range.
    End,
    MaxOf,
    MinOf,
    Range,
    Start,
    Step,
}

/// Keywords in lower case; the language is case-insensitive here.
const KEYWORDS: [(&str, Kind); 39] = [
    ("anchored", Kind::Anchored),
    ("and", Kind::And),
    ("atan2", Kind::Atan2),
    ("avg", Kind::Avg),
    ("bool", Kind::Bool),
    ("bottomk", Kind::Bottomk),
    ("by", Kind::By),
    ("count", Kind::Count),
    ("count_values", Kind::CountValues),
    ("end", Kind::End),
    ("fill", Kind::Fill),
    ("fill_left", Kind::FillLeft),
    ("fill_right", Kind::FillRight),
    ("group", Kind::Group),
    ("group_left", Kind::GroupLeft),
    ("group_right", Kind::GroupRight),
    ("ignoring", Kind::Ignoring),
    ("inf", Kind::Number),
    ("limit_ratio", Kind::LimitRatio),
    ("limitk", Kind::Limitk),
    ("max", Kind::Max),
    ("max_of", Kind::MaxOf),
    ("min", Kind::Min),
    ("min_of", Kind::MinOf),
    ("nan", Kind::Number),
    ("offset", Kind::Offset),
    ("on", Kind::On),
    ("or", Kind::Or),
    ("quantile", Kind::Quantile),
    ("range", Kind::Range),
    ("smoothed", Kind::Smoothed),
    ("start", Kind::Start),
    ("stddev", Kind::Stddev),
    ("stdvar", Kind::Stdvar),
    ("step", Kind::Step),
    ("sum", Kind::Sum),
    ("topk", Kind::Topk),
    ("unless", Kind::Unless),
    ("without", Kind::Without),
];

/// For each letter, the index of the first keyword that does not begin with an earlier one.
const BY_LETTER: [usize; 27] = {
    let mut starts = [0; 27];
    let mut letter = 0;
    while letter < starts.len() {
        let mut at = 0;
        while at < KEYWORDS.len() && KEYWORDS[at].0.as_bytes()[0] < b'a' + letter as u8 {
            at += 1;
        }
        starts[letter] = at;
        letter += 1;
    }
    starts
};

/// Length of the longest keyword, in bytes.
const LONGEST: usize = 12;

impl Kind {
    /// The keyword for a word in any case.
    pub(crate) fn keyword(word: &str) -> Option<Self> {
        if word.len() > LONGEST {
            return None;
        }
        let first = word.bytes().next()?.to_ascii_lowercase().wrapping_sub(b'a');
        let letter = usize::from(first);
        let (from, to) = (BY_LETTER.get(letter)?, BY_LETTER.get(letter + 1)?);
        KEYWORDS[*from..*to]
            .iter()
            .find(|(keyword, _)| keyword.eq_ignore_ascii_case(word))
            .map(|(_, kind)| *kind)
    }

    fn is_operator(self) -> bool {
        use Kind::*;
        matches!(
            self,
            Add | And
                | At
                | Atan2
                | Div
                | EqlRegex
                | Equal
                | Greater
                | GreaterEqual
                | Less
                | LessEqual
                | Mod
                | Mul
                | NotEqual
                | NotRegex
                | Or
                | Pow
                | Sub
                | TrimLower
                | TrimUpper
                | Unless
        )
    }

    fn is_keyword(self) -> bool {
        use Kind::*;
        matches!(
            self,
            Anchored
                | Bool
                | By
                | Fill
                | FillLeft
                | FillRight
                | GroupLeft
                | GroupRight
                | Ignoring
                | Offset
                | On
                | Smoothed
                | Without
        )
    }

    /// Whether it is the name of an aggregation.
    pub(crate) fn is_aggregation(self) -> bool {
        use Kind::*;
        matches!(
            self,
            Avg | Bottomk
                | Count
                | CountValues
                | Group
                | LimitRatio
                | Limitk
                | Max
                | Min
                | Quantile
                | Stddev
                | Stdvar
                | Sum
                | Topk
        )
    }

    /// Whether it is a function of the query's own range.
    pub(crate) fn is_preprocessor(self) -> bool {
        use Kind::*;
        matches!(self, End | MaxOf | MinOf | Range | Start | Step)
    }

    /// Whether it can be the name of a metric.
    pub(crate) fn is_metric_name(self) -> bool {
        use Kind::*;
        self.is_aggregation()
            || self.is_preprocessor()
            || matches!(
                self,
                Identifier
                    | MetricIdentifier
                    | And
                    | Or
                    | Unless
                    | Anchored
                    | By
                    | Fill
                    | FillLeft
                    | FillRight
                    | Offset
                    | Smoothed
                    | Without
            )
    }

    /// Whether it can be the name of a label in a grouping.
    pub(crate) fn is_grouping_label(self) -> bool {
        use Kind::*;
        (self.is_metric_name() && self != Without)
            || matches!(self, Atan2 | Bool | GroupLeft | GroupRight | Ignoring | On)
    }

    /// Whether an expression can begin with it.
    pub(crate) fn starts_expression(self) -> bool {
        use Kind::*;
        self.is_metric_name()
            || matches!(
                self,
                Add | Sub | Number | Duration | String | LeftParen | LeftBrace
            )
    }
}

/// A token and its position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
}

impl Token {
    /// Name of the token in messages; `text` is its source.
    pub(crate) fn describe(self, text: &str) -> String {
        let class = match self.kind {
            Kind::Eof => return "end of input".to_owned(),
            Kind::Identifier => return format!("identifier {}", go::quoted(text)),
            Kind::MetricIdentifier => return format!("metric identifier {}", go::quoted(text)),
            Kind::String => "string ",
            Kind::Number => "number ",
            Kind::Duration => "duration ",
            Kind::HistogramKey => "histogram description key ",
            Kind::ResetHint => "counter reset hint ",
            kind if kind.is_keyword() => return format!("<{text}>"),
            kind if kind.is_operator() => return format!("<op:{text}>"),
            kind if kind.is_aggregation() => return format!("<aggr:{text}>"),
            _ => "",
        };
        // Upstream compares bytes and truncates by characters.
        match text.char_indices().nth(10) {
            _ if text.len() <= 10 => format!("{class}{}", go::quoted(text)),
            Some((at, _)) => format!("{class}{}...", go::quoted(&text[..at])),
            None => format!("{class}{}...", go::quoted(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_sorted_and_found_in_any_case() {
        assert!(KEYWORDS.is_sorted_by(|a, b| a.0 < b.0));
        let lengths = KEYWORDS.iter().map(|(word, _)| word.len());
        assert_eq!(lengths.max(), Some(LONGEST));
        for (word, kind) in KEYWORDS {
            assert_eq!(Kind::keyword(&word.to_uppercase()), Some(kind));
        }
        assert_eq!(Kind::keyword("sums"), None);
        for word in ["x", "zzz", "", "{", "_by", "0", "größe"] {
            assert_eq!(Kind::keyword(word), None, "{word}");
        }
    }
}

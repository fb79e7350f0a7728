//! The functions of the language, with the types of their arguments and results.

use std::fmt;

/// The type of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// A number.
    Scalar,
    /// A string.
    String,
    /// A set of series with one sample each.
    Vector,
    /// A set of series with a range of samples each.
    Matrix,
}

impl ValueType {
    /// Name of the type in the HTTP API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            other => other.as_str(),
        })
    }
}

/// Optional and repeated arguments of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variadic {
    /// All arguments are required, once.
    No,
    /// The last argument may be given from zero to this many times.
    UpTo(u8),
    /// The last argument may be given any number of times, including zero.
    Any,
}

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// Name of the function.
    pub name: &'static str,
    /// Types of the arguments.
    pub arguments: &'static [ValueType],
    /// Whether the last argument is optional or repeated.
    pub variadic: Variadic,
    /// Type of the result.
    pub result: ValueType,
    /// Whether it needs [`Options::experimental_functions`](crate::Options).
    pub experimental: bool,
}

impl Function {
    /// The function with this name, in a list sorted by name.
    pub(crate) fn find(name: &str, functions: &'static [Function]) -> Option<&'static Self> {
        let at = functions
            .binary_search_by(|function| function.name.cmp(name))
            .ok()?;
        functions.get(at)
    }
}

const fn function(
    name: &'static str,
    arguments: &'static [ValueType],
    variadic: Variadic,
    result: ValueType,
) -> Function {
    Function {
        name,
        arguments,
        variadic,
        result,
        experimental: false,
    }
}

const fn experimental(
    name: &'static str,
    arguments: &'static [ValueType],
    variadic: Variadic,
    result: ValueType,
) -> Function {
    Function {
        experimental: true,
        ..function(name, arguments, variadic, result)
    }
}

/// The functions of Prometheus 3.16, sorted by name.
#[rustfmt::skip]
pub static FUNCTIONS: &[Function] = {
    use ValueType::*;
    use Variadic::*;
    &[
        function("abs", &[Vector], No, Vector),
        function("absent", &[Vector], No, Vector),
        function("absent_over_time", &[Matrix], No, Vector),
        function("acos", &[Vector], No, Vector),
        function("acosh", &[Vector], No, Vector),
        function("asin", &[Vector], No, Vector),
        function("asinh", &[Vector], No, Vector),
        function("atan", &[Vector], No, Vector),
        function("atanh", &[Vector], No, Vector),
        function("avg_over_time", &[Matrix], No, Vector),
        function("ceil", &[Vector], No, Vector),
        function("changes", &[Matrix], No, Vector),
        function("clamp", &[Vector, Scalar, Scalar], No, Vector),
        function("clamp_max", &[Vector, Scalar], No, Vector),
        function("clamp_min", &[Vector, Scalar], No, Vector),
        function("cos", &[Vector], No, Vector),
        function("cosh", &[Vector], No, Vector),
        function("count_over_time", &[Matrix], No, Vector),
        function("day_of_month", &[Vector], UpTo(1), Vector),
        function("day_of_week", &[Vector], UpTo(1), Vector),
        function("day_of_year", &[Vector], UpTo(1), Vector),
        function("days_in_month", &[Vector], UpTo(1), Vector),
        function("deg", &[Vector], No, Vector),
        function("delta", &[Matrix], No, Vector),
        function("deriv", &[Matrix], No, Vector),
        experimental("double_exponential_smoothing", &[Matrix, Scalar, Scalar], No, Vector),
        experimental("end", &[], No, Scalar),
        function("exp", &[Vector], No, Vector),
        function("first_over_time", &[Matrix], No, Vector),
        function("floor", &[Vector], No, Vector),
        function("histogram_avg", &[Vector], No, Vector),
        function("histogram_count", &[Vector], No, Vector),
        function("histogram_fraction", &[Scalar, Scalar, Vector], No, Vector),
        function("histogram_quantile", &[Scalar, Vector], No, Vector),
        experimental("histogram_quantiles", &[Vector, String, Scalar, Scalar], UpTo(9), Vector),
        function("histogram_stddev", &[Vector], No, Vector),
        function("histogram_stdvar", &[Vector], No, Vector),
        function("histogram_sum", &[Vector], No, Vector),
        function("hour", &[Vector], UpTo(1), Vector),
        function("idelta", &[Matrix], No, Vector),
        function("increase", &[Matrix], No, Vector),
        experimental("info", &[Vector, Vector], UpTo(1), Vector),
        experimental("integral", &[Matrix, Scalar], UpTo(1), Vector),
        function("irate", &[Matrix], No, Vector),
        function("label_join", &[Vector, String, String, String], Any, Vector),
        function("label_replace", &[Vector, String, String, String, String], No, Vector),
        function("last_over_time", &[Matrix], No, Vector),
        function("ln", &[Vector], No, Vector),
        function("log10", &[Vector], No, Vector),
        function("log2", &[Vector], No, Vector),
        experimental("mad_over_time", &[Matrix], No, Vector),
        experimental("max_of", &[Scalar, Scalar], No, Scalar),
        function("max_over_time", &[Matrix], No, Vector),
        experimental("min_of", &[Scalar, Scalar], No, Scalar),
        function("min_over_time", &[Matrix], No, Vector),
        function("minute", &[Vector], UpTo(1), Vector),
        function("month", &[Vector], UpTo(1), Vector),
        function("pi", &[], No, Scalar),
        function("predict_linear", &[Matrix, Scalar], No, Vector),
        function("present_over_time", &[Matrix], No, Vector),
        function("quantile_over_time", &[Scalar, Matrix], No, Vector),
        function("rad", &[Vector], No, Vector),
        experimental("range", &[], No, Scalar),
        function("rate", &[Matrix], No, Vector),
        function("resets", &[Matrix], No, Vector),
        function("round", &[Vector, Scalar], UpTo(1), Vector),
        function("scalar", &[Vector], No, Scalar),
        function("sgn", &[Vector], No, Vector),
        function("sin", &[Vector], No, Vector),
        function("sinh", &[Vector], No, Vector),
        function("sort", &[Vector], No, Vector),
        experimental("sort_by_label", &[Vector, String], Any, Vector),
        experimental("sort_by_label_desc", &[Vector, String], Any, Vector),
        function("sort_desc", &[Vector], No, Vector),
        function("sqrt", &[Vector], No, Vector),
        experimental("start", &[], No, Scalar),
        experimental("start_timestamp", &[Vector], No, Vector),
        function("stddev_over_time", &[Matrix], No, Vector),
        function("stdvar_over_time", &[Matrix], No, Vector),
        experimental("step", &[], No, Scalar),
        function("sum_over_time", &[Matrix], No, Vector),
        function("tan", &[Vector], No, Vector),
        function("tanh", &[Vector], No, Vector),
        function("time", &[], No, Scalar),
        function("timestamp", &[Vector], No, Vector),
        experimental("ts_of_first_over_time", &[Matrix], No, Vector),
        experimental("ts_of_last_over_time", &[Matrix], No, Vector),
        experimental("ts_of_max_over_time", &[Matrix], No, Vector),
        experimental("ts_of_min_over_time", &[Matrix], No, Vector),
        function("vector", &[Scalar], No, Vector),
        function("year", &[Vector], UpTo(1), Vector),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_sorted_so_that_they_can_be_found() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        for function in FUNCTIONS {
            assert_eq!(Function::find(function.name, FUNCTIONS), Some(function));
        }
        assert_eq!(Function::find("Rate", FUNCTIONS), None);
    }
}

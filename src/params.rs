//! The parameters of a row, and their ranges.

use std::fmt;

/// What to keep of a row, in the order in which it is applied. The default keeps everything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// The logits are divided by it: in [1e-30, 1e30], or 0, which is greedy: the lowest id among the largest logits.
    pub temperature: f64,
    /// Keep the k largest. 0 is off.
    pub top_k: u64,
    /// Keep the smallest set of most probable tokens whose mass is at least this share, and at least one token. 1 is off.
    pub top_p: f64,
    /// Keep the tokens at least this many times as probable as the most probable one. 0 is off.
    pub min_p: f64,
}

impl Default for Params {
    fn default() -> Self {
        Params { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 }
    }
}

/// True for a temperature that a row may have. Beyond these bounds the difference of two float32 logits, or its product with the
/// inverse of the temperature, may leave the range of float32, and the masses would not be those of the softmax.
pub fn is_temperature(t: f64) -> bool {
    t == 0.0 || (1e-30..=1e30).contains(&t)
}

/// True for a share of a probability: a number in [0, 1].
pub fn is_share(p: f64) -> bool {
    (0.0..=1.0).contains(&p)
}

impl Params {
    /// The error that names the first parameter out of its range.
    pub fn validate(&self) -> Result<(), ParamError> {
        let rules = [
            ("temperature", self.temperature, is_temperature(self.temperature), "0 or in [1e-30, 1e30]"),
            ("top_p", self.top_p, is_share(self.top_p), "in [0, 1]"),
            ("min_p", self.min_p, is_share(self.min_p), "in [0, 1]"),
        ];
        match rules.into_iter().find(|&(_, _, holds, _)| !holds) {
            None => Ok(()),
            Some((name, value, _, rule)) => Err(ParamError { name, rule, value }),
        }
    }
}

/// A parameter out of its range.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamError {
    name: &'static str,
    rule: &'static str,
    value: f64,
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Debug prints a float64 as Python does: 1.5, 2.0, inf.
        let value = if self.value.is_nan() { "nan".to_string() } else { format!("{:?}", self.value) };
        write!(f, "{} must be {}, got {value}", self.name, self.rule)
    }
}

impl std::error::Error for ParamError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_parameter_the_rule_and_the_value() {
        let wrong = |params: Params| params.validate().unwrap_err().to_string();
        let ok = Params::default();
        assert_eq!(ok.validate(), Ok(()));
        assert_eq!(wrong(Params { top_p: 1.5, ..ok }), "top_p must be in [0, 1], got 1.5");
        assert_eq!(wrong(Params { temperature: f64::NAN, ..ok }), "temperature must be 0 or in [1e-30, 1e30], got nan");
        assert_eq!(wrong(Params { min_p: -0.5, ..ok }), "min_p must be in [0, 1], got -0.5");
    }
}

//! Exact sums of JSON numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value as Json};

/// A sum of decimal numbers, exact: adding and taking away in any order comes to the same, and `0.1 + 0.2` is `0.3`.
///
/// Invariant: no entry is zero. A number is its shortest decimal form, the one that JSON prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decimal(BTreeMap<i32, i128>);

impl Decimal {
    /// The decimal of a JSON number; `None` where the JSON is none.
    #[must_use]
    pub fn of(json: &Json) -> Option<Self> {
        json.as_number().and_then(Self::of_number)
    }

    fn of_number(number: &Number) -> Option<Self> {
        let text = number.to_string();
        let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((&text, "0"));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let exponent = exponent.trim_start_matches('+').parse::<i32>().ok()?;
        let places = i32::try_from(fraction.len()).ok()?;
        let mut sum = Self::default();
        sum.add_at(exponent.checked_sub(places)?, format!("{whole}{fraction}").parse().ok()?);
        Some(sum)
    }

    fn add_at(&mut self, exponent: i32, digits: i128) {
        // Seventeen digits in each number: it would take more records than there can be to come near the bound.
        let sum = self.0.remove(&exponent).unwrap_or(0).saturating_add(digits);
        if sum != 0 {
            self.0.insert(exponent, sum);
        }
    }

    /// Adds a number.
    pub fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(exponent, digits)| self.add_at(*exponent, *digits));
    }

    /// Takes a number away.
    pub fn subtract(&mut self, other: &Self) {
        other.0.iter().for_each(|(exponent, digits)| self.add_at(*exponent, -*digits));
    }

    /// Whether both are the same number.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        let mut difference = self.clone();
        difference.subtract(other);
        difference.is_zero()
    }

    /// Whether the sum is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.single().is_some_and(|(digits, _)| digits == 0)
    }

    /// The sum as one number of tens; `None` where it has too many digits for that.
    fn single(&self) -> Option<(i128, i32)> {
        let (mut digits, mut exponent) = (0_i128, 0_i32);
        for (at, more) in self.0.iter().rev() {
            let tens = u32::try_from(exponent.checked_sub(*at)?).ok();
            if digits != 0 {
                digits = digits.checked_mul(10_i128.checked_pow(tens?)?)?;
            }
            (digits, exponent) = (digits.checked_add(*more)?, *at);
        }
        Some((digits, exponent))
    }

    /// The JSON number that is exactly this sum; `None` where there is none.
    #[must_use]
    pub fn to_json(&self) -> Option<Json> {
        let (mut digits, mut exponent) = self.single()?;
        while exponent < 0 && digits % 10 == 0 {
            (digits, exponent) = (digits / 10, exponent + 1);
        }
        let whole = || digits.checked_mul(10_i128.checked_pow(u32::try_from(exponent).ok()?)?);
        if let Some(whole) = whole() {
            let signed = i64::try_from(whole).map(Json::from);
            if let Ok(json) = signed.or_else(|_| u64::try_from(whole).map(Json::from)) {
                return Some(json);
            }
        }
        let float: f64 = format!("{digits}e{exponent}").parse().ok()?;
        let json = Number::from_f64(float).map(Json::Number)?;
        Self::of(&json).filter(|read| read.equals(self)).map(|_| json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sum(numbers: &[Json]) -> Decimal {
        numbers.iter().fold(Decimal::default(), |mut sum, number| {
            sum.add(&Decimal::of(number).unwrap());
            sum
        })
    }

    #[test]
    fn a_sum_is_exact_in_every_order() {
        let numbers = [json!(0.1), json!(1e15), json!(0.2), json!(-1e15), json!(7)];
        let mut turned = numbers.clone();
        turned.reverse();
        assert_eq!(sum(&numbers), sum(&turned));
        assert_eq!(sum(&numbers).to_json(), Some(json!(7.3)));
        assert!(sum(&numbers).equals(&sum(&[json!(7.3)])));
        assert!(!sum(&numbers).equals(&sum(&[json!(7.2)])));
    }

    #[test]
    fn what_is_taken_away_is_gone() {
        let mut total = sum(&[json!(0.1), json!(0.2), json!(u64::MAX)]);
        total.subtract(&sum(&[json!(0.3)]));
        assert_eq!(total.to_json(), Some(json!(u64::MAX)));
        total.subtract(&sum(&[json!(u64::MAX)]));
        assert!(total.is_zero());
    }

    #[test]
    fn a_sum_that_no_json_number_is_has_none() {
        let far = sum(&[json!(1e300), json!(1e-300)]);
        assert_eq!(far.to_json(), None);
        assert!(!far.is_zero());
        assert!(far.equals(&far.clone()));
        assert!(!far.equals(&sum(&[json!(1e300)])));
        assert_eq!(sum(&[json!(9_007_199_254_740_993_i64), json!(0.5)]).to_json(), None);
    }

    #[test]
    fn every_number_reads_back() {
        for number in [json!(0), json!(-5), json!(1.25), json!(1e22), json!(5e-324), json!(i64::MIN), json!(120)] {
            let back = Decimal::of(&number).unwrap().to_json().unwrap();
            assert!(Decimal::of(&back).unwrap().equals(&Decimal::of(&number).unwrap()), "{number} {back}");
        }
        assert_eq!(Decimal::of(&json!("1")), None);
    }
}

//! Whole numbers, however they are written.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// An integer that a request may have.
pub(super) trait Whole: Default + TryFrom<i128> {
    fn read<'de, D: Deserializer<'de>, V: Visitor<'de>>(
        from: D,
        visitor: V,
    ) -> Result<V::Value, D::Error>;
}

macro_rules! whole {
    ($($type:ident $read:ident;)*) => {
        $(impl Whole for $type {
            fn read<'de, D: Deserializer<'de>, V: Visitor<'de>>(
                from: D,
                visitor: V,
            ) -> Result<V::Value, D::Error> {
                from.$read(visitor)
            }
        })*
    };
}

whole! {
    u16 deserialize_u16;
    u64 deserialize_u64;
    i32 deserialize_i32;
    i64 deserialize_i64;
}

/// A whole number; 3000.0 is one, too, and so write languages that know no other numbers. Null is
/// the same as absent.
pub(super) fn whole<'de, D: Deserializer<'de>, T: Whole>(value: D) -> Result<T, D::Error> {
    Option::<Written<T>>::deserialize(value)
        .map(|written| written.map(|Written(number)| number).unwrap_or_default())
}

struct Written<T>(T);

impl<'de, T: Whole> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        T::read(from, Number(PhantomData)).map(Self)
    }
}

struct Number<T>(PhantomData<T>);

impl<T: Whole> Number<T> {
    fn fit<E: Error>(number: i128) -> Result<T, E> {
        let name = std::any::type_name::<T>();
        T::try_from(number)
            .map_err(|_| E::custom(format_args!("{number} is out of {name}'s range")))
    }
}

impl<T: Whole> Visitor<'_> for Number<T> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a whole number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        Self::fit(number.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        Self::fit(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        // Integers below those of 64 bits come as a float, too, and the first of them as i64::MIN.
        if number.fract() != 0.0 || number <= -(2f64.powi(63)) {
            return Err(E::custom(format_args!("{number} is no whole number of 64 bits")));
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "it is whole, and what is too large is \
            still too large for a T"
        )]
        Self::fit(number as i128)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Whole>(text: &str) -> Result<T, serde_json::Error> {
        whole(&mut serde_json::Deserializer::from_str(text))
    }

    #[test]
    fn a_whole_number_is_one_with_a_point_too() {
        assert_eq!(read::<u16>("3000").unwrap(), 3000);
        assert_eq!(read::<u16>("3000.0").unwrap(), 3000);
        assert_eq!(read::<i64>("-2.5e3").unwrap(), -2500);
        assert_eq!(read::<u64>("18446744073709551615").unwrap(), u64::MAX);
        assert_eq!(read::<i32>("null").unwrap(), 0);
    }

    #[test]
    fn what_is_none_or_does_not_fit_is_an_error() {
        for text in ["0.5", "-1", "65536", "65536.0", "1e300", "-1e300", "\"1\"", "[1]", "true"] {
            assert!(read::<u16>(text).is_err(), "{text}");
        }
        assert!(read::<u64>("18446744073709551616").is_err());
        assert!(read::<i64>("9223372036854775808").is_err());
        assert_eq!(read::<i64>("-9223372036854775808").unwrap(), i64::MIN);
        assert!(read::<i64>("-9223372036854775809").is_err());
    }
}

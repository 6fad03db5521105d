//! Floating-point numbers in JSON lines: non-finite ones are strings, never `null`.
//!
//! JSON has no NaN or infinity and `serde_json` writes them as `null`, which would hide exactly the
//! steps that matter.

use std::fmt;

use serde::Serializer;
use serde::de::{Deserializer, Error, Visitor};

/// Writes a number, or `"NaN"`, `"+Inf"`, `"-Inf"`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde's `with` asks for")]
pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        value if value.is_nan() => serializer.serialize_str("NaN"),
        value if value.is_infinite() => {
            serializer.serialize_str(if *value > 0.0 { "+Inf" } else { "-Inf" })
        }
        value => serializer.serialize_f64(*value),
    }
}

/// Reads what [`serialize`] writes.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    struct Number;
    impl Visitor<'_> for Number {
        type Value = f64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a number, \"NaN\", \"+Inf\" or \"-Inf\"")
        }
        fn visit_f64<E>(self, value: f64) -> Result<f64, E> {
            Ok(value)
        }
        fn visit_u64<E>(self, value: u64) -> Result<f64, E> {
            Ok(value as f64)
        }
        fn visit_i64<E>(self, value: i64) -> Result<f64, E> {
            Ok(value as f64)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
            match text {
                "NaN" => Ok(f64::NAN),
                "+Inf" => Ok(f64::INFINITY),
                "-Inf" => Ok(f64::NEG_INFINITY),
                other => Err(E::custom(format!("{other:?} is not a number"))),
            }
        }
    }
    deserializer.deserialize_any(Number)
}

/// The same for a number that may be absent; absent is `null`.
pub(crate) mod option {
    use serde::de::{Deserialize, Deserializer};
    use serde::{Serialize, Serializer};

    #[derive(Serialize, serde::Deserialize)]
    #[serde(transparent)]
    struct Number(#[serde(with = "super")] f64);

    #[expect(clippy::ref_option, reason = "the signature that serde's `with` asks for")]
    pub(crate) fn serialize<S: Serializer>(
        value: &Option<f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Number).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<f64>, D::Error> {
        Ok(Option::<Number>::deserialize(deserializer)?.map(|number| number.0))
    }
}

/// The same for a list of numbers.
pub(crate) mod list {
    use serde::de::{Deserialize, Deserializer};
    use serde::{Serialize, Serializer};

    #[derive(Serialize, serde::Deserialize)]
    #[serde(transparent)]
    struct Number(#[serde(with = "super")] f64);

    pub(crate) fn serialize<S: Serializer>(
        values: &[f64],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().copied().map(Number))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<f64>, D::Error> {
        Ok(Vec::<Number>::deserialize(deserializer)?.into_iter().map(|number| number.0).collect())
    }
}

//! The header of a safetensors file: written, and parsed as hostile input, of which nothing is
//! allocated or trusted unless the length of the file confirms it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};

/// Key of the header that is not a tensor.
const METADATA: &str = "__metadata__";
/// The header length is padded to a multiple of this, so that the data is aligned.
const ALIGNMENT: usize = 8;

/// Number formats of weights that can be read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberFormat {
    /// 32 bits, 24 of them significant.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
}

/// Location of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Entry {
    /// Name of its number format, possibly unsupported.
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    /// First byte and first byte after it, in the data.
    pub(super) data_offsets: (u64, u64),
}

/// The tensors of a file by name.
#[derive(Debug)]
pub(super) struct Header(pub(super) BTreeMap<String, Entry>);

/// The length and the header of a file with the tensors `list`, each a name and a shape, in this
/// order.
pub(super) fn header_bytes(list: &[(String, Vec<usize>)], format: NumberFormat) -> Vec<u8> {
    let mut fields = Map::new();
    // Required by Hugging Face's loader.
    fields.insert(METADATA.into(), json!({ "format": "pt" }));
    let mut start = 0;
    for (name, dims) in list {
        let end = start + dims.iter().product::<usize>() * format.size();
        fields.insert(
            name.clone(),
            json!({ "dtype": format.name(), "shape": dims, "data_offsets": [start, end] }),
        );
        start = end;
    }
    let mut text = Value::Object(fields).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
    [&(text.len() as u64).to_le_bytes(), text.as_slice()].concat()
}

impl NumberFormat {
    /// The format with this name in a header, e.g. `BF16`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::F32, Self::Bf16, Self::F16].into_iter().find(|format| format.name() == name)
    }

    /// Its name in a header.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
        }
    }

    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

impl Header {
    /// Parses `bytes`, of a file with `data_bytes` bytes of data.
    ///
    /// # Errors
    /// What is wrong, as text.
    pub(super) fn read(bytes: &[u8], data_bytes: u64) -> Result<Self, String> {
        let header: Self = serde_json::from_slice(bytes).map_err(|error| {
            if error.is_data() {
                format!("its header cannot be used: {error}")
            } else {
                format!("its header is not JSON: {error}")
            }
        })?;
        header.check_places(data_bytes)?;
        Ok(header)
    }

    /// Checks that the tensors fill the data, in any order, without gaps or overlaps.
    fn check_places(&self, data_bytes: u64) -> Result<(), String> {
        let mut places: Vec<(&String, &Entry)> = self.0.iter().collect();
        places.sort_by_key(|(_, entry)| entry.data_offsets);
        let mut filled = 0;
        for (name, Entry { dtype, shape, data_offsets: (start, end) }) in places {
            if *start != filled || end < start {
                return Err(format!(
                    "{name} claims the bytes from {start} to {end}, but the next free byte is \
                     {filled}"
                ));
            }
            let numbers =
                shape.iter().try_fold(1_u64, |product, dim| product.checked_mul(*dim as u64));
            let size = NumberFormat::from_name(dtype).map(|format| format.size() as u64);
            if size.is_some_and(|size| {
                numbers.and_then(|numbers| numbers.checked_mul(size)) != Some(end - start)
            }) {
                return Err(format!(
                    "{name} is {dtype} {shape:?}, which does not fill its {} bytes",
                    end - start
                ));
            }
            filled = *end;
        }
        if filled == data_bytes {
            Ok(())
        } else {
            Err(format!("it has {data_bytes} bytes of data instead of {filled}"))
        }
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut tensors = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                map.next_value::<IgnoredAny>()?;
            } else if tensors.insert(name.clone(), map.next_value()?).is_some() {
                // Programs differ in which of the two they use.
                return Err(A::Error::custom(format!("two tensors are named {name}")));
            }
        }
        Ok(Header(tensors))
    }
}

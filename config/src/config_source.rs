//! Where Envoy gets a secret: Envoy's own words, which are handed on to it as they are.

#[cfg(not(feature = "native"))]
pub(super) use serde::de::IgnoredAny as ConfigSource;

#[cfg(feature = "native")]
pub(super) use native::ConfigSource;

#[cfg(feature = "native")]
mod native {
    use serde::de::{Deserialize, Deserializer, Error as _};
    use serde::ser::{Serialize, SerializeMap as _, Serializer};

    use crate::tree::Node;

    /// An `envoy.config.core.v3.ConfigSource`, as JSON.
    pub(crate) struct ConfigSource(String);

    impl ConfigSource {
        pub(crate) fn as_json(&self) -> &str {
            &self.0
        }
    }

    impl<'de> Deserialize<'de> for ConfigSource {
        fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
            let node = Node::deserialize(reader)?;
            if !matches!(node, Node::Object(_)) {
                return Err(D::Error::invalid_type(node.seen(), &"a map"));
            }
            serde_json::to_string(&node)
                .map(Self)
                .map_err(D::Error::custom)
        }
    }

    /// Fields that are there twice stay: Envoy refuses them.
    impl Serialize for Node {
        fn serialize<S: Serializer>(&self, writer: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::Null => writer.serialize_unit(),
                Self::Bool(value) => writer.serialize_bool(*value),
                Self::Unsigned(value) => writer.serialize_u64(*value),
                Self::Signed(value) => writer.serialize_i64(*value),
                Self::Float(value) => writer.serialize_f64(*value),
                Self::Text(value) => writer.serialize_str(value),
                Self::List(items) => writer.collect_seq(items),
                Self::Object(fields) => {
                    let mut map = writer.serialize_map(Some(fields.len()))?;
                    for (name, value) in fields {
                        map.serialize_entry(name, value)?;
                    }
                    map.end()
                }
            }
        }
    }
}

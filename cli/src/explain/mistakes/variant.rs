//! What may have been meant.

/// One way in which something may have been meant; `None` is the configured way.
pub(super) struct Variant<T> {
    pub(super) mistake: Option<String>,
    pub(super) value: T,
}

impl<T> Variant<T> {
    pub(super) fn right(value: T) -> Self {
        Self {
            mistake: None,
            value,
        }
    }

    pub(super) fn wrong(mistake: impl Into<String>, value: T) -> Self {
        Self {
            mistake: Some(mistake.into()),
            value,
        }
    }
}

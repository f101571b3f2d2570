//! Enums whose variants are words: of the replies, the metrics, the log and `explain`.

/// An enum with the word for each variant, from one list.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// Every one, in their order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word for it, which does not change.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The position among all of them.
            #[must_use]
            #[allow(
                clippy::as_conversions,
                reason = "the discriminant of a field-less enum"
            )]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

pub(crate) use words;

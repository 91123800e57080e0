//! Names that an operator gives, checked once.

use std::borrow::Borrow;
use std::fmt;

/// The name of a node, port, peer, virtual service or backend: 1 to 63 characters of `A-Z a-z 0-9 . _ - @ +`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

/// The name of a Linux network interface: 1 to 15 bytes, none of them `/`, `:`, `%` or space.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(Box<str>);

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFault {
    /// The text is empty.
    Empty,
    /// The text has more than this many bytes.
    TooLong {
        /// The most bytes that such a name may have.
        limit: usize,
    },
    /// The text contains this character, which such a name may not contain.
    Character(char),
    /// The text is `.` or `..`, which the kernel refuses.
    Dots,
}

impl Name {
    /// The most bytes of a name.
    pub const MAX_BYTES: usize = 63;

    /// Checks `text`; [`NameFault`] says which rule it breaks.
    pub fn new(text: &str) -> Result<Self, NameFault> {
        check(text, Self::MAX_BYTES, |c| c.is_ascii_alphanumeric() || "._-@+".contains(c))?;
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl InterfaceName {
    /// The most bytes of an interface name: `IFNAMSIZ` without its NUL.
    pub const MAX_BYTES: usize = 15;

    /// Checks `text` as the kernel's `dev_valid_name` does, and stricter: visible ASCII only.
    pub fn new(text: &str) -> Result<Self, NameFault> {
        check(text, Self::MAX_BYTES, |c| c.is_ascii_graphic() && !"/:%\"'\\".contains(c))?;
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str, limit: usize, allowed: impl Fn(char) -> bool) -> Result<(), NameFault> {
    if text.is_empty() {
        return Err(NameFault::Empty);
    }
    if let Some(character) = text.chars().find(|&c| !allowed(c)) {
        return Err(NameFault::Character(character));
    }
    if text.len() > limit {
        return Err(NameFault::TooLong { limit });
    }
    if text == "." || text == ".." {
        return Err(NameFault::Dots);
    }
    Ok(())
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::TooLong { limit } => write!(f, "is longer than {limit} bytes"),
            Self::Character(character) => write!(f, "contains {character:?}"),
            Self::Dots => f.write_str("is reserved"),
        }
    }
}

impl std::error::Error for NameFault {}

macro_rules! text_traits {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameFault;

            fn from_str(text: &str) -> Result<Self, NameFault> {
                Self::new(text)
            }
        }
    )*};
}

text_traits!(Name, InterfaceName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_name_of_fifteen_bytes_is_the_longest() {
        assert!(InterfaceName::new("abcdefghijklmno").is_ok());
        assert_eq!(InterfaceName::new("abcdefghijklmnop"), Err(NameFault::TooLong { limit: 15 }));
    }

    #[test]
    fn names_that_the_kernel_refuses_are_refused() {
        for (text, fault) in [
            ("", NameFault::Empty),
            (".", NameFault::Dots),
            ("..", NameFault::Dots),
            ("a/b", NameFault::Character('/')),
            ("a b", NameFault::Character(' ')),
            ("jw%d", NameFault::Character('%')),
        ] {
            assert_eq!(InterfaceName::new(text), Err(fault), "{text:?}");
        }
    }
}

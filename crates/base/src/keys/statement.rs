//! The macros that state keys.

/// Makes a struct, its deserialization and its table of keys from one list.
///
/// ```
/// use std::path::PathBuf;
///
/// use metrifold_base::{Period, keys};
///
/// keys! {
///     /// Keys of a client.
///     #[derive(Clone, Debug)]
///     pub struct ClientKeys {
///         /// Host to connect to.
///         host: String = required("example.org"),
///         /// Longest time for a request.
///         timeout: Period = default("30s"),
///         /// Name to send instead of the host's.
///         pub server_name: Option<String> = unset("other.example"),
///     }
/// }
///
/// keys! {
///     /// Keys of something that stores what a client gets.
///     #[derive(Clone, Debug)]
///     pub struct StoreKeys {
///         /// How to connect.
///         client: ClientKeys = include,
///         /// How to connect to the copy; none is made unless set.
///         copy: Option<ClientKeys> = optional,
///         /// Folder to store it in.
///         #[name = "folder"]
///         path: PathBuf = required("/var/lib/x"),
///     }
/// }
/// ```
///
/// The documentation of a field is that of its key.
///
/// - `required(EXAMPLE)`: the key must be given.
/// - `default(LITERAL)`: the literal is TOML, and the default is its value.
/// - `unset(EXAMPLE)`: the default is the type's `Default`.
/// - `suggested(EXAMPLE)`: as `unset`, and a first configuration holds the example.
/// - `table`: a group under the key's name, whose keys have defaults of their own.
/// - `optional`: a group as an `Option`, `None` unless the table is present.
/// - `include`: a group without a name, whose keys stand among the others.
#[macro_export]
macro_rules! keys {
    (
        $(#[$meta:meta])*
        $vis:vis struct $struct:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[name = $name:literal])?
                $field_vis:vis $field:ident: $type:ty = $mode:ident $(($($argument:tt)*))?
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $struct {
            $($(#[doc = $doc])* $field_vis $field: $type,)*
        }

        const _: () = {
            #[derive(Default)]
            #[allow(missing_docs, unreachable_pub)]
            pub struct Partial {
                $($field: $crate::__slot!($mode $type),)*
            }

            impl $crate::keys::Keys for $struct {
                const ENTRIES: &'static [$crate::keys::Entry] = &[
                    $($crate::__entry!(
                        $mode,
                        $crate::__name!($field $($name)?),
                        $type,
                        concat!("", $($doc),*).trim_ascii(),
                        $($($argument)*)?
                    ),)*
                ];

                type Partial = Partial;

                #[allow(unused_variables)]
                fn take<'de, A: $crate::serde::de::MapAccess<'de>>(
                    partial: &mut Partial,
                    key: &str,
                    map: &mut A,
                ) -> ::core::result::Result<bool, A::Error> {
                    $($crate::__take!(
                        $mode,
                        $crate::__name!($field $($name)?),
                        $type,
                        partial.$field,
                        key,
                        map
                    );)*
                    Ok(false)
                }

                #[allow(unused_variables)]
                fn finish<E: $crate::serde::de::Error>(
                    partial: Partial,
                ) -> ::core::result::Result<Self, E> {
                    Ok(Self {
                        $($field: $crate::__finish!(
                            $mode,
                            $crate::__name!($field $($name)?),
                            $type,
                            partial.$field,
                            $($($argument)*)?
                        ),)*
                    })
                }
            }

            impl $crate::keys::Shaped for $struct {
                const SHAPE: $crate::keys::Shape =
                    $crate::keys::Shape::Table(<$struct as $crate::keys::Keys>::ENTRIES);
            }

            impl<'de> $crate::serde::Deserialize<'de> for $struct {
                fn deserialize<D: $crate::serde::Deserializer<'de>>(
                    deserializer: D,
                ) -> ::core::result::Result<Self, D::Error> {
                    $crate::keys::deserialize(deserializer)
                }
            }
        };
    };
}

/// Makes an enum whose values are written as words, and its deserialization.
///
/// ```
/// metrifold_base::words! {
///     /// A colour.
///     #[derive(Clone, Copy, Debug, PartialEq, Eq)]
///     pub enum Colour {
///         /// As blood.
///         Red = "red",
///         /// As the sea.
///         DeepBlue = "deep_blue",
///     }
/// }
/// ```
#[macro_export]
macro_rules! words {
    (
        $(#[$meta:meta])*
        $vis:vis enum $enum:ident {
            $($(#[$variant_meta:meta])* $variant:ident = $word:literal),* $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis enum $enum {
            $($(#[$variant_meta])* $variant,)*
        }

        impl $crate::keys::Shaped for $enum {
            const SHAPE: $crate::keys::Shape = $crate::keys::Shape::Word(&[$($word),*]);
        }

        impl<'de> $crate::serde::Deserialize<'de> for $enum {
            fn deserialize<D: $crate::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::core::result::Result<Self, D::Error> {
                $crate::keys::word(
                    deserializer,
                    &[$($word),*],
                    &[$(Self::$variant),*],
                )
            }
        }
    };
}

/// The name of a field's key.
#[doc(hidden)]
#[macro_export]
macro_rules! __name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $name:literal) => {
        $name
    };
}

/// The type of a field while its table is read.
#[doc(hidden)]
#[macro_export]
macro_rules! __slot {
    (include $type:ty) => { <$type as $crate::keys::Keys>::Partial };
    ($mode:ident $type:ty) => { ::core::option::Option<$type> };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __entry {
    (include, $name:expr, $type:ty, $doc:expr,) => {
        $crate::keys::Entry::Include(<$type as $crate::keys::Keys>::ENTRIES)
    };
    ($mode:ident, $name:expr, $type:ty, $doc:expr, $($argument:tt)*) => {
        $crate::keys::Entry::Key($crate::keys::Key {
            name: $name,
            default: $crate::__default!($mode $($argument)*),
            doc: $doc,
            shape: <$type as $crate::keys::Shaped>::SHAPE,
        })
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __default {
    (required $($example:tt)+) => { $crate::keys::KeyDefault::Required(stringify!($($example)+)) };
    (default $($value:tt)+) => { $crate::keys::KeyDefault::Value(stringify!($($value)+)) };
    (unset $($example:tt)+) => { $crate::keys::KeyDefault::Unset(stringify!($($example)+)) };
    (suggested $($example:tt)+) => {
        $crate::keys::KeyDefault::Suggested(stringify!($($example)+))
    };
    (table) => { $crate::keys::KeyDefault::Table };
    (optional) => { $crate::keys::KeyDefault::Off };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __take {
    (include, $name:expr, $type:ty, $slot:expr, $key:ident, $map:ident) => {
        if <$type as $crate::keys::Keys>::take(&mut $slot, $key, $map)? {
            return Ok(true);
        }
    };
    ($mode:ident, $name:expr, $type:ty, $slot:expr, $key:ident, $map:ident) => {
        if $key == $name {
            $slot = Some($map.next_value()?);
            return Ok(true);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __finish {
    (include, $name:expr, $type:ty, $slot:expr,) => {
        <$type as $crate::keys::Keys>::finish($slot)?
    };
    (required, $name:expr, $type:ty, $slot:expr, $($example:tt)+) => {
        match $slot {
            Some(value) => value,
            None => return Err(E::missing_field($name)),
        }
    };
    (default, $name:expr, $type:ty, $slot:expr, { $($key:ident = $value:literal),* $(,)? }) => {
        match $slot {
            Some(value) => value,
            None => $crate::keys::default_value(
                $name,
                $crate::keys::Pairs([$((stringify!($key), $value)),*]),
            ),
        }
    };
    (default, $name:expr, $type:ty, $slot:expr, $value:expr) => {
        match $slot {
            Some(value) => value,
            None => $crate::keys::default_value($name, $value),
        }
    };
    (unset, $name:expr, $type:ty, $slot:expr, $($example:tt)+) => {
        $slot.unwrap_or_default()
    };
    (suggested, $name:expr, $type:ty, $slot:expr, $($example:tt)+) => {
        $slot.unwrap_or_default()
    };
    (table, $name:expr, $type:ty, $slot:expr,) => {
        match $slot {
            Some(value) => value,
            None => <$type as $crate::keys::Keys>::finish(::core::default::Default::default())?,
        }
    };
    (optional, $name:expr, $type:ty, $slot:expr,) => {
        $slot.flatten()
    };
}

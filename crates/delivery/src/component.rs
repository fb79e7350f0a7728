//! What makes a component of a flavour: sinks that send remote write differ in that alone.

/// Registers a newtype of [`DeliveryConfig`](crate::DeliveryConfig) as the sink of a type name, with
/// its flavour, the keys that are its own, and its summary.
#[macro_export]
macro_rules! delivery_sink {
    ($config:ty = $name:literal: $flavour:expr, $own_keys:expr, $summary:literal) => {
        ::inventory::submit! {
            ::metrifold_engine::component::ComponentInfo {
                kind: ::metrifold_model::Kind::Sink,
                name: $name,
                summary: $summary,
                keys: &[
                    $crate::KEYS,
                    $own_keys,
                    $crate::RETRY_KEYS,
                    $crate::DEAD_LETTER_KEYS,
                ],
            }
        }

        #[::typetag::deserialize(name = $name)]
        impl ::metrifold_engine::component::SinkConfig for $config {
            fn required(&self) -> bool {
                self.0.required
            }

            fn queue(&self) -> ::metrifold_queue::QueueConfig {
                self.0.queue
            }

            fn form(&self) -> ::metrifold_engine::planes::metrics::Form {
                self.0.form()
            }

            fn checks_series(&self) -> bool {
                $flavour.sorts_labels
            }

            fn files(&self) -> ::std::vec::Vec<&::std::path::Path> {
                self.0.files()
            }

            fn validate(&self, problems: &mut ::metrifold_base::Problems) {
                self.0.validate($flavour, problems);
            }

            fn before(
                &self,
                _cx: &::metrifold_engine::component::BuildContext,
            ) -> ::std::result::Result<
                ::std::option::Option<
                    ::std::sync::Arc<dyn ::metrifold_engine::planes::metrics::Transform>,
                >,
                ::metrifold_base::BuildError,
            > {
                self.0.before()
            }

            fn build(
                &self,
                cx: &::metrifold_engine::component::BuildContext,
            ) -> ::std::result::Result<
                ::std::boxed::Box<dyn ::metrifold_engine::planes::metrics::Sink>,
                ::metrifold_base::BuildError,
            > {
                self.0.build($flavour, cx)
            }
        }
    };
}

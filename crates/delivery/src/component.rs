//! Makes a configuration that includes a [`DeliveryConfig`](crate::DeliveryConfig) a sink.

/// Registers a configuration as the sink `$name`: it must include a
/// [`DeliveryConfig`](crate::DeliveryConfig) as `delivery`, and `$header` is the header that
/// carries the tenant.
#[macro_export]
macro_rules! delivery_sink {
    ($config:ty = $name:literal: $flavour:expr, |$it:ident| $header:expr, $summary:literal) => {
        ::inventory::submit! {
            ::metrifold_engine::component::ComponentInfo {
                kind: ::metrifold_model::Kind::Sink,
                name: $name,
                summary: $summary,
                keys: <$config as ::metrifold_base::keys::Keys>::ENTRIES,
            }
        }

        #[::typetag::deserialize(name = $name)]
        impl ::metrifold_engine::component::SinkConfig for $config {
            fn port(&self) -> ::metrifold_engine::component::SinkPort<'_> {
                ::metrifold_engine::component::SinkPort::Metrics(self)
            }

            fn files(&self) -> ::std::vec::Vec<&::std::path::Path> {
                self.delivery.files()
            }

            fn validate(&self, problems: &mut ::metrifold_base::Problems) {
                let $it = self;
                self.delivery.validate($header, problems);
            }
        }

        impl ::metrifold_engine::component::MetricsSink for $config {
            fn required(&self) -> bool {
                self.delivery.required
            }

            fn queue(&self) -> ::metrifold_queue::QueueConfig {
                self.delivery.queue
            }

            fn form(&self) -> ::metrifold_engine::planes::metrics::Form {
                self.delivery.form()
            }

            fn checks_series(&self) -> bool {
                $flavour.sorts_labels
            }

            fn companions(&self) -> ::metrifold_codec::remote_write::CompanionBounds {
                self.delivery.companions()
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
                self.delivery.before()
            }
        }

        impl ::metrifold_engine::component::BuildSink<::metrifold_engine::planes::metrics::Metrics>
            for $config
        {
            fn build(
                &self,
                cx: &::metrifold_engine::component::BuildContext,
            ) -> ::std::result::Result<
                ::std::boxed::Box<
                    dyn ::metrifold_engine::planes::Sink<
                            ::metrifold_engine::planes::metrics::Metrics,
                        >,
                >,
                ::metrifold_base::BuildError,
            > {
                let $it = self;
                self.delivery.build($flavour, $header, cx)
            }
        }
    };
}

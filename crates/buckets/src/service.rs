//! Clients of the providers' services.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::PaginatedListStore;
use object_store::{BackoffConfig, ClientOptions, Error, ObjectStore, RetryConfig};

use super::config::{BucketConfig, Credentials};
use super::connector::Connector;
use super::url::Provider;

/// Pauses between attempts after a transient failure.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Number of retries after a transient failure.
const RETRIES: usize = 3;

/// A client that reads and writes objects and lists them by pages.
pub(super) trait Service: ObjectStore + PaginatedListStore {}

impl<T: ObjectStore + PaginatedListStore> Service for T {}

pub(super) fn build(config: &BucketConfig) -> Result<Arc<dyn Service>, Error> {
    let connector = Connector::new(config).map_err(|error| Error::Generic {
        store: "bucket",
        source: error.into(),
    })?;
    let plain = config
        .endpoint
        .as_ref()
        .is_some_and(|url| url.starts_with("http://"));
    let options = ClientOptions::new().with_allow_http(plain);
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: BACKOFF_MIN,
            max_backoff: BACKOFF_MAX,
            base: 2.,
        },
        max_retries: RETRIES,
        retry_timeout: config.timeout,
    };
    let bucket = config.url.bucket();
    Ok(match config.url.provider() {
        Provider::S3 => {
            let mut builder = match &config.credentials {
                Credentials::Key(id, secret) => AmazonS3Builder::new()
                    .with_access_key_id(id)
                    .with_secret_access_key(secret.expose()),
                _ => AmazonS3Builder::from_env(),
            };
            if let Some(endpoint) = &config.endpoint {
                builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
            }
            if let Some(region) = &config.region {
                builder = builder.with_region(region);
            }
            let builder = builder
                .with_bucket_name(bucket)
                // Not every service of this kind removes several objects with one request.
                .with_disable_bulk_delete(true)
                .with_client_options(options)
                .with_http_connector(connector)
                .with_retry(retry);
            Arc::new(builder.build()?)
        }
        Provider::Google => {
            let mut builder = match &config.credentials {
                Credentials::File(path) => GoogleCloudStorageBuilder::new()
                    .with_service_account_path(path.to_string_lossy()),
                _ => GoogleCloudStorageBuilder::from_env(),
            };
            if let Some(endpoint) = &config.endpoint {
                builder = builder.with_base_url(endpoint.trim_end_matches('/'));
            }
            let builder = builder
                .with_bucket_name(bucket)
                .with_client_options(options)
                .with_http_connector(connector)
                .with_retry(retry);
            Arc::new(builder.build()?)
        }
        Provider::Azure => {
            let mut builder = match &config.credentials {
                Credentials::Key(account, key) => MicrosoftAzureBuilder::new()
                    .with_account(account)
                    .with_access_key(key.expose()),
                Credentials::Account(account) => {
                    MicrosoftAzureBuilder::from_env().with_account(account)
                }
                _ => MicrosoftAzureBuilder::from_env(),
            };
            if let Some(endpoint) = &config.endpoint {
                builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
            }
            let builder = builder
                .with_container_name(bucket)
                .with_client_options(options)
                .with_http_connector(connector)
                .with_retry(retry);
            Arc::new(builder.build()?)
        }
    })
}
